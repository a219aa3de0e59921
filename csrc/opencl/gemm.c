/* Products of matrices. Where C has few tiles and the sums are long, k is split so that all of the device works. */
#include "opencl/launch.h"

enum { LARGEST_TILE = 128, SHORTEST = 256, ITEMS = 256 };

/* Into how many sums a sum over k is split at most; the more the larger the tiles are. */
static int64_t most_parts(int m, int n, int k, int tile_m, int tile_n)
{
    const int64_t tiles = most(1, pieces(m, tile_m) * pieces(n, tile_n));
    return most(1, least(LAI_MANY_GROUPS / tiles, pieces(k, SHORTEST)));
}

int64_t lai_cl_gemm_work(int m, int n, int k)
{
    const int64_t parts = most_parts(m, n, k, LARGEST_TILE, LARGEST_TILE);
    return parts > 1 ? parts * m * n : 0;
}

/* A, B, C and their strides as the kernels take them; the table has a buffer where there are many products. */
#define OPERANDS(a, b, c, part_stride, table, first)                                                        \
    VECTOR(a), LONG(transa ? (a)->ld : 1), LONG(transa ? 1 : (a)->ld),                                      \
    VECTOR(b), LONG(transb ? (b)->ld : 1), LONG(transb ? 1 : (b)->ld), MATRIX(c), LONG(part_stride),        \
    { sizeof(void *), &(void *const){ table } }, LONG(first)

int lai_cl_gemm(const lai_opencl *cl, int transa, int transb, int alpha, const lai_matrix *a, const lai_matrix *b,
                int beta, const lai_matrix *c, const lai_matrix *work)
{
    const int m = c->rows, n = c->columns, k = transa ? a->rows : a->columns;
    const int tile_m = cl->gemm_tile[0], tile_n = cl->gemm_tile[1];
    const int depth = (int)most(1, pieces(k, most_parts(m, n, k, tile_m, tile_n)));
    const int64_t parts = most(1, pieces(k, depth)), stride = (int64_t)m * n;
    const lai_groups groups = { pieces(m, tile_m), pieces(n, tile_n), parts };

    if (parts == 1)
        return launch(cl, LAI_CL_GEMM, groups, INT(m), INT(n), INT(k), INT(depth), INT(alpha), INT(beta),
                      OPERANDS(a, b, c, 0, NULL, 0));

    TRY(suffices(work, parts * stride));
    const lai_matrix sums = { work->buffer, work->offset, m, m, n };
    TRY(launch(cl, LAI_CL_GEMM, groups, INT(m), INT(n), INT(k), INT(depth), INT(1), INT(0),
               OPERANDS(a, b, &sums, stride, NULL, 0)));
    return launch(cl, LAI_CL_GEMM_SUM, ((lai_groups){ pieces(m, ITEMS), n, 1 }), INT(m), INT((int)parts),
                  INT(alpha), INT(beta), MATRIX(&sums), LONG(stride), MATRIX(c));
}

int lai_cl_gemm_batch(const lai_opencl *cl, int transa, int transb, int alpha, const lai_matrix *a,
                      const lai_matrix *b, int beta, const lai_matrix *c, void *table, int64_t first, int products,
                      int m, int n)
{
    const lai_groups groups = { pieces(m, cl->gemm_tile[0]), pieces(n, cl->gemm_tile[1]), products };
    return launch(cl, LAI_CL_GEMM, groups, INT(m), INT(n), INT(0), INT(0), INT(alpha), INT(beta),
                  OPERANDS(a, b, c, 0, table, first));
}
