/* Integer products at the instruction set that every machine of this architecture has. */
#include "integer.h"

#define LAI_ISA baseline
#define LAI_VECTOR_BYTES 16
#define LAI_EXTENDED 0
#include "integer.inc"
