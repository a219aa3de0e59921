/* What the kernels of products share: their tables, their memory. */
#ifndef LAPACK_AI_PRODUCTS_H
#define LAPACK_AI_PRODUCTS_H

#include "../native.h"
#include "blocked.h"

/* A kernel of stacks, run on parts of them by several threads. `streamed`: write C, which is contiguous, past the caches. */
typedef void (*lai_stack_kernel)(const lai_product *product, const lai_stock *stock, lai_blocks *blocks, int streamed);

/* The kernels of one instruction set; NULL where there is no code for a dtype. */
typedef struct {
    lai_stack_kernel direct[LAI_OTHER], alphatensor49[LAI_OTHER];
    const lai_blocked_steps *blocked[LAI_OTHER];
} lai_product_table;

extern const lai_product_table lai_products_baseline;
#if LAI_X86
extern const lai_product_table lai_products_avx2, lai_products_avx512;
#endif

/* csrc/gemm_alpha.c */
int lai_gemm_alpha_float32(const lai_product *product, const lai_stock *stock, lai_blocks *blocks);
int lai_gemm_alpha_float64(const lai_product *product, const lai_stock *stock, lai_blocks *blocks);

/* Memory for a kernel's workspace, aligned for every vector; free() returns it. NULL: none left,
 * or lai_fail_allocations() is on. */
void *lai_allocate(size_t bytes);
int lai_allocations_fail(void);

#endif
