/* What every kernel shares: the type, matrices as arguments, sums over a work-group.
 *
 * One source serves both precisions, PRECISION being 32 or 64 and `real` the type, and complex matrices, too: with
 * COMPLEX a `scalar` is a pair of reals, as NumPy and LAPACK store it, else it is a real. So complex matrices keep the
 * passes over memory that real ones have, each twice as long; only products are made in real arithmetic
 * (csrc/opencl/gemm.c), by the kernels of real matrices. Matrices are column-major and start at an offset into their
 * buffer; all counts of elements are 64-bit. Names and meanings are LAPACK's. Rules that keep the kernels right on every driver: barriers stand at the top level of a
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

#ifdef COMPLEX
#define COMPONENTS 2
#if PRECISION == 64
typedef double2 scalar;
#else
typedef float2 scalar;
#endif
#define SCALAR(x) ((scalar)((x), 0))
#define REAL(z) ((z).x)
#define CONJ(z) ((scalar)((z).x, -(z).y))
#define ABS_SQUARED(z) ((z).x * (z).x + (z).y * (z).y)
/* PoCL's ldexp of vectors rounds twice. */
#define LDEXP(z, exponent) ((scalar)(ldexp((z).x, exponent), ldexp((z).y, exponent)))
#define TIMES(a, b) times(a, b)
#define ADD_PRODUCT(sum, a, b) sum = plus_times(sum, a, b)
#define SUBTRACT_PRODUCT(sum, a, b) sum = plus_times(sum, -(a), b)

scalar times(scalar a, scalar b)
{
    return (scalar)(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}

/* One expression each, so that it becomes two fused operations. */
scalar plus_times(scalar sum, scalar a, scalar b)
{
    return (scalar)(sum.x + a.x * b.x - a.y * b.y, sum.y + a.x * b.y + a.y * b.x);
}
#else
#define COMPONENTS 1
typedef real scalar;
#define SCALAR(x) ((real)(x))
#define REAL(z) (z)
#define CONJ(z) (z)
#define ABS_SQUARED(z) ((z) * (z))
#define LDEXP(z, exponent) ldexp(z, exponent)
#define TIMES(a, b) ((a) * (b))
#define ADD_PRODUCT(sum, a, b) sum += (a) * (b)
#define SUBTRACT_PRODUCT(sum, a, b) sum -= (a) * (b)
#endif
#define ZERO SCALAR(0)

/* Arguments of a kernel, in the order in which csrc/opencl/launch.h passes them, and their elements. */
#define MATRIX(a) __global scalar *a, long a##_offset, long a##_ld
#define VECTOR(x) __global scalar *x, long x##_offset
#define REAL_MATRIX(a) __global real *a, long a##_offset, long a##_ld /* offset and ld in reals */
#define REAL_VECTOR(x) __global real *x, long x##_offset
#define PASS_MATRIX(a) a, a##_offset, a##_ld /* to a function that has such an argument */
#define PASS_VECTOR(x) x, x##_offset
#define AT(a, i, j) a[a##_offset + (long)(i) + (long)(j) * a##_ld]
#define ELEMENT(x, i) x[x##_offset + (i)]

/* values[0] = the sum of side^2 local values, in the same order at every run; all of the group passes here.
 * Item `id` adds the values congruent to id, so nobody reads what another one writes. */
#define SUM_IN_GROUP(type, values, side, id)            \
    barrier(CLK_LOCAL_MEM_FENCE);                       \
    if ((id) < (side)) {                                \
        type sum_ = 0;                                  \
        for (int k_ = 0; k_ < (side); k_++)             \
            sum_ += values[(id) + k_ * (side)];         \
        values[id] = sum_;                              \
    }                                                   \
    barrier(CLK_LOCAL_MEM_FENCE);                       \
    if ((id) == 0) {                                    \
        type sum_ = 0;                                  \
        for (int k_ = 0; k_ < (side); k_++)             \
            sum_ += values[k_];                         \
        values[0] = sum_;                               \
    }                                                   \
    barrier(CLK_LOCAL_MEM_FENCE);
