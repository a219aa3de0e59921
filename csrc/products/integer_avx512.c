/* Integer products with AVX-512. */
#include "integer.h"

#if LAI_X86
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl,avx512cd,prefer-vector-width=512")
#define LAI_ISA avx512
#define LAI_VECTOR_BYTES 64
#define LAI_EXTENDED 0
#include "integer.inc"
#pragma GCC pop_options
#endif
