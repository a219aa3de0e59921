/* The pool on which kernels share their work.
 *
 * Workers are started by the first call that wants them; after each call they look out for the next one for a moment,
 * then sleep. One call has the pool at a time; others, and calls made inside a part, run their parts themselves.
 *
 * The state of a call is one word: how many workers it still wants, and how many are in it. A worker enters by moving
 * one from the first number to the second. The caller ends the call by clearing the first, then waits until the second
 * is 0: for workers that are in a part, never for one that has yet to wake up. */
#define _GNU_SOURCE     /* sched_getaffinity */
#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "container.h"

enum {
    MOST_WORKERS = 255,
    STACK_BYTES = 2 << 20,      /* of a worker: gemm_alpha keeps 600 KiB there, and the C library may keep its own */
    SPIN_NANOSECONDS = 50000
};

static void watch_forks(void);

/* ---- CPUs that the calling thread may run on -------------------------------------------------- */

static int online(void)
{
    const long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? (int)count : 1;
}

#ifdef __linux__
typedef struct {
    cpu_set_t set[8];           /* 8192 CPUs, the most that a kernel can be built for; one set holds 1024 */
} cpus;

static void read_cpus(cpus *found)
{
    if (sched_getaffinity(0, sizeof *found, found->set) != 0)
        memset(found, 0, sizeof *found);
}

static void use_cpus(const cpus *wanted)
{
    sched_setaffinity(0, sizeof *wanted, wanted->set);
}

static int count_cpus(const cpus *found)
{
    const int count = CPU_COUNT_S(sizeof *found, found->set);
    return count ? count : online();
}
#else
typedef struct {
    int online;
} cpus;

static void read_cpus(cpus *found)
{
    found->online = online();
}

static void use_cpus(const cpus *wanted)
{
    (void)wanted;
}

static int count_cpus(const cpus *found)
{
    return found->online;
}
#endif

/* ---- CPUs that the container pays for ----------------------------------------------------------- */

/* The smaller of two limits, where 0 is none. */
static int lesser(int limit, int other)
{
    return limit && (!other || limit < other) ? limit : other;
}

static atomic_int paid_cpus = -1;       /* -1: not read yet */

int lai_cgroup_cpus(const char *root)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    int cpus = root ? -1 : atomic_load_explicit(&paid_cpus, memory_order_relaxed);
    if (cpus < 0) {
        pthread_once(&once, watch_forks);
        cpus = lai_read_cgroup_cpus(root ? root : "");
        atomic_store_explicit(&paid_cpus, cpus, memory_order_relaxed);
    }
    return cpus;
}

/* ---- how many threads ----------------------------------------------------------------------------- */

static atomic_int limit;

int lai_use_threads(int wanted)
{
    return atomic_exchange(&limit, wanted > 0 ? wanted : 0);
}

static int count_threads(const cpus *usable)
{
    int threads = lesser(atomic_load_explicit(&limit, memory_order_relaxed), MOST_WORKERS + 1);
    threads = lesser(lai_cgroup_cpus(NULL), threads);
    return lesser(count_cpus(usable), threads);
}

int lai_num_threads(void)
{
    cpus usable;
    if (atomic_load_explicit(&limit, memory_order_relaxed) == 1)
        return 1;
    read_cpus(&usable);
    return count_threads(&usable);
}

/* ---- the pool --------------------------------------------------------------------------------------- */

enum { ENTERED = 1, WANTED = 1 << 10, ALL_ENTERED = WANTED - 1, ALL_WANTED = ALL_ENTERED << 10, LEAVE = 1 << 20 };

/* Threads that sleep until a condition on pool.state holds. Whoever makes it hold looks at `threads` afterwards;
 * a thread looks at the condition after it has put itself there: so one of the two sees the other. */
typedef struct {
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    atomic_int threads;
} sleepers;

#define NO_SLEEPERS {.mutex = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER}

static struct {
    atomic_flag taken;              /* by a call */
    sleepers workers, caller;
    /* Of the call, written by its caller before it asks for workers. */
    void (*run)(void *context, int part);
    void *context;
    int parts;
    cpus usable;
    fenv_t environment;
    int started;
    pthread_t threads[MOST_WORKERS];
    /* Each alone on its cache line. */
    alignas(64) atomic_int state;
    alignas(64) atomic_int next;
    alignas(64) atomic_int raised;
} pool = {.taken = ATOMIC_FLAG_INIT, .workers = NO_SLEEPERS, .caller = NO_SLEEPERS};

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");        /* "yield" is no pause on most cores */
#endif
}

static int64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static int has_work(void)
{
    return atomic_load(&pool.state) & (ALL_WANTED | LEAVE);
}

static int is_done(void)
{
    return !(atomic_load(&pool.state) & ALL_ENTERED);
}

/* Kernels call several times in a row, and waking a thread whose CPU went idle took 80 us (on a virtual machine):
 * halves of 200 us took 170 to 190 us without spinning, 110 with it. As long as waking takes, and no longer. */
static void wait_until(int (*holds)(void), sleepers *s)
{
    const int64_t end = nanoseconds() + SPIN_NANOSECONDS;
    do
        for (int i = 0; i < 16; i++) {
            if (holds())
                return;
            relax();
        }
    while (nanoseconds() < end);
    pthread_mutex_lock(&s->mutex);
    atomic_fetch_add(&s->threads, 1);
    while (!holds())
        pthread_cond_wait(&s->wake, &s->mutex);
    atomic_fetch_sub(&s->threads, 1);
    pthread_mutex_unlock(&s->mutex);
}

static void wake(sleepers *s, int most)
{
    if (!atomic_load(&s->threads))
        return;
    pthread_mutex_lock(&s->mutex);      /* not between its look at the condition and its sleep */
    pthread_mutex_unlock(&s->mutex);
    for (int i = 0; i < most; i++)
        pthread_cond_signal(&s->wake);
}

static int enter(void)
{
    int state = atomic_load(&pool.state);
    while (state & ALL_WANTED)
        if (atomic_compare_exchange_weak(&pool.state, &state, state - WANTED + ENTERED))
            return 1;
    return 0;
}

static void leave(void)
{
    if ((atomic_fetch_sub(&pool.state, ENTERED) & ALL_ENTERED) == ENTERED)
        wake(&pool.caller, 1);
}

static void run_parts(void)
{
    int part;
    while ((part = atomic_fetch_add_explicit(&pool.next, 1, memory_order_relaxed)) < pool.parts)
        pool.run(pool.context, part);
}

static void *work(void *unused)
{
    cpus mine;
    (void)unused;
#ifdef __linux__
    pthread_setname_np(pthread_self(), "lapack_ai");
#endif
    read_cpus(&mine);
    for (;;) {
        wait_until(has_work, &pool.workers);
        if (atomic_load(&pool.state) & LEAVE)
            return NULL;
        if (!enter())
            continue;
        wake(&pool.workers, 2);     /* a tree: the caller wakes one, and goes to work */
        if (memcmp(&mine, &pool.usable, sizeof mine) != 0) {
            mine = pool.usable;
            use_cpus(&mine);
        }
        fesetenv(&pool.environment);
        feclearexcept(FE_ALL_EXCEPT);
        run_parts();
        atomic_fetch_or_explicit(&pool.raised, fetestexcept(FE_ALL_EXCEPT), memory_order_relaxed);
        leave();
    }
}

/* Workers take no signals: those are for the program's own threads. Except for those that an instruction
 * causes: blocked, they would end the process without a word from faulthandler. */
static void start_workers(int wanted)
{
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    pthread_attr_t attributes;
    sigset_t blocked, before;

    if (pool.started >= wanted || pthread_attr_init(&attributes) != 0)
        return;
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        sigdelset(&blocked, own[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    while (pool.started < wanted && pthread_create(&pool.threads[pool.started], &attributes, work, NULL) == 0)
        pool.started++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

void lai_parallel(int parts, void (*run)(void *context, int part), void *context)
{
    cpus usable;
    int threads = 1;

    if (parts > 1 && atomic_load_explicit(&limit, memory_order_relaxed) != 1) {
        read_cpus(&usable);
        threads = lesser(parts, count_threads(&usable));
    }
    if (threads == 1 || atomic_flag_test_and_set(&pool.taken)) {
        for (int part = 0; part < parts; part++)
            run(context, part);
        return;
    }
    start_workers(threads - 1);
    pool.run = run;
    pool.context = context;
    pool.parts = parts;
    pool.usable = usable;
    fegetenv(&pool.environment);
    atomic_store_explicit(&pool.raised, 0, memory_order_relaxed);
    atomic_store_explicit(&pool.next, 0, memory_order_relaxed);
    atomic_store(&pool.state, (threads - 1) * WANTED);
    wake(&pool.workers, 1);
    run_parts();
    atomic_fetch_and(&pool.state, ~ALL_WANTED);
    wait_until(is_done, &pool.caller);
    const int raised = atomic_load_explicit(&pool.raised, memory_order_relaxed);
    atomic_flag_clear(&pool.taken);
    if (raised)
        feraiseexcept(raised);
}

/* ---- fork --------------------------------------------------------------------------------------------- */

/* Before: Python 3.12 and later warn of a fork where there are threads besides, so they end, unless they work. */
static void end_workers(void)
{
    if (atomic_flag_test_and_set(&pool.taken))
        return;
    atomic_fetch_or(&pool.state, LEAVE);
    wake(&pool.workers, pool.started);
    while (pool.started > 0)
        pthread_join(pool.threads[--pool.started], NULL);
    atomic_fetch_and(&pool.state, ~LEAVE);
    atomic_flag_clear(&pool.taken);
}

/* In the child, which has one thread and whatever the others were doing to the pool. */
static void start_afresh(void)
{
    static const sleepers none = NO_SLEEPERS;
    pool.started = 0;
    pool.workers = pool.caller = none;
    atomic_store(&pool.state, 0);
    atomic_flag_clear(&pool.taken);
    atomic_store(&paid_cpus, -1);
}

static void watch_forks(void)
{
    pthread_atfork(end_workers, NULL, start_afresh);
}
