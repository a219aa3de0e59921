/* The native code that several threads may be in at once, without Python, for ThreadSanitizer and for other
 * architectures: the pool, products, counters, traces, the instruction set, and forks in the middle of it all. */
#define _GNU_SOURCE     /* cpu_set_t */
#include <assert.h>
#include <errno.h>
#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "native.h"

#ifdef NDEBUG
#error assertions are the test
#endif

enum { FIRST_CPU = 5000, CPUS = 6, THREADS = 4, ROUNDS = 150, PARTS = 9, FORKS = 12, TIME_LIMIT = 100 };

/* ---- a large machine, in place of the C library's functions: several workers, whatever runs this ------- */

static _Thread_local int my_cpus = CPUS;

int sched_getaffinity(pid_t thread, size_t size, cpu_set_t *set)
{
    assert(thread == 0);
    if (8 * size <= FIRST_CPU + CPUS) {
        errno = EINVAL;
        return -1;
    }
    memset(set, 0, size);
    for (int cpu = 0; cpu < my_cpus; cpu++)
        CPU_SET_S(FIRST_CPU + cpu, size, set);
    return 0;
}

int sched_setaffinity(pid_t thread, size_t size, const cpu_set_t *set)
{
    assert(thread == 0);
    my_cpus = CPU_COUNT_S(size, set);
    return 0;
}

/* ---- the pool: every part once, under the caller's floating-point settings, on its CPUs ------ */

typedef struct {
    int runs[PARTS];        /* not atomic: that parts are done when lai_parallel() returns is what is tested */
    int rounding, cpus;
    int nested;
    double tiny;
} job;

static void run_part(void *context, int part)
{
    job *j = context;
    assert(fegetround() == j->rounding && my_cpus == j->cpus);
    j->runs[part]++;
    if (j->nested) {
        job inner = {.rounding = j->rounding, .cpus = j->cpus};
        lai_parallel(PARTS, run_part, &inner);
        for (int i = 0; i < PARTS; i++)
            assert(inner.runs[i] == 1);
    }
    if (part == PARTS - 1 && j->tiny > 0) {
        volatile double product = j->tiny;
        product *= product;
    }
}

static void use_pool(int round)
{
    job j = {.rounding = round % 2 ? FE_UPWARD : FE_TONEAREST, .cpus = my_cpus,
             .nested = round % 3 == 0, .tiny = round % 5 ? 0 : 1e-200};
    fesetround(j.rounding);
    feclearexcept(FE_ALL_EXCEPT);
    lai_parallel(PARTS, run_part, &j);
    assert(!fetestexcept(FE_UNDERFLOW) == (j.tiny == 0));
    fesetround(FE_TONEAREST);
    for (int i = 0; i < PARTS; i++)
        assert(j.runs[i] == 1);
}

/* ---- products: small whole numbers, so every kernel's result is exact ----------------------------- */

#define PRODUCT(T, NAME, DTYPE)                                                                                     \
    static void NAME(int kernel, int size, int batch, unsigned round)                                               \
    {                                                                                                               \
        const intptr_t elements = (intptr_t)size * size, item = sizeof(T);                                          \
        T *a = malloc(elements * batch * item), *b = malloc(elements * batch * item);                               \
        T *c = calloc(elements * batch, item);                                                                      \
        lai_blocks blocks = {0};                                                                                    \
        for (intptr_t i = 0; i < elements * batch; i++) {                                                           \
            a[i] = (T)((i * 7 + round) % 11 - 5);                                                                   \
            b[i] = (T)((i * 5 + round) % 13 - 6);                                                                   \
        }                                                                                                           \
        const lai_product product = {                                                                               \
            .a = (char *)a, .b = (char *)b, .c = (char *)c, .batch = batch, .m = size, .k = size, .n = size,        \
            .a_batch = elements * item, .a_row = size * item, .a_column = item,                                     \
            .b_batch = elements * item, .b_row = size * item, .b_column = item,                                     \
            .c_batch = elements * item, .c_row = size * item, .c_column = item};                                    \
        assert(lai_run_product(kernel, DTYPE, &product, NULL, &blocks) == LAI_DONE);                                \
        for (intptr_t i = 0; i < elements * batch; i++) {                                                           \
            const intptr_t matrix = i / elements * elements, row = i % elements / size, column = i % size;          \
            T sum = 0;                                                                                              \
            for (intptr_t l = 0; l < size; l++)                                                                     \
                sum += a[matrix + row * size + l] * b[matrix + l * size + column];                                  \
            assert(c[i] == sum);                                                                                    \
        }                                                                                                           \
        const lai_decision decision = {.problem = {.function = LAI_MATMUL}, .kernel = kernel};                      \
        lai_count(&decision, &blocks, 1, 1, elements);                                                              \
        free(a);                                                                                                    \
        free(b);                                                                                                    \
        free(c);                                                                                                    \
    }

PRODUCT(double, float64_product, LAI_FLOAT64)
PRODUCT(float, float32_product, LAI_FLOAT32)
PRODUCT(int32_t, int32_product, LAI_INT32)
PRODUCT(int64_t, int64_product, LAI_INT64)

enum { PRODUCTS_OF_A_ROUND = 6, LARGE_ROUNDS = 25 };

static void multiply(unsigned round)
{
    float64_product(LAI_DIRECT, 1 + round % 8, 70, round);
    float32_product(LAI_DIRECT, 1 + round % 8, 70, round);
    float64_product(LAI_ALPHATENSOR49, 4, 70, round);
    int64_product(LAI_DIRECT, 4, 70, round);
    int64_product(LAI_INTEGER, 5 + round % 30, 2, round);
    int32_product(LAI_INTEGER, round % LARGE_ROUNDS ? 33 : 190, 1, round);
}

/* ---- everything at once ------------------------------------------------------------------------------ */

static lai_trace *shared_trace;

static void *stress(void *argument)
{
    const int self = (int)(intptr_t)argument;
    my_cpus = CPUS - self;
    for (int round = self; round < ROUNDS + self; round++) {
        use_pool(round);
        multiply(round);
        lai_decision decision = {.problem = {.function = LAI_MATMUL}, .kernel = round % LAI_PRODUCT_KERNELS};
        lai_trace *own = lai_open_trace();
        assert(lai_append_to_trace(own, &decision) == 0);
        const int64_t index = lai_append_to_trace(shared_trace, &decision);
        lai_update_trace(shared_trace, index, &decision);
        assert(lai_read_trace(shared_trace, index, &decision) && decision.kernel == round % LAI_PRODUCT_KERNELS);
        lai_free_trace(own);
        if (round % 10 == self) {
            lai_use_isa((round + self) % LAI_ISAS);
            lai_use_threads(round % 30 ? 0 : 3);
            assert(lai_num_threads() >= 1);
            assert(lai_blas_threads() == 0);
        }
    }
    return NULL;
}

/* A child has the calling thread alone, whatever the others were doing. */
static void fork_once(int round)
{
    const pid_t child = fork();
    assert(child >= 0);
    if (child == 0) {
        alarm(TIME_LIMIT);
        for (int i = 0; i < 5; i++) {
            use_pool(round + i);
            multiply(round + i);
        }
        lai_free_trace(lai_open_trace());
        _exit(0);
    }
    int status;
    assert(waitpid(child, &status, 0) == child);
    assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(int arguments, char **argument)
{
    pthread_t threads[THREADS];
    lai_counter direct, alphatensor, integer;
    /* Beside busy threads. stress 0: none, where there is more in the process than ours whose locks do not survive that:
     * in ThreadSanitizer and QEMU. */
    const int forks = arguments > 1 ? atoi(argument[1]) : FORKS;

    alarm(TIME_LIMIT);
    for (my_cpus = 1; my_cpus < CPUS; my_cpus++)
        assert(lai_num_threads() == my_cpus);
    use_pool(0);
    fork_once(0);           /* workers asleep */
    lai_reset_counters();
    shared_trace = lai_open_trace();
    for (int i = 0; i < THREADS; i++)
        assert(pthread_create(&threads[i], NULL, stress, (void *)(intptr_t)i) == 0);
    for (int i = 0; i < forks; i++)
        fork_once(i);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    fork_once(0);
    lai_read_counter(LAI_MATMUL, LAI_DIRECT, &direct);
    lai_read_counter(LAI_MATMUL, LAI_ALPHATENSOR49, &alphatensor);
    lai_read_counter(LAI_MATMUL, LAI_INTEGER, &integer);
    assert(direct.calls + alphatensor.calls + integer.calls == THREADS * ROUNDS * PRODUCTS_OF_A_ROUND);
    assert(lai_trace_length(shared_trace) == THREADS * ROUNDS);
    lai_close_trace(shared_trace);
    printf("%d threads, %d rounds, %d forks beside them: all right\n", THREADS, ROUNDS, forks);
    return 0;
}
