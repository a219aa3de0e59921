/* alphatensor49_blocked: large float products, cut in 4 x 4 blocks and computed by AlphaTensor's 49 products of blocks.
 *
 *     P_r = (U_r . A) (V_r . B),  r = 1..49        C's blocks = sums of the P_r
 *
 * The sums are part of the matrix product's own packing, so that no sum of blocks is ever stored as a matrix:
 *   for each slice of the inner dimension
 *     forms of B    49 packed slices, from one reading of the 16 blocks; all threads, by columns
 *     for each panel of rows (a thread's own)
 *       forms of A  49 packed panels
 *       for each chunk of columns: 49 products in register tiles, then 16 entries of C from each 49
 * What a chunk multiplies stays in the second-level cache, and the next pair is fetched while one is multiplied. A, B
 * and C are passed over once a slice (C) or once (A and B). BLAS is not involved, nor any of its settings.
 *
 * A complex product is three real ones: P1 = Re A Re B, P2 = Im A Im B, P3 = (Re A + Im A)(Re B + Im B);
 * Re C = P1 - P2, Im C = P3 - P1 - P2.
 *
 * Sums have one order for any number of threads. */
#define _GNU_SOURCE     /* MADV_HUGEPAGE */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../threads.h"
#include "products.h"

enum {
    PRODUCTS = 49,
    PAD = 576,          /* bytes between the 49 panels: equal distances of 4 KiB would share few lines of a cache */
    /* Of a slice (measured: 256 doubles are as fast at n = 4096 and 3 % slower at 6144, 512 are 2 % slower): A's panel and a
     * piece of B's stay in the first-level cache. */
    MOST_DEPTH_DOUBLE = 384,
    MOST_DEPTH_SINGLE = 512,
    CHUNK = 96,         /* columns: the 49 products of 128 x 96 entries stay near, 192 x 192 are 10 % slower */
};

/* ---- workspace ----------------------------------------------------------------------------------
 * Kept for the next product: its first use costs more than a tenth of the product (page faults). Huge
 * pages make that and the misses of address translation rare. */

typedef struct {
    char *data;
    size_t bytes;
} workspace;

static pthread_mutex_t keeping = PTHREAD_MUTEX_INITIALIZER;
static workspace kept;
static _Atomic size_t most_bytes = (size_t)4 << 30;

static void lock(void) { pthread_mutex_lock(&keeping); }
static void unlock(void) { pthread_mutex_unlock(&keeping); }
/* A fork must not copy the mutex while another thread holds it. */
static void watch_forks(void) { pthread_atfork(lock, unlock, unlock); }

static void unmap(workspace w)
{
    if (w.data)
        munmap(w.data, w.bytes);
}

static workspace map(size_t bytes)
{
    const size_t huge = (size_t)2 << 20;        /* taking most of what is left would slow the whole machine down */
    workspace w = {NULL, (bytes + huge - 1) / huge * huge};

    if (w.bytes > most_bytes || lai_allocations_fail() || (int64_t)w.bytes > lai_available_memory("") / 2)
        return w;
    void *data = mmap(NULL, w.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED)
        return w;
#if defined(MADV_HUGEPAGE)
    madvise(data, w.bytes, MADV_HUGEPAGE);
#endif
    w.data = data;
    return w;
}

/* The kept workspace if it is free and large enough, else a new one. */
static workspace take(size_t bytes)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    pthread_mutex_lock(&keeping);
    workspace w = kept;
    kept = (workspace){NULL, 0};
    pthread_mutex_unlock(&keeping);
    if (w.data && w.bytes >= bytes && w.bytes <= most_bytes && !lai_allocations_fail())
        return w;
    unmap(w);
    return map(bytes);
}

static void keep(workspace w)
{
    pthread_mutex_lock(&keeping);
    const int drop = w.bytes > most_bytes || kept.bytes > w.bytes;
    const workspace old = drop ? w : kept;
    kept = drop ? kept : w;
    pthread_mutex_unlock(&keeping);
    unmap(old);
}

void lai_release_workspace(void)
{
    pthread_mutex_lock(&keeping);
    const workspace old = kept;
    kept = (workspace){NULL, 0};
    pthread_mutex_unlock(&keeping);
    unmap(old);
}

void lai_limit_workspace(size_t bytes)
{
    pthread_mutex_lock(&keeping);
    most_bytes = bytes;
    pthread_mutex_unlock(&keeping);
    lai_release_workspace();
}

size_t lai_kept_workspace(void)
{
    pthread_mutex_lock(&keeping);
    const size_t bytes = kept.bytes;
    pthread_mutex_unlock(&keeping);
    return bytes;
}

/* ---- plan ------------------------------------------------------------------------------------------ */

/* Sizes in elements. Panels are rows of the blocks of A; chunks, columns of those of B. */
typedef struct {
    intptr_t depth, slices;             /* of the inner dimension */
    intptr_t panel, panels;
    intptr_t chunk;
    intptr_t strip, strips;             /* columns whose forms of B are held at once */
    intptr_t a_stride, b_stride, tiles;         /* between two forms; of a worker's 49 products */
    int workers;
    size_t bytes;
} plan;

static intptr_t up(intptr_t x, intptr_t to)
{
    return (x + to - 1) / to * to;
}

static intptr_t parts_of(intptr_t x, intptr_t most)
{
    return (x + most - 1) / most;
}

/* Rows of a panel: two forms that are multiplied, and the next two, fill less than the second-level cache. */
static intptr_t panel_rows(void)
{
    const long cache = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return cache >= 3 << 19 ? 128 : 64;
}

static plan plan_with(const lai_blocked_steps *steps, size_t size, intptr_t rows, intptr_t inner, intptr_t columns,
                      intptr_t most_rows, intptr_t most_columns, intptr_t most_strip, int workers)
{
    plan p = {.workers = workers};
    p.slices = parts_of(inner, size == sizeof(double) ? MOST_DEPTH_DOUBLE : MOST_DEPTH_SINGLE);
    p.depth = up(parts_of(inner, p.slices), 4);
    p.panels = parts_of(rows, most_rows);
    if (rows >= 48 * workers)
        p.panels = up(p.panels, workers);       /* equal shares */
    const intptr_t tiles_down = parts_of(rows, steps->tile_rows);
    p.panels = p.panels < tiles_down ? p.panels : tiles_down;
    p.panel = parts_of(tiles_down, p.panels) * steps->tile_rows;
    p.strips = parts_of(columns, most_strip);
    p.strip = up(parts_of(columns, p.strips), steps->tile_columns);
    p.strips = parts_of(columns, p.strip);
    p.chunk = up(most_columns, steps->tile_columns);
    p.a_stride = p.panel * p.depth + PAD / (intptr_t)size;
    p.b_stride = p.strip * p.depth + PAD / (intptr_t)size;
    p.tiles = PRODUCTS * p.panel * p.chunk;
    p.bytes = size * (size_t)(PRODUCTS * p.b_stride + workers * (PRODUCTS * p.a_stride + p.tiles));
    return p;
}

/* The fastest plan that stays within 1.6 of the operands' mean size; small products may take 32 MiB. */
static plan make_plan(const lai_blocked_steps *steps, size_t size, intptr_t rows, intptr_t inner, intptr_t columns, int workers)
{
    const double mean = 16.0 / 3 * ((double)rows * inner + (double)inner * columns + (double)rows * columns) * (double)size;
    const double most = 1.6 * mean > 0x1p25 ? 1.6 * mean : 0x1p25;
    const intptr_t r = panel_rows();
    const intptr_t tries[][3] = {{r, CHUNK, columns}, {r, CHUNK, parts_of(columns, 2)}, {r / 2, CHUNK, parts_of(columns, 2)},
                                 {r / 2, CHUNK, parts_of(columns, 4)}, {r / 4, CHUNK, parts_of(columns, 4)}};
    plan p = {0};
    for (size_t i = 0; i < sizeof tries / sizeof tries[0]; i++) {
        p = plan_with(steps, size, rows, inner, columns, tries[i][0], tries[i][1], tries[i][2], workers);
        if ((double)p.bytes <= most)
            break;
    }
    return p;
}

/* ---- the product ------------------------------------------------------------------------------------ */

typedef struct {
    const lai_blocked_steps *steps;
    size_t size;
    plan plan;
    lai_blocked_operand a, b;
    lai_blocked_result c;
    intptr_t from;                      /* the slice's first inner position */
    intptr_t column, columns;           /* the strip's columns of each block */
    char *forms_of_b, *own;             /* `own`: of each worker */
    atomic_llong next;                  /* task */
} job;

/* Panels of B that a task takes: enough to make the rows that are read long. */
enum { PANELS_OF_A_TASK = 4 };

static void form_b(void *context, int worker)
{
    job *j = context;
    const intptr_t width = PANELS_OF_A_TASK * j->steps->tile_columns;
    (void)worker;
    for (;;) {
        const intptr_t first = (intptr_t)atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed) * width;
        if (first >= j->columns)
            return;
        const intptr_t lines = first + width < j->columns ? width : j->columns - first;
        j->steps->form(&j->b, 0, j->column + first, lines, j->from, j->plan.depth,
                       j->forms_of_b + first * j->plan.depth * j->size, j->plan.b_stride);
    }
}

/* One chunk of columns of a panel: 49 products and what they add to C. */
static void multiply_chunk(const job *j, const char *forms_of_a, char *tiles, intptr_t row, intptr_t rows, intptr_t column, intptr_t columns)
{
    const plan *p = &j->plan;
    const intptr_t size = (intptr_t)j->size;
    const intptr_t wide = up(columns, j->steps->tile_columns);
    const intptr_t tile_bytes = j->steps->tile_rows * j->steps->tile_columns * size;
    const char *b = j->forms_of_b + column * p->depth * size;
    for (int r = 0; r < PRODUCTS; r++) {
        const char *left = forms_of_a + r * p->a_stride * size, *right = b + r * p->b_stride * size;
        const int last = r + 1 == PRODUCTS;
        j->steps->multiply(p->depth, left, rows, right, wide, tiles + r * tile_bytes, last ? forms_of_a : left + p->a_stride * size,
                           last ? b + wide * p->depth * size : right + p->b_stride * size);
    }
    j->steps->add_entries(tiles, rows, wide, row, j->column + column, &j->c);
}

static void multiply_panels(void *context, int worker)
{
    job *j = context;
    const plan *p = &j->plan;
    const intptr_t tiles_down = parts_of(j->a.block_minor, j->steps->tile_rows), width = j->steps->tile_columns;
    char *forms_of_a = j->own + (size_t)worker * (size_t)(PRODUCTS * p->a_stride + p->tiles) * j->size;
    char *tiles = forms_of_a + PRODUCTS * (size_t)p->a_stride * j->size;
    for (;;) {
        const intptr_t panel = (intptr_t)atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed);
        if (panel >= p->panels)
            return;
        const intptr_t row = panel * tiles_down / p->panels * j->steps->tile_rows;
        const intptr_t rows = (panel + 1) * tiles_down / p->panels * j->steps->tile_rows - row;
        j->steps->form(&j->a, 1, row, rows, j->from, p->depth, forms_of_a, p->a_stride);
        const intptr_t across = parts_of(j->columns, width), chunks = parts_of(across * width, p->chunk);
        for (intptr_t chunk = 0; chunk < chunks; chunk++) {
            const intptr_t column = chunk * across / chunks * width, next = (chunk + 1) * across / chunks * width;
            multiply_chunk(j, forms_of_a, tiles, row, rows, column, next - column);
        }
    }
}

static void run_phase(job *j, void (*phase)(void *, int))
{
    atomic_store_explicit(&j->next, 0, memory_order_relaxed);
    lai_parallel(j->plan.workers, phase, j);
}

static void multiply_real(job *j)
{
    const plan *p = &j->plan;
    for (j->column = 0; j->column < j->b.block_minor; j->column += p->strip) {
        const intptr_t left = j->b.block_minor - j->column, first = j->c.first;
        j->columns = left < p->strip ? left : p->strip;
        for (j->from = 0; j->from < j->a.block_depth; j->from += p->depth) {
            run_phase(j, form_b);
            run_phase(j, multiply_panels);
            j->c.first = 0;
        }
        j->c.first = (int)first;
    }
}

static void multiply(job *j)
{
    static const struct {
        enum lai_component component;
        int real_sign, imaginary_sign;
    } passes[] = {{LAI_REAL, 1, -1}, {LAI_IMAGINARY, -1, -1}, {LAI_SUM, 0, 1}};
    for (int pass = 0; pass < (j->a.is_complex ? 3 : 1); pass++) {
        j->a.component = j->b.component = passes[pass].component;
        j->c.real_sign = passes[pass].real_sign;
        j->c.imaginary_sign = passes[pass].imaginary_sign;
        j->c.first = pass == 0;
        multiply_real(j);
    }
}

/* ---- guard -------------------------------------------------------------------------------------------- */

enum { SCANS = 64 };

typedef struct {
    const lai_blocked_steps *steps;
    const lai_blocked_operand *x;
    lai_blocked_scan scans[SCANS];
} scanning;

static void scan_part(void *context, int part)
{
    scanning *s = context;
    s->steps->scan(s->x, s->x->minor * part / SCANS, s->x->minor * (part + 1) / SCANS, &s->scans[part]);
}

static lai_blocked_scan scan(const lai_blocked_steps *steps, const lai_blocked_operand *x)
{
    scanning s = {.steps = steps, .x = x};
    lai_parallel(SCANS, scan_part, &s);
    lai_blocked_scan all = s.scans[0];
    for (int i = 1; i < SCANS; i++) {
        const lai_blocked_scan *one = &s.scans[i];
        all.largest = one->largest > all.largest ? one->largest : all.largest;
        all.least = one->least < all.least ? one->least : all.least;
        all.least_line = one->least_line < all.least_line ? one->least_line : all.least_line;
        all.most_zeros = one->most_zeros > all.most_zeros ? one->most_zeros : all.most_zeros;
    }
    return all;
}

/* What a precision can hold: exponents are biased. */
typedef struct {
    int fraction, bias;
    int each, sum, least_sum;           /* of exponents: where a form, a sum of products overflows, a product underflows */
    int lines;                          /* most that the largest entries of lines may differ by */
} window;

static const window windows[2] = {{23, 127, 122, 112, -96, 10}, {52, 1023, 1018, 1008, -960, 20}};

static int exponent(uint64_t magnitude, const window *w)
{
    return (int)(magnitude >> w->fraction) - w->bias;
}

/* May sums over whole blocks compute this without spoiling it? No NaN, no infinity, nothing that could overflow or lose bits
 * at the lower end of the range; no line so small that the others' rounding errors would cover it. Every entry of
 * C must have a term that is not zero: a sum of nothing but zeros would come out as a rounding error. */
static int allowed(const job *j, const window *w)
{
    const lai_blocked_scan a = scan(j->steps, &j->a), b = scan(j->steps, &j->b);
    const lai_blocked_scan *both[] = {&a, &b};
    for (int i = 0; i < 2; i++) {
        const int largest = exponent(both[i]->largest, w);
        if (largest > w->each || both[i]->least >> w->fraction == 0 || both[i]->least_line == 0)
            return 0;
        if (largest - exponent(both[i]->least_line, w) > w->lines)
            return 0;
    }
    int sum = w->sum - (j->a.is_complex ? 4 : 0);       /* (Re + Im)(Re + Im), then three products in one sum */
    for (intptr_t depth = j->a.block_depth; depth > 1; depth = (depth + 1) / 2)
        sum--;
    return exponent(a.largest, w) + exponent(b.largest, w) <= sum && exponent(a.least, w) + exponent(b.least, w) >= w->least_sum
        && a.most_zeros + b.most_zeros < j->a.depth;
}

/* ---- in ------------------------------------------------------------------------------------------------- */

static intptr_t magnitude(intptr_t x)
{
    return x < 0 ? -x : x;
}

/* The job of product i of the stack; where C's columns are the lines of memory, that of its transpose. */
static job job_of(const lai_product *p, intptr_t i, int is_complex, double alpha, double beta)
{
    const int transposed = p->n == 1 || (p->m > 1 && magnitude(p->c_row) < magnitude(p->c_column));
    const lai_blocked_operand a = {
        .data = p->a + i * p->a_batch, .is_complex = is_complex, .minor = p->m, .depth = p->k,
        .minor_stride = p->a_row, .depth_stride = p->a_column,
        .block_minor = parts_of(p->m, 4), .block_depth = parts_of(p->k, 4)};
    const lai_blocked_operand b = {
        .data = p->b + i * p->b_batch, .is_complex = is_complex, .minor = p->n, .depth = p->k,
        .minor_stride = p->b_column, .depth_stride = p->b_row,
        .block_minor = parts_of(p->n, 4), .block_depth = parts_of(p->k, 4)};
    job j = {.a = transposed ? b : a, .b = transposed ? a : b};
    j.b.depth_is_row = 1;
    j.c = (lai_blocked_result){
        .data = p->c + i * p->c_batch, .is_complex = is_complex,
        .rows = j.a.minor, .columns = j.b.minor,
        .row_stride = transposed ? p->c_column : p->c_row, .column_stride = transposed ? p->c_row : p->c_column,
        .block_rows = j.a.block_minor, .block_columns = j.b.block_minor, .alpha = alpha, .beta = beta};
    return j;
}

int lai_blocked_gemm(int dtype, const lai_product *product, double alpha, double beta)
{
    const lai_blocked_steps *steps = lai_blocked_steps_of(dtype);
    const int is_complex = dtype == LAI_COMPLEX64 || dtype == LAI_COMPLEX128;
    const int is_double = dtype == LAI_FLOAT64 || dtype == LAI_COMPLEX128;
    const size_t size = is_double ? sizeof(double) : sizeof(float);

    if (!steps)
        return LAI_DECLINED;
    for (intptr_t i = 0; i < product->batch; i++) {
        job j = job_of(product, i, is_complex, alpha, beta);
        j.steps = steps;
        if (!allowed(&j, &windows[is_double]))
            return LAI_DECLINED;
    }
    job j = job_of(product, 0, is_complex, alpha, beta);
    const plan p = make_plan(steps, size, j.a.block_minor, j.a.block_depth, j.b.block_minor, lai_num_threads());
    const workspace w = take(p.bytes);
    if (!w.data)
        return LAI_NO_MEMORY;
    for (intptr_t i = 0; i < product->batch; i++) {
        j = job_of(product, i, is_complex, alpha, beta);
        j.steps = steps;
        j.size = size;
        j.plan = p;
        j.forms_of_b = w.data;
        j.own = w.data + PRODUCTS * (size_t)p.b_stride * size;
        multiply(&j);
    }
    keep(w);
    return LAI_DONE;
}

int lai_blocked_product(int dtype, const lai_product *product, lai_blocks *blocks)
{
    const int status = lai_blocked_gemm(dtype, product, 1.0, 0.0);
    if (status == LAI_DONE)
        blocks->alphatensor += product->batch;
    return status;
}
