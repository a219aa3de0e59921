/* max |A|, of real and imaginary parts, in two launches: the maximum of each work-group, then of those. */
#include "opencl/launch.h"

enum { GROUPS = 256, ITEMS = 256 };

int64_t lai_cl_max_abs_work(void)
{
    return GROUPS;
}

int lai_cl_max_abs(const lai_opencl *cl, const lai_matrix *a, const lai_matrix *result, const lai_matrix *work)
{
    const lai_matrix reals = as_reals(cl->dtype, a), maxima = as_reals(cl->dtype, work);
    const int64_t count = (int64_t)reals.rows * a->columns, groups = most(1, least(GROUPS, pieces(count, ITEMS)));
    TRY(suffices(work, GROUPS));
    if (a->ld != a->rows && a->columns > 1)
        return CL_INVALID_VALUE;        /* one run of memory is wanted */
    TRY(launch(cl, LAI_CL_MAX_ABS, ((lai_groups){ groups, 1, 1 }), LONG(count), VECTOR(&reals), VECTOR(&maxima)));
    return launch(cl, LAI_CL_MAX_ABS, ((lai_groups){ 1, 1, 1 }), LONG(groups), VECTOR(&maxima), VECTOR(result));
}
