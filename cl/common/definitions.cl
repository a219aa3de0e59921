/* What every kernel shares: the type, matrices as arguments, sums over a work-group.
 *
 * One source serves both precisions: PRECISION is 32 or 64, `real` the type. Matrices are column-major
 * and start at an offset into their buffer; all counts of elements are 64-bit. Names and meanings are
 * LAPACK's. Rules that keep the kernels right on every driver: barriers stand at the top level of a
 * kernel or in a loop whose bounds are the same for the whole group, so that all of it passes; the global size is a multiple of the local one, and kernels
 * test bounds themselves; loops are bounded.
 */

#if PRECISION == 64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
typedef double real;
typedef ulong bits; /* the integer of a real's size: positive reals are ordered as their bits are */
#define AS_BITS as_ulong
#define AS_REAL as_double
#define REAL_TINY DBL_MIN
#define REAL_EPSILON DBL_EPSILON
#define REAL_MAX DBL_MAX
#else
typedef float real;
typedef uint bits;
#define AS_BITS as_uint
#define AS_REAL as_float
#define REAL_TINY FLT_MIN
#define REAL_EPSILON FLT_EPSILON
#define REAL_MAX FLT_MAX
#endif

/* Arguments of a kernel, in the order in which csrc/opencl/launch.h passes them, and their elements. */
#define MATRIX(a) __global real *a, long a##_offset, long a##_ld
#define VECTOR(x) __global real *x, long x##_offset
#define AT(a, i, j) a[a##_offset + (long)(i) + (long)(j) * a##_ld]
#define ELEMENT(x, i) x[x##_offset + (i)]

/* values[0] = the sum of side^2 local values, in the same order at every run; all of the group passes here.
 * Item `id` adds the values congruent to id, so nobody reads what another one writes. */
#define SUM_IN_GROUP(values, side, id)                  \
    barrier(CLK_LOCAL_MEM_FENCE);                       \
    if ((id) < (side)) {                                \
        real sum_ = 0;                                  \
        for (int k_ = 0; k_ < (side); k_++)             \
            sum_ += values[(id) + k_ * (side)];         \
        values[id] = sum_;                              \
    }                                                   \
    barrier(CLK_LOCAL_MEM_FENCE);                       \
    if ((id) == 0) {                                    \
        real sum_ = 0;                                  \
        for (int k_ = 0; k_ < (side); k_++)             \
            sum_ += values[k_];                         \
        values[0] = sum_;                               \
    }                                                   \
    barrier(CLK_LOCAL_MEM_FENCE);
