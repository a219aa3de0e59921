/* Q C and Q' C for a product of reflectors, as block reflectors; the mathematics is in cl/svd/postprocess.cl. */
#include "opencl/launch.h"

/* BLOCK as in cl/svd/postprocess.cl. Of so many columns of V are the factors of their blocks written out at a time. */
enum { BLOCK = 128, COLUMNS = 8 * BLOCK, MIN_ROWS = 512, TILE = 32, ALIGNMENT = 8 };

typedef struct {
    lai_matrix t;           /* op(T) of all blocks, side by side */
    lai_matrix v, tv;       /* of some blocks: V with its 1s and 0s, op(T) V', one block's behind the other's */
    lai_matrix w;           /* op(T) V'C */
    lai_matrix parts;       /* of the Gram matrices */
    lai_matrix products;    /* for gemm */
} lai_reflectors;

/* Into how many sums the Gram matrices are split. */
static int64_t gram_chunks(int m, int k)
{
    return most(1, least(LAI_MANY_GROUPS / most(1, pieces(k, BLOCK)), pieces(m, MIN_ROWS)));
}

static int64_t products_work(int dtype, int m, int n, int k)
{
    const int block = (int)least(BLOCK, k), columns = (int)least(COLUMNS, k);
    const int64_t apply = most(lai_cl_gemm_work(dtype, 0, block, n, m),
                               components(dtype) > 1 ? lai_cl_gemm_work(dtype, 0, m, n, block) : 0);
    return most(apply, lai_cl_gemm_blocks_work(dtype, block, m, columns));
}

static void take_all(lai_reflectors *q, lai_workspace *space, int dtype, int m, int n, int k)
{
    const int block = (int)least(BLOCK, k), columns = (int)least(COLUMNS, k);
    q->t = take(space, block, k);
    q->v = take(space, pieces(m, ALIGNMENT) * ALIGNMENT, columns);
    q->tv = take(space, block, m * pieces(columns, BLOCK));
    q->w = take(space, block, n);
    q->parts = take(space, BLOCK * BLOCK, gram_chunks(m, k) * pieces(k, BLOCK));
    q->products = take(space, products_work(dtype, m, n, k), 1);
}

int64_t lai_cl_ormqr_work(int dtype, int m, int n, int k)
{
    lai_reflectors q;
    lai_workspace query = { NULL, 0 };
    take_all(&q, &query, dtype, m, n, k);
    return query.next;
}

/* op(T) of every block. */
static int larft(const lai_opencl *cl, const lai_reflectors *q, int transpose, const lai_matrix *v,
                 const lai_matrix *tau)
{
    const int m = v->rows, k = v->columns;
    const int chunk = (int)pieces(m, gram_chunks(m, k)), chunks = (int)pieces(m, chunk);
    TRY(launch(cl, LAI_CL_GRAM, ((lai_groups){ chunks, pieces(k, BLOCK), 1 }),
               INT(m), INT(k), INT(q->t.rows), INT(chunk), MATRIX(v), VECTOR(&q->parts)));
    return launch(cl, LAI_CL_LARFT, ((lai_groups){ pieces(k, BLOCK), 1, 1 }), INT(k), INT(q->t.rows), INT(chunks),
                  INT(transpose), VECTOR(&q->parts), VECTOR(tau), MATRIX(&q->t));
}

/* V and op(T) V' of the blocks in columns `start` and later. */
static int write_factors(const lai_opencl *cl, const lai_reflectors *q, int start, const lai_matrix *v)
{
    const int rows = v->rows - start, width = (int)least(COLUMNS, v->columns - start);
    const lai_matrix source = part(v, start, start, rows, width), full = part(&q->v, 0, 0, rows, width);
    const lai_matrix t = part(&q->t, 0, start, q->t.rows, width);
    TRY(launch(cl, LAI_CL_UNIT_LOWER, ((lai_groups){ pieces(rows, TILE), pieces(width, TILE), 1 }),
               INT(rows), INT(width), MATRIX(&source), MATRIX(&full)));
    return lai_cl_gemm_blocks(cl, BLOCK, &t, &full, &q->tv, (int64_t)q->tv.rows * rows, &q->products);
}

/* C = (I - V op(T) V') C for the block whose first reflector is `first`; `start` is the one of write_factors. */
static int apply_block(const lai_opencl *cl, const lai_reflectors *q, int start, int first, const lai_matrix *v,
                       const lai_matrix *c)
{
    const int rows = v->rows - first, width = (int)least(BLOCK, v->columns - first), n = c->columns;
    const int inside = first - start, before = inside / BLOCK * (v->rows - start);
    const lai_matrix rest = part(c, first, 0, rows, n), w = part(&q->w, 0, 0, width, n);
    const lai_matrix full = part(&q->v, inside, inside, rows, width);
    const lai_matrix tv = part(&q->tv, 0, before + inside, width, rows);
    TRY(lai_cl_gemm(cl, 0, 0, 1, &tv, &rest, 0, &w, &q->products));
    TRY(lai_cl_gemm(cl, 0, 0, -1, &full, &w, 1, &rest, &q->products));
    return lai_cl_flush(cl);
}

int lai_cl_ormqr(const lai_opencl *cl, int transpose, const lai_matrix *v, const lai_matrix *tau,
                 const lai_matrix *c, const lai_matrix *work)
{
    lai_workspace space = { work->buffer, work->offset };
    lai_reflectors q;
    const int k = v->columns, blocks = (int)pieces(k, BLOCK);
    if (k == 0)
        return CL_SUCCESS;
    TRY(suffices(work, lai_cl_ormqr_work(cl->dtype, c->rows, c->columns, k)));
    take_all(&q, &space, cl->dtype, c->rows, c->columns, k);
    TRY(larft(cl, &q, transpose, v, tau));
    for (int b = 0, written = -1; b < blocks; b++) {
        /* Q' C = H_k ... H_1 C begins with the first reflector, Q C with the last. */
        const int first = BLOCK * (transpose ? b : blocks - 1 - b), start = first / COLUMNS * COLUMNS;
        if (start != written)
            TRY(write_factors(cl, &q, start, v));
        written = start;
        TRY(apply_block(cl, &q, start, first, v, c));
    }
    return CL_SUCCESS;
}
