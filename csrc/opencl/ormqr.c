/* Q C and Q' C for a product of reflectors, as block reflectors; the mathematics is in cl/svd/postprocess.cl. */
#include "opencl/launch.h"

/* BLOCK as in cl/svd/postprocess.cl. */
enum { BLOCK = 128, MIN_ROWS = 512, TILE = 32 };

typedef struct {
    lai_matrix t, v;        /* T of all blocks, V of one with its 1s and 0s written out */
    lai_matrix vc, tvc;     /* V'C and T V'C */
    lai_matrix parts;       /* of the Gram matrices */
    lai_matrix sums;        /* of gemm */
} lai_reflectors;

/* Into how many sums the Gram matrices are split. */
static int64_t gram_chunks(int m, int k)
{
    return most(1, least(LAI_MANY_GROUPS / most(1, pieces(k, BLOCK)), pieces(m, MIN_ROWS)));
}

static void take_all(lai_reflectors *q, lai_workspace *space, int m, int n, int k)
{
    const int block = (int)least(BLOCK, k);
    q->t = take(space, block, k);
    q->v = take(space, m, block);
    q->vc = take(space, block, n);
    q->tvc = take(space, block, n);
    q->parts = take(space, BLOCK * BLOCK, gram_chunks(m, k) * pieces(k, BLOCK));
    q->sums = take(space, lai_cl_gemm_work(block, n, m), 1);
}

int64_t lai_cl_ormqr_work(int m, int n, int k)
{
    lai_reflectors q;
    lai_workspace query = { NULL, 0 };
    take_all(&q, &query, m, n, k);
    return query.next;
}

/* T of every block. */
static int larft(const lai_opencl *cl, const lai_reflectors *q, const lai_matrix *v, const lai_matrix *tau)
{
    const int m = v->rows, k = v->columns;
    const int chunk = (int)pieces(m, gram_chunks(m, k)), chunks = (int)pieces(m, chunk);
    TRY(launch(cl, LAI_CL_GRAM, ((lai_groups){ chunks, pieces(k, BLOCK), 1 }),
               INT(m), INT(k), INT(q->t.rows), INT(chunk), MATRIX(v), VECTOR(&q->parts)));
    return launch(cl, LAI_CL_LARFT, ((lai_groups){ pieces(k, BLOCK), 1, 1 }), INT(k), INT(q->t.rows), INT(chunks),
                  VECTOR(&q->parts), VECTOR(tau), MATRIX(&q->t));
}

/* C = (I - V op(T) V') C for the block whose first reflector is `first`. */
static int apply_block(const lai_opencl *cl, const lai_reflectors *q, int transpose, int first,
                       const lai_matrix *v, const lai_matrix *c)
{
    const int rows = v->rows - first, width = (int)least(BLOCK, v->columns - first), n = c->columns;
    const lai_matrix source = part(v, first, first, rows, width), rest = part(c, first, 0, rows, n);
    const lai_matrix t = part(&q->t, 0, first, width, width), full = part(&q->v, 0, 0, rows, width);
    const lai_matrix vc = part(&q->vc, 0, 0, width, n), tvc = part(&q->tvc, 0, 0, width, n);

    TRY(launch(cl, LAI_CL_UNIT_LOWER, ((lai_groups){ pieces(rows, TILE), pieces(width, TILE), 1 }),
               INT(rows), INT(width), MATRIX(&source), MATRIX(&full)));
    TRY(lai_cl_gemm(cl, 1, 0, 1, &full, &rest, 0, &vc, &q->sums));
    TRY(lai_cl_gemm(cl, transpose, 0, 1, &t, &vc, 0, &tvc, NULL));
    TRY(lai_cl_gemm(cl, 0, 0, -1, &full, &tvc, 1, &rest, NULL));
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
    TRY(suffices(work, lai_cl_ormqr_work(c->rows, c->columns, k)));
    take_all(&q, &space, c->rows, c->columns, k);
    TRY(larft(cl, &q, v, tau));
    for (int b = 0; b < blocks; b++)    /* Q' C = H_k ... H_1 C begins with the first reflector, Q C with the last */
        TRY(apply_block(cl, &q, transpose, BLOCK * (transpose ? b : blocks - 1 - b), v, c));
    return CL_SUCCESS;
}
