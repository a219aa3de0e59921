/* Products of a matrix and a few vectors, and sums of squares, for the checks of what a device computed.
 *
 * Sums are in double precision, whatever the matrix is of, and the same for any number of threads. Not by the BLAS: its threads
 * wait for more work in a loop, on the CPUs that the copies and the divide and conquer of the next call need. */
#include <string.h>

#include "native.h"

enum {
    LANES = 8,                  /* sums at once, for the compiler to keep in vectors */
    ROWS = 1024,                /* of a matrix: where they stay in the first cache */
    LEAST_ROWS = 128,           /* that a part of the work has */
    PARTS_A_THREAD = 4,
    SUMS = 64                   /* parts of a sum of squares */
};

typedef struct {
    int transposed, sides;
    int64_t m, n, ld, step;     /* step: rows, or columns, of a part */
    const void *a;
    const double *x;
    double *y;
} lai_gemv_work;

static inline int64_t lesser(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

#define FUNCTIONS(REAL, NAME)                                                                               \
    static double dot_##NAME(int64_t count, const REAL *a, const double *x)                                 \
    {                                                                                                       \
        double sums[LANES] = { 0 }, sum = 0;                                                                \
        int64_t i = 0;                                                                                      \
        for (; i + LANES <= count; i += LANES)                                                              \
            for (int lane = 0; lane < LANES; lane++)                                                        \
                sums[lane] += (double)a[i + lane] * x[i + lane];                                            \
        for (; i < count; i++)                                                                              \
            sum += (double)a[i] * x[i];                                                                     \
        for (int lane = 0; lane < LANES; lane++)                                                            \
            sum += sums[lane];                                                                              \
        return sum;                                                                                         \
    }                                                                                                       \
                                                                                                            \
    /* y of the columns that are this part's */                                                             \
    static void columns_##NAME(const lai_gemv_work *work, int64_t first, int64_t end)                       \
    {                                                                                                       \
        for (int64_t j = first; j < end; j++)                                                               \
            for (int64_t i = 0; i < work->m; i += ROWS)                                                     \
                for (int side = 0; side < work->sides; side++)                                              \
                    work->y[side * work->n + j] += dot_##NAME(lesser(ROWS, work->m - i),                    \
                        (const REAL *)work->a + j * work->ld + i, work->x + side * work->m + i);            \
    }                                                                                                       \
                                                                                                            \
    /* y of the rows that are this part's */                                                                \
    static void rows_##NAME(const lai_gemv_work *work, int64_t first, int64_t end)                          \
    {                                                                                                       \
        for (int64_t j = 0; j < work->n; j++) {                                                             \
            const REAL *a = (const REAL *)work->a + j * work->ld;                                           \
            for (int side = 0; side < work->sides; side++) {                                                \
                const double x = work->x[side * work->n + j];                                               \
                double *restrict y = work->y + side * work->m;                                              \
                for (int64_t i = first; i < end; i++)                                                       \
                    y[i] += (double)a[i] * x;                                                               \
            }                                                                                               \
        }                                                                                                   \
    }                                                                                                       \
                                                                                                            \
    static void part_##NAME(void *context, int part)                                                        \
    {                                                                                                       \
        const lai_gemv_work *work = context;                                                                \
        const int64_t first = part * work->step;                                                            \
        if (work->transposed)                                                                               \
            columns_##NAME(work, first, lesser(first + work->step, work->n));                               \
        else                                                                                                \
            for (int64_t i = first; i < lesser(first + work->step, work->m); i += ROWS)                     \
                rows_##NAME(work, i, lesser(i + ROWS, lesser(first + work->step, work->m)));                \
    }                                                                                                       \
                                                                                                            \
    static void squares_##NAME(void *context, int part)                                                     \
    {                                                                                                       \
        const lai_gemv_work *work = context;                                                                \
        const REAL *a = (const REAL *)work->a + part * work->step;                                          \
        const int64_t count = lesser(work->step, work->n - part * work->step);                              \
        double sums[LANES] = { 0 };                                                                         \
        int64_t i = 0;                                                                                      \
        for (; i + LANES <= count; i += LANES)                                                              \
            for (int lane = 0; lane < LANES; lane++)                                                        \
                sums[lane] += (double)a[i + lane] * (double)a[i + lane];                                    \
        for (; i < count; i++)                                                                              \
            sums[0] += (double)a[i] * (double)a[i];                                                         \
        for (int lane = 0; lane < LANES; lane++)                                                            \
            work->y[part] += sums[lane];                                                                    \
    }

FUNCTIONS(float, float32)
FUNCTIONS(double, float64)

void lai_gemv(int dtype, int transposed, int64_t m, int64_t n, const void *a, int64_t ld, int sides,
              const double *x, double *y)
{
    const int64_t length = transposed ? n : m, parts = (int64_t)PARTS_A_THREAD * lai_num_threads();
    int64_t step = (length + parts - 1) / parts;
    if (!transposed && step < LEAST_ROWS)
        step = LEAST_ROWS;
    lai_gemv_work work = { transposed, sides, m, n, ld, step < 1 ? 1 : step, a, x, y };
    memset(y, 0, (size_t)(length * sides) * sizeof *y);
    lai_parallel((int)((length + work.step - 1) / work.step), dtype == LAI_FLOAT32 ? part_float32 : part_float64, &work);
}

double lai_sum_of_squares(int dtype, int64_t count, const void *a)
{
    double sums[SUMS] = { 0 }, sum = 0;
    lai_gemv_work work = { .n = count, .step = (count + SUMS - 1) / SUMS, .a = a, .y = sums };
    if (count > 0)
        lai_parallel((int)((count + work.step - 1) / work.step), dtype == LAI_FLOAT32 ? squares_float32 : squares_float64, &work);
    for (int part = 0; part < SUMS; part++)
        sum += sums[part];
    return sum;
}
