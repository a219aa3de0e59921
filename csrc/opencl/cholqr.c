/* CholeskyQR, twice: G = A'A = L L', Q = A L^-T, then the same for Q; R is the product of both triangles.
 *
 * Products of matrices are all that takes time. The first Q is orthogonal as far as the condition of A, of columns
 * scaled alike, allows; where its Gram matrix is near I, the second Q is orthogonal to rounding and A - QR small:
 * Yamamoto, Nakatsukasa, Yanagisawa, Fukaya, Roundoff error analysis of the CholeskyQR2 algorithm (2015). */
#include "opencl/launch.h"

enum { SIDE = 64, ITEMS = 256 };    /* SIDE: as in cl/svd/cholesky.cl */

static int64_t products_work(int m, int n)
{
    int64_t needed = most(lai_cl_gemm_work(n, n, m), lai_cl_gemm_work(n, n, n));
    for (int k = SIDE; k < n; k += SIDE) {
        const int width = (int)least(SIDE, n - k);
        needed = most(needed, lai_cl_gemm_work(m, width, k));
        needed = most(needed, lai_cl_gemm_work(n - k, n - k, SIDE));
    }
    return needed;
}

int64_t lai_cl_cholqr_work(int m, int n)
{
    return (int64_t)n * n + products_work(m, n);
}

static int trsm(const lai_opencl *cl, const lai_matrix *l, const lai_matrix *b)
{
    return launch(cl, LAI_CL_TRSM, ((lai_groups){ pieces(b->rows, ITEMS), 1, 1 }),
                  INT(b->rows), INT(b->columns), MATRIX(l), MATRIX(b));
}

/* G = L L', in place; above the diagonal blocks are what they were. */
static int factor(const lai_opencl *cl, const lai_matrix *g, const lai_matrix *work)
{
    for (int k = 0; k < g->rows; k += SIDE) {
        const int width = (int)least(SIDE, g->rows - k), rest = g->rows - k - width;
        const lai_matrix corner = part(g, k, k, width, width);
        TRY(launch(cl, LAI_CL_POTRF, ((lai_groups){ 1, 1, 1 }), INT(width), MATRIX(&corner)));
        if (rest > 0) {
            const lai_matrix below = part(g, k + width, k, rest, width);
            const lai_matrix behind = part(g, k + width, k + width, rest, rest);
            TRY(trsm(cl, &corner, &below));
            TRY(lai_cl_gemm(cl, 0, 1, -1, &below, &below, 1, &behind, work));
        }
    }
    return CL_SUCCESS;
}

/* Q = Q L^-T, in place. */
static int solve(const lai_opencl *cl, const lai_matrix *l, const lai_matrix *q, const lai_matrix *work)
{
    for (int k = 0; k < q->columns; k += SIDE) {
        const int width = (int)least(SIDE, q->columns - k);
        const lai_matrix corner = part(l, k, k, width, width), columns = part(q, 0, k, q->rows, width);
        if (k > 0) {
            const lai_matrix left = part(l, k, 0, width, k), known = part(q, 0, 0, q->rows, k);
            TRY(lai_cl_gemm(cl, 0, 1, -1, &known, &left, 1, &columns, work));
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
    TRY(suffices(work, lai_cl_cholqr_work(m, n)));
    const lai_matrix square = take(&space, n, n), products = take(&space, products_work(m, n), 1);

    TRY(lai_cl_lascl(cl, 0, 0, a, q));
    for (int pass = 0; pass < 2; pass++) {
        TRY(lai_cl_gemm(cl, 1, 0, 1, q, q, 0, gram, &products));
        if (pass == 1)
            TRY(launch(cl, LAI_CL_DISTANCE_TO_IDENTITY, ((lai_groups){ distance->rows, 1, 1 }),
                       INT(n), MATRIX(gram), VECTOR(distance)));
        TRY(factor(cl, gram, &products));
        TRY(solve(cl, gram, q, &products));
        TRY(lai_cl_lascl(cl, 1, 0, gram, &square));
        TRY(lai_cl_lacpy_upper(cl, &square, pass == 0 ? r : gram));
    }
    TRY(lai_cl_gemm(cl, 0, 0, 1, gram, r, 0, &square, &products));
    TRY(lai_cl_lacpy_upper(cl, &square, r));
    return lai_cl_flush(cl);
}
