/* Roots of the secular equation for both precisions at every instruction set. */
#include "secular.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum {
    ROOTS = 32,                 /* that a part of the work has */
    MOST_STEPS = 60             /* of the iteration for one of them; three or four are usual */
};

#define LAI_ISA baseline
#define LAI_VECTOR_BYTES 16
#include "secular_precisions.inc"
#undef LAI_ISA
#undef LAI_VECTOR_BYTES

#if LAI_X86
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define LAI_ISA avx2
#define LAI_VECTOR_BYTES 32
#include "secular_precisions.inc"
#undef LAI_ISA
#undef LAI_VECTOR_BYTES
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl,avx512cd,prefer-vector-width=512")
#define LAI_ISA avx512
#define LAI_VECTOR_BYTES 64
#include "secular_precisions.inc"
#pragma GCC pop_options
#endif
