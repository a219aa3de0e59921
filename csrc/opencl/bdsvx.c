/* Singular values of a bidiagonal matrix by multisection, see cl/svd/iteration.cl. */
#include "opencl/launch.h"

enum { VALUES = 32 };

int lai_cl_bdsvx(const lai_opencl *cl, const lai_matrix *d, const lai_matrix *e, const lai_matrix *s)
{
    return launch(cl, LAI_CL_MULTISECTION, ((lai_groups){ pieces(s->rows, VALUES), 1, 1 }),
                  INT(s->rows), VECTOR(d), VECTOR(e), VECTOR(s));
}
