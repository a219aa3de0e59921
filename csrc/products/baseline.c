/* The kernels at the instruction set that every machine of this architecture has. */
#include "products.h"

#define LAI_ISA baseline
#define LAI_VECTOR_BYTES 16
#if (defined(__FP_FAST_FMA) && defined(__FP_FAST_FMAF)) || defined(__ARM_FEATURE_FMA)
#define LAI_FUSED 1
#else
#define LAI_FUSED 0
#endif
#include "kernels.inc"
