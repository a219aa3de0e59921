/* What every C file of csrc/ needs around the shared header. */
#ifndef LAPACK_AI_NATIVE_H
#define LAPACK_AI_NATIVE_H

#include <stddef.h>
#include <stdint.h>

#include "include/lapack_ai.h"

/* Clang reads GCC's target pragmas over; it gets the baseline. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define LAI_X86 1
#else
#define LAI_X86 0
#endif

/* A kernel at one instruction set; lai_run_product() finds it in a table. */
typedef int (*lai_product_kernel)(const lai_product *product, const lai_stock *stock, lai_blocks *blocks);

#endif
