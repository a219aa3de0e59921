/* Singular value decompositions of many small matrices by one launch, and others for vectors that it leaves. */
#include "opencl/launch.h"

enum { MOST = 64 };     /* rows and columns */

/* As in cl/svd/jacobi.cl, of the kernel for matrices in local memory, and of the one for matrices in global memory. */
static const struct variant {
    enum lai_cl_kernel kernel;
    int items, pair_items, most_columns;
} IN_LOCAL = { LAI_CL_GESVJ, 64, 4, 32 }, IN_GLOBAL = { LAI_CL_GESVJ_LARGE, 256, 8, MOST };

/* Of what every device has, 32 KiB, the kernel takes some for itself. */
enum { LOCAL_BYTES = 28 * 1024 };

/* From column to column: an odd multiple of 2, so that what is read together lies in different banks of local memory. */
static int padded(int rows)
{
    return 2 * ((int)pieces(rows, 2) | 1);
}

/* Elements that the decomposition of a matrix takes. */
static int64_t room_of(int m, int n, int vectors)
{
    return (int64_t)m * padded(n) + (vectors ? (int64_t)n * padded(m) : 0);
}

/* Bytes of the same. */
static size_t bytes_of(int dtype, int m, int n, int vectors)
{
    return (size_t)room_of(m, n, vectors) * (dtype == LAI_FLOAT64 ? sizeof(double) : sizeof(float));
}

static const struct variant *variant_for(int dtype, int m, int n, int vectors)
{
    return n > IN_LOCAL.most_columns || bytes_of(dtype, m, n, vectors) > LOCAL_BYTES ? &IN_GLOBAL : &IN_LOCAL;
}

int64_t lai_cl_gesvj_work(int dtype, int m, int n, int vectors, int count)
{
    return variant_for(dtype, m, n, vectors) == &IN_GLOBAL ? count * room_of(m, n, vectors) : 0;
}

int lai_cl_gesvj(const lai_opencl *cl, int m, int n, int left, int wide, const lai_matrix *a, const lai_matrix *u,
                 const lai_matrix *v, const lai_matrix *s, const lai_matrix *info, const lai_matrix *work)
{
    const int count = a->columns, vectors = u->rows > 0;
    if (n < 1 || n > m || m > MOST)
        return CL_INVALID_VALUE;
    const struct variant *const variant = variant_for(cl->dtype, m, n, vectors);
    const size_t bytes = bytes_of(cl->dtype, m, n, vectors);
    const int most_teams = variant->items / ((int)pieces(n, 2) * variant->pair_items);
    const int teams = variant == &IN_GLOBAL ? most_teams : (int)least(most_teams, (int64_t)(LOCAL_BYTES / bytes));
    TRY(suffices(work, lai_cl_gesvj_work(cl->dtype, m, n, vectors, count)));
#define ARGUMENTS                                                                                       \
    INT(count), INT(teams), INT(m), INT(n), INT(left), INT(vectors), INT(wide), MATRIX(a), MATRIX(u),   \
    MATRIX(v), MATRIX(s), MATRIX(info), INT(padded(n)), INT(vectors ? padded(m) : 0)
    const lai_groups groups = { pieces(count, teams), 1, 1 };
    if (variant == &IN_GLOBAL)
        TRY(launch(cl, variant->kernel, groups, ARGUMENTS, VECTOR(work)));
    else
        TRY(launch(cl, variant->kernel, groups, ARGUMENTS, LOCAL((size_t)teams * bytes)));
    if (!vectors)
        return CL_SUCCESS;
    const lai_groups each = { count, 1, 1 };
    TRY(launch(cl, LAI_CL_COMPLETE_BASIS, each, INT(n), INT(n), INT(wide), INT(-1), MATRIX(v), MATRIX(info)));
    if (left > n)
        TRY(launch(cl, LAI_CL_COMPLETE_BASIS, each, INT(m), INT(left), INT(!wide), INT(n), MATRIX(u), MATRIX(info)));
    return CL_SUCCESS;
}
