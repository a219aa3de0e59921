/* Divide and conquer for the SVD of a bidiagonal matrix, in compact form: LAPACK's lasda on all CPUs.
 *
 * A tree halves the matrix down to leaves of at most 25 rows, which lasdq decomposes. A merge joins two neighbours and the row
 * between them: lasd7 (deflation) finds the problem's size k, csrc/secular.inc the k new singular values, each a root of the secular
 * equation. What is kept of a merge is of length k, not k^2: the singular vectors follow from it on the device (cl/svd/divide.cl).
 *
 * M. Gu and S. C. Eisenstat, "A divide-and-conquer algorithm for the bidiagonal SVD", SIAM J. Matrix Anal. Appl. 16 (1995), 79-92;
 * the routines are those of LAPACK that SciPy carries. Nodes of a level, and the roots of a large node, are independent: they are
 * shared among the CPUs, with the same results for any number of them. */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "secular.h"

enum {
    LEAF = LAI_LEAF,
    FEW_NODES = 8               /* up to here the roots of one node are shared, beyond the nodes */
};

int lai_lasda_levels(int n)
{
    int levels = 0;
    for (int size = n; size > LEAF; size /= 2)
        levels++;
    return levels;
}

#if LAI_X86
#define AT_LEVEL(letter) \
    (lai_current_isa() == LAI_AVX512 ? lai_##letter##secular_avx512 \
     : lai_current_isa() == LAI_AVX2 ? lai_##letter##secular_avx2 : lai_##letter##secular_baseline)
#else
#define AT_LEVEL(letter) lai_##letter##secular_baseline
#endif

#define REAL double
#define SOLVE_SECULAR AT_LEVEL(d)
#define NAME(name) lai_d##name
#define FABS fabs
#define SQRT sqrt
#define COPYSIGN copysign
#define EPSILON 0x1p-53
#include "lasda.inc"
#undef REAL
#undef SOLVE_SECULAR
#undef NAME
#undef FABS
#undef SQRT
#undef COPYSIGN
#undef EPSILON

#define REAL float
#define SOLVE_SECULAR AT_LEVEL(s)
#define NAME(name) lai_s##name
#define FABS fabsf
#define SQRT sqrtf
#define COPYSIGN copysignf
#define EPSILON 0x1p-24f
#include "lasda.inc"
