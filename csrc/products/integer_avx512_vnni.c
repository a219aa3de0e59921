/* Integer products with AVX-512 and its extensions IFMA and VNNI. */
#include "integer.h"

#if LAI_X86
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl,avx512cd,avx512ifma,avx512vnni,prefer-vector-width=512")
#define LAI_ISA avx512_vnni
#define LAI_VECTOR_BYTES 64
#define LAI_EXTENDED 1
#include "integer.inc"
#pragma GCC pop_options
#endif
