/* What ran where: counters of the process, and traces, each the decisions of one context in call order. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "native.h"

/* ---- counters: relaxed atomics, read while others count; a reader sees each number whole */

static struct {
    _Atomic int64_t calls, bytes, alphatensor, direct, stock;
} counters[LAI_MAX_FUNCTIONS][LAI_MAX_KERNELS];

static _Atomic int64_t fallbacks[LAI_MAX_FUNCTIONS][LAI_REASONS];

static void add(_Atomic int64_t *counter, int64_t amount)
{
    if (amount)
        atomic_fetch_add_explicit(counter, amount, memory_order_relaxed);
}

void lai_count(const lai_decision *d, const lai_blocks *blocks, int calls, int tell, int64_t bytes)
{
    const int f = d->problem.function;

    add(&counters[f][d->kernel].calls, calls);
    add(&counters[f][d->kernel].bytes, bytes);
    add(&counters[f][d->kernel].alphatensor, blocks->alphatensor);
    add(&counters[f][d->kernel].direct, blocks->direct);
    add(&counters[f][d->kernel].stock, blocks->stock);
    if (d->reason != LAI_ROUTED)
        add(&fallbacks[f][d->reason], tell);
}

void lai_read_counter(int function, int kernel, lai_counter *c)
{
    c->calls = counters[function][kernel].calls;
    c->bytes = counters[function][kernel].bytes;
    c->blocks.alphatensor = counters[function][kernel].alphatensor;
    c->blocks.direct = counters[function][kernel].direct;
    c->blocks.stock = counters[function][kernel].stock;
}

int64_t lai_read_fallbacks(int function, int reason)
{
    return fallbacks[function][reason];
}

void lai_reset_counters(void)
{
    for (int f = 0; f < LAI_MAX_FUNCTIONS; f++) {
        for (int k = 0; k < LAI_MAX_KERNELS; k++) {
            counters[f][k].calls = 0;
            counters[f][k].bytes = 0;
            counters[f][k].alphatensor = 0;
            counters[f][k].direct = 0;
            counters[f][k].stock = 0;
        }
        for (int r = 0; r < LAI_REASONS; r++)
            fallbacks[f][r] = 0;
    }
}

/* ---- traces
 * A thread may hold a trace's address a moment longer than its context lives, so the heads are
 * recycled and never given back; the mutex covers the list and every trace's contents. */

struct lai_trace {
    lai_decision *decisions;
    int64_t length, room;
    int open;
    lai_trace *next_free;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static lai_trace *free_traces;

static void lock(void) { pthread_mutex_lock(&mutex); }
static void unlock(void) { pthread_mutex_unlock(&mutex); }
/* A fork must not copy the mutex while another thread holds it. */
static void watch_forks(void) { pthread_atfork(lock, unlock, unlock); }

lai_trace *lai_open_trace(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    lock();
    lai_trace *trace = free_traces;
    if (trace)
        free_traces = trace->next_free;
    else
        trace = calloc(1, sizeof *trace);
    if (trace)
        trace->open = 1;
    unlock();
    return trace;
}

void lai_close_trace(lai_trace *trace)
{
    lock();
    free(trace->decisions);
    *trace = (lai_trace){.open = 0};
    unlock();
}

void lai_free_trace(lai_trace *trace)
{
    lai_close_trace(trace);
    lock();
    trace->next_free = free_traces;
    free_traces = trace;
    unlock();
}

static int grow(lai_trace *trace)
{
    const int64_t room = trace->room ? 2 * trace->room : 64;
    lai_decision *decisions = realloc(trace->decisions, (size_t)room * sizeof *decisions);
    if (decisions == NULL)
        return 0;
    trace->decisions = decisions;
    trace->room = room;
    return 1;
}

int64_t lai_append_to_trace(lai_trace *trace, const lai_decision *decision)
{
    int64_t index = -1;
    lock();
    if (trace->open && (trace->length < trace->room || grow(trace))) {
        index = trace->length++;
        trace->decisions[index] = *decision;
    }
    unlock();
    return index;
}

void lai_update_trace(lai_trace *trace, int64_t index, const lai_decision *decision)
{
    lock();
    if (trace->open && index >= 0 && index < trace->length)
        trace->decisions[index] = *decision;
    unlock();
}

int64_t lai_trace_length(lai_trace *trace)
{
    lock();
    const int64_t length = trace->length;
    unlock();
    return length;
}

int lai_read_trace(lai_trace *trace, int64_t index, lai_decision *decision)
{
    int found = 0;
    lock();
    if (trace->open && index >= 0 && index < trace->length) {
        *decision = trace->decisions[index];
        found = 1;
    }
    unlock();
    return found;
}
