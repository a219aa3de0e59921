/* Products of a matrix and a few vectors, and sums of squares, for the checks of what a device computed.
 *
 * Sums are in double precision, whatever the matrix is of, and the same for any number of threads. Not by the BLAS: its threads
 * wait for more work in a loop, on the CPUs that the copies and the divide and conquer of the next call need. Long sums are sums of
 * short ones: where all summands are equal, so are the errors of adding them. */
#include <stdlib.h>
#include <string.h>

#include "native.h"

enum {
    LANES = 8,                  /* sums at once, for the compiler to keep in vectors */
    ROWS = 1024,                /* of a matrix: where they stay in the first cache; terms of a short sum */
    COLUMNS = 256,              /* likewise */
    LEAST_ROWS = 128,           /* that a part of the work has */
    PARTS = 64                  /* of a matrix of few rows, and of a sum of squares; fixed: sums have one order */
};

typedef struct {
    int transposed, sides;
    int64_t m, n, ld, step;     /* step: rows, or columns, of a part */
    int64_t columns;            /* of a part; all of them but where there are few rows */
    const void *a;
    const double *x;
    double *y;                  /* by parts of columns */
} lai_gemv_work;

static inline int64_t lesser(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

#define FUNCTIONS(REAL, NAME)                                                                                                      \
    static double dot_##NAME(int64_t count, const REAL *a, const double *x)                                                        \
    {                                                                                                                              \
        double sums[LANES] = { 0 }, sum = 0;                                                                                       \
        int64_t i = 0;                                                                                                             \
        for (; i + LANES <= count; i += LANES)                                                                                     \
            for (int lane = 0; lane < LANES; lane++)                                                                               \
                sums[lane] += (double)a[i + lane] * x[i + lane];                                                                   \
        for (; i < count; i++)                                                                                                     \
            sum += (double)a[i] * x[i];                                                                                            \
        for (int lane = 0; lane < LANES; lane++)                                                                                   \
            sum += sums[lane];                                                                                                     \
        return sum;                                                                                                                \
    }                                                                                                                              \
                                                                                                                                   \
    /* y of the columns that are this part's */                                                                                    \
    static void columns_##NAME(const lai_gemv_work *work, int64_t first, int64_t end)                                              \
    {                                                                                                                              \
        for (int64_t j = first; j < end; j++)                                                                                      \
            for (int64_t i = 0; i < work->m; i += ROWS)                                                                            \
                for (int side = 0; side < work->sides; side++)                                                                     \
                    work->y[side * work->n + j] += dot_##NAME(lesser(ROWS, work->m - i),                                           \
                        (const REAL *)work->a + j * work->ld + i, work->x + side * work->m + i);                                   \
    }                                                                                                                              \
                                                                                                                                   \
    /* y of a block of rows, from the columns `first` .. `end` - 1 */                                                              \
    static void rows_##NAME(const lai_gemv_work *work, double *y, int64_t row, int64_t rows, int64_t first, int64_t end)           \
    {                                                                                                                              \
        double sums[ROWS];                                                                                                         \
        for (int side = 0; side < work->sides; side++)                                                                             \
            for (int64_t begin = first; begin < end; begin += COLUMNS) {                                                           \
                memset(sums, 0, sizeof *sums * (size_t)rows);                                                                      \
                for (int64_t j = begin; j < lesser(begin + COLUMNS, end); j++) {                                                   \
                    const REAL *a = (const REAL *)work->a + j * work->ld + row;                                                    \
                    const double x = work->x[side * work->n + j];                                                                  \
                    for (int64_t i = 0; i < rows; i++)                                                                             \
                        sums[i] += (double)a[i] * x;                                                                               \
                }                                                                                                                  \
                for (int64_t i = 0; i < rows; i++)                                                                                 \
                    y[side * work->m + row + i] += sums[i];                                                                        \
            }                                                                                                                      \
    }                                                                                                                              \
                                                                                                                                   \
    static void part_##NAME(void *context, int part)                                                                               \
    {                                                                                                                              \
        const lai_gemv_work *work = context;                                                                                       \
        if (work->transposed) {                                                                                                    \
            columns_##NAME(work, part * work->step, lesser((part + 1) * work->step, work->n));                                     \
        } else if (work->columns < work->n) {                                                                                      \
            rows_##NAME(work, work->y + part * work->sides * work->m, 0, work->m, part * work->columns,                            \
                        lesser((part + 1) * work->columns, work->n));                                                              \
        } else {                                                                                                                   \
            const int64_t end = lesser((part + 1) * work->step, work->m);                                                          \
            for (int64_t row = part * work->step; row < end; row += ROWS)                                                          \
                rows_##NAME(work, work->y, row, lesser(ROWS, end - row), 0, work->n);                                              \
        }                                                                                                                          \
    }                                                                                                                              \
                                                                                                                                   \
    static void squares_##NAME(void *context, int part)                                                                            \
    {                                                                                                                              \
        const lai_gemv_work *work = context;                                                                                       \
        const REAL *a = (const REAL *)work->a + part * work->step;                                                                 \
        const int64_t end = lesser(work->step, work->n - part * work->step);                                                       \
        for (int64_t first = 0; first < end; first += ROWS) {                                                                      \
            const int64_t count = lesser(ROWS, end - first);                                                                       \
            double sums[LANES] = { 0 }, sum = 0;                                                                                   \
            int64_t i = 0;                                                                                                         \
            for (; i + LANES <= count; i += LANES)                                                                                 \
                for (int lane = 0; lane < LANES; lane++)                                                                           \
                    sums[lane] += (double)a[first + i + lane] * (double)a[first + i + lane];                                       \
            for (; i < count; i++)                                                                                                 \
                sum += (double)a[first + i] * (double)a[first + i];                                                                \
            for (int lane = 0; lane < LANES; lane++)                                                                               \
                sum += sums[lane];                                                                                                 \
            work->y[part] += sum;                                                                                                  \
        }                                                                                                                          \
    }

FUNCTIONS(float, float32)
FUNCTIONS(double, float64)

void lai_gemv(int dtype, int transposed, int64_t m, int64_t n, const void *a, int64_t ld, int sides,
              const double *x, double *y)
{
    void (*const run)(void *, int) = dtype == LAI_FLOAT32 ? part_float32 : part_float64;
    const int64_t length = transposed ? n : m, of_y = length * sides, parts = (int64_t)4 * lai_num_threads();
    lai_gemv_work work = { transposed, sides, m, n, ld, (length + parts - 1) / parts, n, a, x, y };
    if (!transposed && work.step < LEAST_ROWS)
        work.step = LEAST_ROWS;
    memset(y, 0, (size_t)of_y * sizeof *y);
    if (!transposed && m <= ROWS && n > 4 * m && n >= PARTS * LEAST_ROWS) {
        work.columns = (n + PARTS - 1) / PARTS;
        work.y = calloc(PARTS, (size_t)of_y * sizeof *y);
        if (work.y) {
            lai_parallel(PARTS, run, &work);
            for (int part = 0; part < PARTS; part++)
                for (int64_t i = 0; i < of_y; i++)
                    y[i] += work.y[part * of_y + i];
            free(work.y);
            return;
        }
        work.columns = n, work.y = y;
    }
    lai_parallel((int)((length + work.step - 1) / work.step), run, &work);
}

double lai_sum_of_squares(int dtype, int64_t count, const void *a)
{
    double sums[PARTS] = { 0 }, sum = 0;
    lai_gemv_work work = { .n = count, .step = (count + PARTS - 1) / PARTS, .a = a, .y = sums };
    if (count > 0)
        lai_parallel((int)((count + work.step - 1) / work.step), dtype == LAI_FLOAT32 ? squares_float32 : squares_float64, &work);
    for (int part = 0; part < PARTS; part++)
        sum += sums[part];
    return sum;
}
