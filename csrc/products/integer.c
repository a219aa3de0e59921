/* integer: products of integers, exact modulo 2^w.
 *
 *     C = sum over slices of k, over blocks of m: A[block, slice] B[slice, :]
 *
 * The slice of B and the block of A are copied into panels as the register tile wants them (integer.inc). A block of
 * A stays in the second-level cache, a panel of B in the first. Threads take tiles of C, each with its own panels. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "../threads.h"
#include "integer.h"

enum {
    B_PANEL = 24 << 10,         /* bytes at most */
    A_BLOCK = 256 << 10,
    B_SLICE = 4 << 20,
    TILE_BYTES = 12 * 32 * 8,   /* the largest register tile */
    PARALLEL = 1 << 26,         /* products times the square of the size below which one thread does all: 0.1 ms */
    LEAST_TILE = 64,            /* rows and columns of C that a thread shall have at least */
};

static const lai_integer_kernel *const tables[LAI_ISAS] = {
    [LAI_BASELINE] = lai_integer_baseline,
#if LAI_X86
    [LAI_AVX2] = lai_integer_avx2,
    [LAI_AVX512] = lai_integer_avx512,
#endif
};

static const lai_integer_kernel *find_kernel(int dtype)
{
    const lai_integer_kernel *table = tables[lai_current_isa()];
#if LAI_X86
    if (table == lai_integer_avx512 && lai_has_vnni())
        table = lai_integer_avx512_vnni;
#endif
    return table + dtype - LAI_INT8;
}

typedef struct {
    const lai_product *product;
    const lai_integer_kernel *kernel;
    intptr_t size;                      /* of an element */
    intptr_t depth;                     /* of a slice */
    intptr_t m_block, n_block;
    intptr_t m_tile, n_tile, across, tiles;     /* tiles of C: so many beside each other, so many in all */
    intptr_t a_bytes, bytes;             /* panels of A, of both */
    char *panels;
    atomic_intptr_t next;
} work;

static intptr_t least(intptr_t x, intptr_t y)
{
    return x < y ? x : y;
}

static intptr_t whole(intptr_t x, intptr_t unit)
{
    return (x + unit - 1) / unit * unit;
}

/* The part of the tile that C has room for. */
static void copy_tile(const char *tile, intptr_t tile_row, char *c, intptr_t row, intptr_t column,
                      intptr_t rows, intptr_t columns, intptr_t size, int add)
{
#define COPY(type)                                                                          \
    for (intptr_t i = 0; i < rows; i++)                                                     \
        for (intptr_t j = 0; j < columns; j++) {                                            \
            type *to = (type *)(c + i * row + j * column);                                  \
            const type value = *(const type *)(tile + i * tile_row + j * (intptr_t)sizeof(type));     \
            *to = (type)(add ? *to + value : value);                                        \
        }                                                                                   \
    return;
    switch (size) {
    case 1:
        COPY(uint8_t)
    case 2:
        COPY(uint16_t)
    case 4:
        COPY(uint32_t)
    default:
        COPY(uint64_t)
    }
#undef COPY
}

static void multiply_block(const work *w, intptr_t groups, const char *a, const char *b, char *c,
                           intptr_t m, intptr_t n, int add)
{
    const lai_integer_kernel *kernel = w->kernel;
    const intptr_t row = w->product->c_row, column = w->product->c_column;
    for (intptr_t j = 0; j < n; j += kernel->columns, b += groups * kernel->b_group) {
        const char *panel = a;
        for (intptr_t i = 0; i < m; i += kernel->rows, panel += groups * kernel->a_group) {
            char *to = c + i * row + j * column;
            if (m - i >= kernel->rows && n - j >= kernel->columns && column == w->size) {
                kernel->multiply(groups, panel, b, to, row, add);
            } else {
                _Alignas(64) char tile[TILE_BYTES];
                kernel->multiply(groups, panel, b, tile, kernel->columns * w->size, 0);
                copy_tile(tile, kernel->columns * w->size, to, row, column, least(m - i, kernel->rows),
                          least(n - j, kernel->columns), w->size, add);
            }
        }
    }
}

/* C (m x n) = A B, of operands that start at a, b and c. */
static void multiply_tile(const work *w, const char *a, const char *b, char *c, intptr_t rows, intptr_t columns, char *panels)
{
    const lai_product *p = w->product;
    const lai_integer_kernel *kernel = w->kernel;
    char *b_panels = panels + w->a_bytes;
    for (intptr_t j = 0; j < columns; j += w->n_block) {
        const intptr_t n = least(columns - j, w->n_block);
        for (intptr_t l = 0; l < p->k; l += w->depth) {
            const intptr_t k = least(p->k - l, w->depth), groups = (k + kernel->group - 1) / kernel->group;
            kernel->pack_b(b_panels, b + l * p->b_row + j * p->b_column, n, k, p->b_column, p->b_row);
            for (intptr_t i = 0; i < rows; i += w->m_block) {
                const intptr_t m = least(rows - i, w->m_block);
                kernel->pack_a(panels, a + i * p->a_row + l * p->a_column, m, k, p->a_row, p->a_column);
                multiply_block(w, groups, panels, b_panels, c + i * p->c_row + j * p->c_column, m, n, l > 0);
            }
        }
    }
}

/* One thread: the next tile, until there is none. */
static void run_tiles(void *context, int part)
{
    work *w = context;
    const lai_product *p = w->product;
    char *panels = w->panels + (size_t)part * w->bytes;
    const intptr_t a_matrix = whole(p->m, w->m_tile) / w->m_tile * w->across;
    intptr_t tile;
    while ((tile = atomic_fetch_add_explicit(&w->next, 1, memory_order_relaxed)) < w->tiles) {
        const intptr_t matrix = tile / a_matrix, rest = tile % a_matrix;
        const intptr_t i = rest / w->across * w->m_tile, j = rest % w->across * w->n_tile;
        multiply_tile(w, p->a + matrix * p->a_batch + i * p->a_row, p->b + matrix * p->b_batch + j * p->b_column,
                      p->c + matrix * p->c_batch + i * p->c_row + j * p->c_column,
                      least(p->m - i, w->m_tile), least(p->n - j, w->n_tile), panels);
    }
}

/* Tiles of C for so many threads: halves of the longer side, until there are two for each. */
static void cut(work *w, int threads)
{
    const lai_product *p = w->product;
    const intptr_t rows = w->kernel->rows, columns = w->kernel->columns;
    intptr_t down = 1;
    w->across = 1;
    w->m_tile = whole(p->m, rows);
    w->n_tile = whole(p->n, columns);
    while (threads > 1 && p->batch * down * w->across < 2 * threads
           && (w->m_tile >= 2 * LEAST_TILE || w->n_tile >= 2 * LEAST_TILE)) {
        if (w->m_tile >= w->n_tile)
            w->m_tile = whole((w->m_tile + 1) / 2, rows);
        else
            w->n_tile = whole((w->n_tile + 1) / 2, columns);
        down = (p->m + w->m_tile - 1) / w->m_tile;
        w->across = (p->n + w->n_tile - 1) / w->n_tile;
    }
    w->tiles = p->batch * down * w->across;
}

static int run(const lai_product *product, const lai_integer_kernel *kernel, intptr_t size)
{
    work w = {.product = product, .kernel = kernel, .size = size};
    const double products = (double)product->batch * (double)product->m * (double)product->k * (double)product->n;
    int threads = products * (double)(size * size) < PARALLEL ? 1 : lai_num_threads();
    cut(&w, threads);
    if (threads > w.tiles)
        threads = (int)w.tiles;
    const intptr_t b_panel = whole(B_PANEL / kernel->b_group, 4);
    const intptr_t groups = least((product->k + kernel->group - 1) / kernel->group, b_panel);
    const intptr_t a_panel = groups * kernel->a_group, a_most = A_BLOCK / a_panel;
    const intptr_t b_most = B_SLICE / (groups * kernel->b_group);
    w.depth = groups * kernel->group;
    w.m_block = least(w.m_tile, (a_most ? a_most : 1) * kernel->rows);
    w.n_block = least(w.n_tile, (b_most ? b_most : 1) * kernel->columns);
    w.a_bytes = whole(w.m_block / kernel->rows * a_panel, 64);
    w.bytes = w.a_bytes + w.n_block / kernel->columns * groups * kernel->b_group;
    w.panels = lai_allocate((size_t)threads * w.bytes);
    if (!w.panels)
        return LAI_NO_MEMORY;
    lai_parallel(threads, run_tiles, &w);
    free(w.panels);
    return LAI_DONE;
}

int lai_integer(int dtype, const lai_product *product, lai_blocks *blocks)
{
    const intptr_t size = (intptr_t)1 << (dtype - LAI_INT8);
    lai_product p = *product;
    /* Where C is stored by columns: C' = B' A'. */
    if (p.c_column != size && p.c_row == size)
        p = (lai_product){p.b, p.a, p.c, p.batch, p.n, p.k, p.m, p.b_batch, p.b_column, p.b_row,
                          p.a_batch, p.a_column, p.a_row, p.c_batch, p.c_column, p.c_row};
    const int status = run(&p, find_kernel(dtype), size);
    if (status == LAI_DONE)
        blocks->direct += product->batch;
    return status;
}
