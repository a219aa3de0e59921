/* The kernels with AVX2 and FMA. */
#include "products.h"

#if LAI_X86
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define LAI_ISA avx2
#define LAI_VECTOR_BYTES 32
#define LAI_FUSED 1
#include "kernels.inc"
#pragma GCC pop_options
#endif
