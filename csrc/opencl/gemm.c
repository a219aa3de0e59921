/* Products of matrices. Where C has few tiles and the sums are long, k is split so that all of the device works. */
#include "opencl/launch.h"

enum { TILE = 64, SHORTEST = 256, ITEMS = 256 };

/* Into how many sums a sum over k is split at most. */
static int64_t most_parts(int m, int n, int k)
{
    const int64_t tiles = most(1, pieces(m, TILE) * pieces(n, TILE));
    return most(1, least(LAI_MANY_GROUPS / tiles, pieces(k, SHORTEST)));
}

int64_t lai_cl_gemm_work(int m, int n, int k)
{
    const int64_t parts = most_parts(m, n, k);
    return parts > 1 ? parts * m * n : 0;
}

int lai_cl_gemm(const lai_opencl *cl, int transa, int transb, int alpha, const lai_matrix *a, const lai_matrix *b,
                int beta, const lai_matrix *c, const lai_matrix *work)
{
    const int m = c->rows, n = c->columns, k = transa ? a->rows : a->columns;
    const int64_t a_i = transa ? a->ld : 1, a_p = transa ? 1 : a->ld;
    const int64_t b_p = transb ? b->ld : 1, b_j = transb ? 1 : b->ld;
    const int64_t rows = pieces(m, TILE), columns = pieces(n, TILE), stride = (int64_t)m * n;
    const int depth = (int)most(1, pieces(k, most_parts(m, n, k)));
    const int64_t parts = most(1, pieces(k, depth));
    const lai_groups groups = { rows, columns, parts };

    if (parts == 1)
        return launch(cl, LAI_CL_GEMM, groups, INT(m), INT(n), INT(k), INT(depth), INT(alpha), INT(beta),
                      VECTOR(a), LONG(a_i), LONG(a_p), VECTOR(b), LONG(b_p), LONG(b_j), MATRIX(c), LONG(0));

    TRY(suffices(work, parts * stride));
    const lai_matrix sums = { work->buffer, work->offset, m, m, n };
    TRY(launch(cl, LAI_CL_GEMM, groups, INT(m), INT(n), INT(k), INT(depth), INT(1), INT(0),
               VECTOR(a), LONG(a_i), LONG(a_p), VECTOR(b), LONG(b_p), LONG(b_j), MATRIX(&sums), LONG(stride)));
    return launch(cl, LAI_CL_GEMM_SUM, ((lai_groups){ pieces(m, ITEMS), n, 1 }), INT(m), INT((int)parts),
                  INT(alpha), INT(beta), MATRIX(&sums), LONG(stride), MATRIX(c));
}
