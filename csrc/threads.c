/* The pool on which kernels share their work.
 *
 * Workers are started at the first parallel call, one less than lai_num_threads() says, and sleep between calls.
 * One call has the pool at a time; others, and calls made inside a part, run their parts themselves. A fork leaves
 * the workers behind, so the child starts its own. */
#define _GNU_SOURCE     /* sched_getaffinity */
#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "native.h"
#include "threads.h"

enum { MOST_WORKERS = 255 };

/* ---- how many ------------------------------------------------------------------------- */

static atomic_int limit;

int lai_use_threads(int wanted)
{
    return atomic_exchange(&limit, wanted > 0 ? wanted : 0);
}

static int affinity(void)
{
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set);
#endif
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
}

int lai_num_threads(void)
{
    const int wanted = atomic_load_explicit(&limit, memory_order_relaxed);
    int threads = wanted == 1 ? 1 : affinity();
    if (wanted && wanted < threads)
        threads = wanted;
    return threads < MOST_WORKERS + 1 ? threads : MOST_WORKERS + 1;
}

/* ---- the pool --------------------------------------------------------------------------- */

static struct {
    pthread_mutex_t taken;              /* held by the call that has the pool */
    pthread_mutex_t mutex;              /* covers what follows */
    pthread_cond_t work, done;
    int workers;                        /* started */
    int wanted;                         /* workers that this call may still take */
    int busy;                           /* workers in this call */
    unsigned call;                      /* its number */
    void (*run)(void *, int);
    void *context;
    int parts;
    atomic_int next;
    fenv_t environment;
    int flags;
} pool = {.taken = PTHREAD_MUTEX_INITIALIZER, .mutex = PTHREAD_MUTEX_INITIALIZER,
          .work = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};

static void run_parts(void)
{
    int part;
    while ((part = atomic_fetch_add_explicit(&pool.next, 1, memory_order_relaxed)) < pool.parts)
        pool.run(pool.context, part);
}

static void *work(void *unused)
{
    unsigned seen = 0;
    (void)unused;
    pthread_mutex_lock(&pool.mutex);
    for (;;) {
        while (pool.call == seen || pool.wanted == 0)
            pthread_cond_wait(&pool.work, &pool.mutex);
        seen = pool.call;
        pool.wanted--;
        pool.busy++;
        fesetenv(&pool.environment);
        pthread_mutex_unlock(&pool.mutex);
        feclearexcept(FE_ALL_EXCEPT);
        run_parts();
        const int flags = fetestexcept(FE_ALL_EXCEPT);
        pthread_mutex_lock(&pool.mutex);
        pool.flags |= flags;
        if (--pool.busy == 0)
            pthread_cond_signal(&pool.done);
    }
    return NULL;
}

static void lock(void)
{
    pthread_mutex_lock(&pool.taken);
    pthread_mutex_lock(&pool.mutex);
}

static void unlock(void)
{
    pthread_mutex_unlock(&pool.mutex);
    pthread_mutex_unlock(&pool.taken);
}

/* The child has none of the workers. */
static void forget(void)
{
    pool.workers = pool.busy = pool.wanted = 0;
    pthread_cond_init(&pool.work, NULL);
    pthread_cond_init(&pool.done, NULL);
    unlock();
}

static void watch_forks(void)
{
    pthread_atfork(lock, unlock, forget);
}

/* With pool.mutex held. */
static void start_workers(int wanted)
{
    pthread_attr_t attributes;
    sigset_t all, before;

    if (pool.workers >= wanted || pthread_attr_init(&attributes) != 0)
        return;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);           /* signals are for the program's own threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool.workers < wanted) {
        pthread_t thread;
        if (pthread_create(&thread, &attributes, work, NULL) != 0)
            break;
        pool.workers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

void lai_parallel(int parts, void (*run)(void *context, int part), void *context)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    int threads = parts > 1 ? lai_num_threads() : 1;

    if (threads > parts)
        threads = parts;
    if (threads > 1)
        pthread_once(&once, watch_forks);
    if (threads <= 1 || pthread_mutex_trylock(&pool.taken) != 0) {
        for (int part = 0; part < parts; part++)
            run(context, part);
        return;
    }
    pthread_mutex_lock(&pool.mutex);
    start_workers(threads - 1);
    pool.run = run;
    pool.context = context;
    pool.parts = parts;
    pool.wanted = threads - 1;
    pool.flags = 0;
    pool.call++;
    atomic_store_explicit(&pool.next, 0, memory_order_relaxed);
    fegetenv(&pool.environment);
    pthread_cond_broadcast(&pool.work);
    pthread_mutex_unlock(&pool.mutex);
    run_parts();
    pthread_mutex_lock(&pool.mutex);
    pool.wanted = 0;            /* whoever has not come yet is not needed */
    while (pool.busy > 0)
        pthread_cond_wait(&pool.done, &pool.mutex);
    const int flags = pool.flags;
    pthread_mutex_unlock(&pool.mutex);
    pthread_mutex_unlock(&pool.taken);
    if (flags)
        feraiseexcept(flags);
}
