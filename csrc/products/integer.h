/* Exact integer products: what the kernels of one instruction set tell csrc/products/integer.c. */
#ifndef LAPACK_AI_INTEGER_H
#define LAPACK_AI_INTEGER_H

#include "products.h"

/* Copy panels of A (rows) or B (columns), `depth` elements along k each, into a kernel's own layout: strides in
 * bytes of `from`, `across` from row to row (column to column), `along` k. Missing rows and elements become zeros. */
typedef void (*lai_integer_pack)(char *to, const char *from, intptr_t lines, intptr_t depth,
                                 intptr_t across, intptr_t along);

/* A register tile of C, rows x columns, is the product of one panel of each. Elements along k come in groups
 * that one instruction multiplies: a group of a panel takes a_group or b_group bytes. */
typedef struct {
    int rows, columns, group, a_group, b_group;
    lai_integer_pack pack_a, pack_b;
    /* Write the tile to c, or add it there; `row` bytes from row to row, columns contiguous. */
    void (*multiply)(intptr_t groups, const char *a, const char *b, char *c, intptr_t row, int add);
} lai_integer_kernel;

/* By log2 of the element's size. */
typedef const lai_integer_kernel lai_integer_kernels[4];

extern lai_integer_kernels lai_integer_baseline;
#if LAI_X86
extern lai_integer_kernels lai_integer_avx2, lai_integer_avx512, lai_integer_avx512_vnni;
#endif

/* The whole product; dtype is one of the integers. */
int lai_integer(int dtype, const lai_product *product, lai_blocks *blocks);

#endif
