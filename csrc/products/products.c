/* From kernel, dtype and instruction set to the code that runs. */
#define _DEFAULT_SOURCE     /* mincore */
#include <stdatomic.h>
#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "../threads.h"
#include "integer.h"
#include "products.h"
#if LAI_X86
#include <immintrin.h>
#endif

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

int lai_allocations_fail(void)
{
    return atomic_load_explicit(&failing, memory_order_relaxed);
}

void *lai_allocate(size_t bytes)
{
    if (lai_allocations_fail())
        return NULL;
    return aligned_alloc(64, (bytes + 63) / 64 * 64);
}

const lai_blocked_steps *lai_blocked_steps_of(int dtype)
{
    return tables[lai_current_isa()]->blocked[dtype];
}

/* ---- stacks ---------------------------------------------------------------------------------------------------------- */

static const intptr_t element_sizes[LAI_OTHER] = {
    [LAI_FLOAT32] = 4, [LAI_FLOAT64] = 8, [LAI_COMPLEX64] = 8, [LAI_COMPLEX128] = 16,
    [LAI_INT8] = 1, [LAI_INT16] = 2, [LAI_INT32] = 4, [LAI_INT64] = 8,
};

enum {
    SHARED_FROM = 4 << 20,      /* bytes of a stack that are worth several threads: about 200 us of one */
    STREAMED_FROM = 32 << 20,   /* bytes of C that would push A and B out of the caches and be read in for nothing */
    PART = 2 << 20,             /* bytes of C to a part, in large stacks: a huge page */
    MOST_PARTS = 256,
};

typedef struct {
    lai_stack_kernel run;
    const lai_product *product;
    const lai_stock *stock;
    int streamed, parts;
    lai_blocks blocks[MOST_PARTS];
} shared_stack;

static void run_part(void *context, int part)
{
    shared_stack *stack = context;
    lai_product p = *stack->product;
    const intptr_t first = p.batch * part / stack->parts, next = p.batch * (part + 1) / stack->parts;

    p.a += first * p.a_batch;
    p.b += first * p.b_batch;
    p.c += first * p.c_batch;
    p.batch = next - first;
    stack->run(&p, stack->stock, &stack->blocks[part], stack->streamed);
#if LAI_X86
    if (stack->streamed)
        _mm_sfence();
#endif
}

/* Whether C's memory has been in use. The pages of a new array are zeroed as they are first written, so that they are in
 * the caches, from where streaming would drive them out first (measured: 1.5 times slower; 1.2 times faster elsewhere). */
static int is_resident(const char *c, intptr_t bytes)
{
#if defined(__linux__)
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), middle = ((uintptr_t)c + bytes / 2) / page * page;
    unsigned char state;
    return mincore((void *)middle, 1, &state) != 0 || state & 1;
#else
    (void)c;
    (void)bytes;
    return 1;
#endif
}

/* Whether C is to be written past the caches. */
static int is_streamed(const lai_product *p, intptr_t element)
{
    const intptr_t row = p->n * element, block = p->m * row;

    return p->batch * block >= STREAMED_FROM && p->c_batch == block && (p->c_row == row || p->m == 1)
        && (p->c_column == element || p->n == 1) && is_resident(p->c, p->batch * block);
}

static int run_stack(lai_stack_kernel run, intptr_t element, const lai_product *p, const lai_stock *stock, lai_blocks *blocks)
{
    const intptr_t c_block = p->m * p->n * element;
    const intptr_t block = c_block + (p->a_batch ? p->m * p->k * element : 0) + (p->b_batch ? p->k * p->n * element : 0);

    if (p->batch < SHARED_FROM / block) {
        run(p, stock, blocks, 0);
        return LAI_DONE;
    }
    const int threads = lai_num_threads();
    const intptr_t parts = threads > 1 ? p->batch * c_block / PART : 1;
    shared_stack stack = {
        run, p, stock, is_streamed(p, element), (int)(parts < threads ? threads : parts < MOST_PARTS ? parts : MOST_PARTS), {{0, 0, 0}}};
    lai_parallel(stack.parts, run_part, &stack);
    for (int i = 0; i < stack.parts; i++) {
        blocks->alphatensor += stack.blocks[i].alphatensor;
        blocks->direct += stack.blocks[i].direct;
        blocks->stock += stack.blocks[i].stock;
    }
    return LAI_DONE;
}

/* ---- all kernels ------------------------------------------------------------------------------------------------------ */

int lai_run_product(int kernel, int dtype, const lai_product *product, const lai_stock *stock, lai_blocks *blocks)
{
    intptr_t m = product->m, k = product->k, n = product->n;
    if (dtype < 0 || dtype >= LAI_OTHER || m < 1 || k < 1 || n < 1)
        return LAI_DECLINED;
    const lai_product_table *table = tables[lai_current_isa()];
    lai_stack_kernel stack = NULL;
    lai_product_kernel run = NULL;
    switch (kernel) {
    case LAI_DIRECT:
        if (m <= 16 && k <= 16 && n <= 16)
            stack = table->direct[dtype];
        break;
    case LAI_ALPHATENSOR49:
        if (m == 4 && k == 4 && n == 4)
            stack = table->alphatensor49[dtype];
        break;
    case LAI_INTEGER:
        return dtype >= LAI_INT8 ? lai_integer(dtype, product, blocks) : LAI_DECLINED;
    case LAI_ALPHATENSOR49_BLOCKED:
        return lai_blocked_product(dtype, product, blocks);
    case LAI_GEMM_ALPHA:
        run = dtype == LAI_FLOAT32 ? lai_gemm_alpha_float32 : dtype == LAI_FLOAT64 ? lai_gemm_alpha_float64 : NULL;
        break;
    }
    if (stack)
        return run_stack(stack, element_sizes[dtype], product, stock, blocks);
    return run ? run(product, stock, blocks) : LAI_DECLINED;
}
