/* Around fortran/{d,s}gemm_alpha.f90: the instruction set, the argument errors, large products, and the
 * guard that keeps from a bilinear algorithm what it would spoil. */
#define _GNU_SOURCE     /* pthread_getattr_np */
#include <limits.h>
#include <pthread.h>

#include "products/blocked.h"

/* ---- argument errors -------------------------------------------------------- */

static _Thread_local int argument_error;

/* Called from Fortran. */
void lai_record_argument_error(int position);

void lai_record_argument_error(int position)
{
    argument_error = position;
}

int lai_argument_error(void)
{
    const int position = argument_error;
    argument_error = 0;
    return position;
}

/* ---- instruction sets --------------------------------------------------------- */

#define GEMM_ARGUMENTS(T)                                                              \
    const char *transa, const char *transb, const int *m, const int *n, const int *k,  \
    const T *alpha, const T *a, const int *lda, const T *b, const int *ldb,            \
    const T *beta, T *c, const int *ldc

typedef void dgemm_like(GEMM_ARGUMENTS(double));
typedef void sgemm_like(GEMM_ARGUMENTS(float));

/* One object of fortran/ for each level, see setup.py. */
extern dgemm_like lai_dgemm_alpha_baseline;
extern sgemm_like lai_sgemm_alpha_baseline;
#if defined(__x86_64__)
extern dgemm_like lai_dgemm_alpha_avx2, lai_dgemm_alpha_avx512;
extern sgemm_like lai_sgemm_alpha_avx2, lai_sgemm_alpha_avx512;
#define LEVELS(name) { name##_baseline, name##_avx2, name##_avx512 }
#else
#define LEVELS(name) { name##_baseline, name##_baseline, name##_baseline }
#endif

static void fortran_dgemm(GEMM_ARGUMENTS(double))
{
    static dgemm_like *const levels[LAI_ISAS] = LEVELS(lai_dgemm_alpha);
    levels[lai_current_isa()](transa, transb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

static void fortran_sgemm(GEMM_ARGUMENTS(float))
{
    static sgemm_like *const levels[LAI_ISAS] = LEVELS(lai_sgemm_alpha);
    levels[lai_current_isa()](transa, transb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

/* ---- large products ------------------------------------------------------------- */

/* Where each dimension has so many, matrices are cut in 4 x 4 blocks instead of 4 x 4 tiles (measured, AVX-512, two
 * threads: 0.65 of the Fortran routine's one-threaded time at 384, 0.5 at 1024; at 256 0.95, float32 1.4). */
enum { LARGE = 384 };

/* 0: op(x) = x, 1: its transpose, -1: no such letter. */
static int transposes(const char *letter)
{
    switch (*letter) {
    case 'N': case 'n':
        return 0;
    case 'T': case 't': case 'C': case 'c':
        return 1;
    default:
        return -1;
    }
}

/* 1 when the product is done. What is illegal or declined is the Fortran routine's. */
static int compute_large(int dtype, int size, const char *transa, const char *transb, int m, int n, int k, double alpha,
                         const void *a, intptr_t lda, const void *b, intptr_t ldb, double beta, void *c, intptr_t ldc)
{
    const int a_transposed = transposes(transa), b_transposed = transposes(transb);
    if (a_transposed < 0 || b_transposed < 0 || m < LARGE || n < LARGE || k < LARGE || alpha == 0)
        return 0;
    if (lda < (a_transposed ? k : m) || ldb < (b_transposed ? n : k) || ldc < m)
        return 0;
    const lai_product product = {
        .a = a, .b = b, .c = c, .batch = 1, .m = m, .k = k, .n = n,
        .a_row = a_transposed ? lda * size : size, .a_column = a_transposed ? size : lda * size,
        .b_row = b_transposed ? ldb * size : size, .b_column = b_transposed ? size : ldb * size,
        .c_row = size, .c_column = ldc * size,
    };
    return lai_blocked_gemm(dtype, &product, alpha, beta) == LAI_DONE;
}

#define DEFINE_GEMM(T, DTYPE, NAME, FORTRAN)                                                  \
    void NAME(GEMM_ARGUMENTS(T))                                                              \
    {                                                                                         \
        argument_error = 0;                                                                   \
        if (!compute_large(DTYPE, sizeof(T), transa, transb, *m, *n, *k, *alpha, a, *lda,     \
                           b, *ldb, *beta, c, *ldc))                                          \
            FORTRAN(transa, transb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);            \
    }
DEFINE_GEMM(double, LAI_FLOAT64, lai_dgemm_alpha, fortran_dgemm)
DEFINE_GEMM(float, LAI_FLOAT32, lai_sgemm_alpha, fortran_sgemm)

/* ---- guard -------------------------------------------------------------------- */

/* Smallest and largest biased exponent of an operand. Integers only: comparing NaNs as
 * floating-point numbers would raise flags that NumPy turns into warnings. */
typedef struct {
    int least, largest;
} exponents;

/* Zeros and subnormals have the biased exponent 0, infinities and NaNs the largest one. */
enum {
    BIAS64 = 1023, FRACTION64 = 52, SPECIAL64 = 2047,
    BIAS32 = 127, FRACTION32 = 23, SPECIAL32 = 255,
};

/* An operand as memory lies: `lines` runs of `length` neighbours, `step` bytes apart. */
typedef struct {
    const char *data;
    intptr_t lines, length, step;
} runs;

#define DEFINE_EXPONENTS(BITS)                                                               \
    static exponents exponents##BITS(runs x)                                                 \
    {                                                                                        \
        uint##BITS##_t least = UINT##BITS##_MAX, largest = 0;                                \
        for (intptr_t i = 0; i < x.lines; i++) {                                             \
            const uint##BITS##_t *line = (const uint##BITS##_t *)(x.data + i * x.step);      \
            for (intptr_t j = 0; j < x.length; j++) {                                        \
                const uint##BITS##_t magnitude = line[j] & (UINT##BITS##_MAX >> 1);          \
                least = magnitude < least ? magnitude : least;                               \
                largest = magnitude > largest ? magnitude : largest;                         \
            }                                                                                \
        }                                                                                    \
        return (exponents){(int)(least >> FRACTION##BITS), (int)(largest >> FRACTION##BITS)};\
    }
DEFINE_EXPONENTS(64)
DEFINE_EXPONENTS(32)

/* May the 49 products compute this? All entries finite, none zero or subnormal, each operand
 * within 2^20, and no exponent near those where a sum of entries or of products overflows or
 * loses bits below the normal range. The limits are those of one 4 x 4 block; adding up `depth`
 * blocks takes as many more powers of two as `depth` has, rounded up. */
static int in_window(exponents a, exponents b, intptr_t depth, int bias, int special, int each, int sum, int least_sum)
{
    for (; depth > 1; depth = (depth + 1) / 2)
        sum--;
    if (a.least == 0 || b.least == 0 || a.largest == special || b.largest == special)
        return 0;
    if (a.largest - a.least > 20 || b.largest - b.least > 20)
        return 0;
    if (a.largest - bias > each || b.largest - bias > each)
        return 0;
    return a.largest + b.largest - 2 * bias <= sum && a.least + b.least - 2 * bias >= least_sum;
}

static int guard64(runs a, runs b, intptr_t depth)
{
    return in_window(exponents64(a), exponents64(b), depth, BIAS64, SPECIAL64, 1018, 1008, -960);
}

static int guard32(runs a, runs b, intptr_t depth)
{
    return in_window(exponents32(a), exponents32(b), depth, BIAS32, SPECIAL32, 122, 112, -96);
}

/* ---- stack ----------------------------------------------------------------------- */

/* The Fortran routines keep 600 KiB of forms on the stack. Threads usually have megabytes,
 * but a program may ask for less, and musl gives less. */
enum { STACK_NEEDED = 768 * 1024 };

static int stack_suffices(void)
{
#if defined(__linux__)
    static _Thread_local uintptr_t lowest;
    const char here = 0;
    if (lowest == 0) {
        pthread_attr_t attributes;
        void *start;
        size_t size;
        if (pthread_getattr_np(pthread_self(), &attributes) != 0)
            return 0;
        pthread_attr_getstack(&attributes, &start, &size);
        pthread_attr_destroy(&attributes);
        lowest = (uintptr_t)start;
    }
    return (uintptr_t)&here > lowest && (uintptr_t)&here - lowest >= STACK_NEEDED;
#else
    return 1;
#endif
}

/* ---- kernels ------------------------------------------------------------------- */

/* A matrix in BLAS's terms: column-major with a leading dimension, or the transpose of one. */
typedef struct {
    int usable, leading;
    char trans;
} layout;

/* x has `rows` rows and `columns` columns. A row-major matrix is its transpose in column-major terms,
 * so for C^T = B^T A^T a row-major operand is 'N', a column-major one 'T'. */
static layout layout_of(intptr_t rows, intptr_t columns, intptr_t row, intptr_t column, intptr_t size)
{
    const struct { intptr_t unit, length, step, lines; char trans; } views[] = {
        {column, columns, row, rows, 'N'},
        {row, rows, column, columns, 'T'},
    };
    for (int i = 0; i < 2; i++) {
        /* The stride of an axis of one element says nothing. */
        const intptr_t step = views[i].lines == 1 ? views[i].length * size : views[i].step;
        if ((views[i].unit == size || views[i].length == 1) && step % size == 0
            && step >= views[i].length * size && step / size <= INT_MAX)
            return (layout){1, (int)(step / size), views[i].trans};
    }
    return (layout){0, 0, 0};
}

static runs runs_of(const char *data, intptr_t rows, intptr_t columns, layout x, intptr_t size)
{
    if (x.trans == 'N')
        return (runs){data, rows, columns, x.leading * size};
    return (runs){data, columns, rows, x.leading * size};
}

#define DEFINE_KERNEL(T, BITS, GEMM)                                                          \
    int lai_gemm_alpha_float##BITS(const lai_product *p, const lai_stock *stock, lai_blocks *blocks); \
                                                                                              \
    int lai_gemm_alpha_float##BITS(const lai_product *p, const lai_stock *stock, lai_blocks *blocks) \
    {                                                                                         \
        const intptr_t size = sizeof(T);                                                      \
        (void)stock;                                                                          \
        if (p->m < 1 || p->k < 1 || p->n < 1 || p->m > INT_MAX || p->k > INT_MAX || p->n > INT_MAX) \
            return LAI_DECLINED;                                                              \
        const layout a = layout_of(p->m, p->k, p->a_row, p->a_column, size);                  \
        const layout b = layout_of(p->k, p->n, p->b_row, p->b_column, size);                  \
        const layout c = layout_of(p->m, p->n, p->c_row, p->c_column, size);                  \
        if (!a.usable || !b.usable || !c.usable)                                              \
            return LAI_DECLINED;                                                              \
        if (!stack_suffices())                                                                \
            return LAI_NO_MEMORY;                                                             \
        for (intptr_t i = 0; i < p->batch; i++)                                               \
            if (!guard##BITS(runs_of(p->a + i * p->a_batch, p->m, p->k, a, size),             \
                             runs_of(p->b + i * p->b_batch, p->k, p->n, b, size), (p->k + 3) / 4)) \
                return LAI_DECLINED;                                                          \
        const T one = 1, zero = 0;                                                            \
        const int m = (int)p->m, k = (int)p->k, n = (int)p->n;                                \
        const char other[] = {['N'] = 'T', ['T'] = 'N'};                                      \
        for (intptr_t i = 0; i < p->batch; i++) {                                             \
            const T *x = (const T *)(p->a + i * p->a_batch), *y = (const T *)(p->b + i * p->b_batch); \
            T *z = (T *)(p->c + i * p->c_batch);                                              \
            if (c.trans == 'N')         /* C row-major: C^T = B^T A^T */                      \
                GEMM(&b.trans, &a.trans, &n, &m, &k, &one, y, &b.leading, x, &a.leading, &zero, z, &c.leading); \
            else                        /* C column-major: C = A B */                         \
                GEMM(&other[(int)a.trans], &other[(int)b.trans], &m, &n, &k, &one, x, &a.leading, y, &b.leading, \
                     &zero, z, &c.leading);                                                   \
        }                                                                                     \
        blocks->alphatensor += p->batch * (m / 4) * (int64_t)(k / 4) * (n / 4);               \
        blocks->direct += p->batch * (tiles(m) * tiles(k) * tiles(n)                          \
                                      - (m / 4) * (int64_t)(k / 4) * (n / 4));                \
        return LAI_DONE;                                                                      \
    }

/* Tiles along one axis, the partial one included. */
static int64_t tiles(int length)
{
    return length / 4 + (length % 4 != 0);
}

DEFINE_KERNEL(double, 64, fortran_dgemm)
DEFINE_KERNEL(float, 32, fortran_sgemm)
