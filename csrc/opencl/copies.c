/* lascl, laset, lacpy, lacp2: one launch each. */
#include "opencl/launch.h"

enum { TILE = 32, MOST_GROUPS = 1 << 15 };

static lai_groups tiles(const lai_matrix *a)
{
    const int64_t columns = pieces(a->columns, TILE), y = least(columns, MOST_GROUPS);
    return (lai_groups){ pieces(a->rows, TILE), y, y ? pieces(columns, y) : 0 };
}

int lai_cl_lascl(const lai_opencl *cl, int transpose, int exponent, const lai_matrix *a, const lai_matrix *b)
{
    if (transpose)
        return launch(cl, LAI_CL_LASCL_TRANSPOSED, tiles(a), INT(a->rows), INT(a->columns), INT(exponent),
                      INT(transpose == 2), MATRIX(a), MATRIX(b));
    return launch(cl, LAI_CL_LASCL, tiles(a), INT(a->rows), INT(a->columns), INT(exponent), MATRIX(a), MATRIX(b));
}

int lai_cl_laset(const lai_opencl *cl, int alpha, int beta, const lai_matrix *a)
{
    return launch(cl, LAI_CL_LASET, tiles(a), INT(a->rows), INT(a->columns), INT(alpha), INT(beta), MATRIX(a));
}

int lai_cl_lacpy_upper(const lai_opencl *cl, const lai_matrix *a, const lai_matrix *b)
{
    return launch(cl, LAI_CL_LACPY_UPPER, tiles(a), INT(a->rows), INT(a->columns), MATRIX(a), MATRIX(b));
}

int lai_cl_lacp2(const lai_opencl *cl, const lai_matrix *a, const lai_matrix *b)
{
    return launch(cl, LAI_CL_LACP2, tiles(a), INT(a->rows), INT(a->columns), MATRIX(a), MATRIX(b));
}
