/* CholeskyQR, twice: G = A'A = L L', Q = A L^-T, then the same for Q; R is the product of both triangles.
 *
 * Products of matrices are all that takes time. The first Q is orthogonal as far as the condition of A, of columns
 * scaled alike, allows; where its Gram matrix is near I, the second Q is orthogonal to rounding and A - QR small:
 * Yamamoto, Nakatsukasa, Yanagisawa, Fukaya, Roundoff error analysis of the CholeskyQR2 algorithm (2015). */
#include "opencl/launch.h"

enum { ITEMS = 256 };

/* Of a block, as SIDE in cl/svd/cholesky.cl. */
static int side_of(int dtype)
{
    return 64 / components(dtype);
}

static int64_t products_work(int dtype, int m, int n)
{
    const int side = side_of(dtype);
    int64_t needed = most(lai_cl_gemm_work(dtype, 0, n, n, m), lai_cl_gemm_work(dtype, 0, n, n, n));
    for (int k = side; k < n; k += side) {
        const int width = (int)least(side, n - k);
        needed = most(needed, lai_cl_gemm_work(dtype, 2, m, width, k));
        needed = most(needed, lai_cl_gemm_work(dtype, 2, n - k, n - k, side));
    }
    return needed;
}

int64_t lai_cl_cholqr_work(int dtype, int m, int n)
{
    return (int64_t)n * n + products_work(dtype, m, n);
}

static int trsm(const lai_opencl *cl, const lai_matrix *l, const lai_matrix *b)
{
    return launch(cl, LAI_CL_TRSM, ((lai_groups){ pieces(b->rows, ITEMS), 1, 1 }),
                  INT(b->rows), INT(b->columns), MATRIX(l), MATRIX(b));
}

/* G = L L', in place; above the diagonal blocks are what they were. */
static int factor(const lai_opencl *cl, const lai_matrix *g, const lai_matrix *work)
{
    const int side = side_of(cl->dtype);
    for (int k = 0; k < g->rows; k += side) {
        const int width = (int)least(side, g->rows - k), rest = g->rows - k - width;
        const lai_matrix corner = part(g, k, k, width, width);
        TRY(launch(cl, LAI_CL_POTRF, ((lai_groups){ 1, 1, 1 }), INT(width), MATRIX(&corner)));
        if (rest > 0) {
            const lai_matrix below = part(g, k + width, k, rest, width);
            const lai_matrix behind = part(g, k + width, k + width, rest, rest);
            TRY(trsm(cl, &corner, &below));
            TRY(lai_cl_gemm(cl, 0, 2, -1, &below, &below, 1, &behind, work));
        }
    }
    return CL_SUCCESS;
}

/* Q = Q L^-T, in place. */
static int solve(const lai_opencl *cl, const lai_matrix *l, const lai_matrix *q, const lai_matrix *work)
{
    const int side = side_of(cl->dtype);
    for (int k = 0; k < q->columns; k += side) {
        const int width = (int)least(side, q->columns - k);
        const lai_matrix corner = part(l, k, k, width, width), columns = part(q, 0, k, q->rows, width);
        if (k > 0) {
            const lai_matrix left = part(l, k, 0, width, k), known = part(q, 0, 0, q->rows, k);
            TRY(lai_cl_gemm(cl, 0, 2, -1, &known, &left, 1, &columns, work));
        }
        TRY(trsm(cl, &corner, &columns));
    }
    return CL_SUCCESS;
}

int lai_cl_cholqr(const lai_opencl *cl, const lai_matrix *a, const lai_matrix *q, const lai_matrix *r,
                  const lai_matrix *gram, const lai_matrix *distance, const lai_matrix *work)
{
    const int m = a->rows, n = a->columns;
    lai_workspace space = { work->buffer, work->offset };
    TRY(suffices(work, lai_cl_cholqr_work(cl->dtype, m, n)));
    const lai_matrix square = take(&space, n, n), products = take(&space, products_work(cl->dtype, m, n), 1);

    TRY(lai_cl_lascl(cl, 0, 0, a, q));
    for (int pass = 0; pass < 2; pass++) {
        TRY(lai_cl_gemm(cl, 2, 0, 1, q, q, 0, gram, &products));
        if (pass == 1)
            TRY(launch(cl, LAI_CL_DISTANCE_TO_IDENTITY, ((lai_groups){ distance->rows, 1, 1 }),
                       INT(n), MATRIX(gram), VECTOR(distance)));
        TRY(factor(cl, gram, &products));
        TRY(solve(cl, gram, q, &products));
        TRY(lai_cl_lascl(cl, 2, 0, gram, &square));
        TRY(lai_cl_lacpy_upper(cl, &square, pass == 0 ? r : gram));
    }
    TRY(lai_cl_gemm(cl, 0, 0, 1, gram, r, 0, &square, &products));
    TRY(lai_cl_lacpy_upper(cl, &square, r));
    return lai_cl_flush(cl);
}
