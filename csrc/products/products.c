/* From kernel, dtype and instruction set to the code that runs. */
#include <stdatomic.h>
#include <stdlib.h>

#include "products.h"

static const lai_product_table *const tables[LAI_ISAS] = {
    [LAI_BASELINE] = &lai_products_baseline,
#if LAI_X86
    [LAI_AVX2] = &lai_products_avx2,
    [LAI_AVX512] = &lai_products_avx512,
#endif
};

static atomic_int failing;

void lai_fail_allocations(int on)
{
    atomic_store(&failing, on);
}

void *lai_allocate(size_t bytes)
{
    if (atomic_load_explicit(&failing, memory_order_relaxed))
        return NULL;
    return aligned_alloc(64, (bytes + 63) / 64 * 64);
}

int lai_run_product(int kernel, int dtype, const lai_product *product, const lai_stock *stock, lai_blocks *blocks)
{
    intptr_t m = product->m, k = product->k, n = product->n;
    if (dtype < 0 || dtype >= LAI_OTHER || m < 1 || k < 1 || n < 1)
        return LAI_DECLINED;
    const lai_product_table *table = tables[lai_current_isa()];
    lai_product_kernel run = NULL;
    switch (kernel) {
    case LAI_DIRECT:
        if (m == n && k == n && n <= 8)
            run = table->direct[dtype];
        break;
    case LAI_ALPHATENSOR49:
        if (m == 4 && k == 4 && n == 4)
            run = table->alphatensor49[dtype];
        break;
    case LAI_INTEGER:
        run = table->integer[dtype];
        break;
    case LAI_GEMM_ALPHA:
        run = dtype == LAI_FLOAT32 ? lai_gemm_alpha_float32 : dtype == LAI_FLOAT64 ? lai_gemm_alpha_float64 : NULL;
        break;
    }
    return run ? run(product, stock, blocks) : LAI_DECLINED;
}
