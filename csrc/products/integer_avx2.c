/* Integer products with AVX2. */
#include "integer.h"

#if LAI_X86
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define LAI_ISA avx2
#define LAI_VECTOR_BYTES 32
#define LAI_EXTENDED 0
#include "integer.inc"
#pragma GCC pop_options
#endif
