/* What ran where: counters of the process, and traces, each the decisions of one context in call order. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "native.h"

#ifdef __GLIBC__
#define QUICKLY_REACHED __attribute__((tls_model("initial-exec")))     /* as in matmul_hook.c */
#else
#define QUICKLY_REACHED
#endif

/* Of the list of tallies, of the numbers at the last reset, and of every trace's contents. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void lock(void) { pthread_mutex_lock(&mutex); }
static void unlock(void) { pthread_mutex_unlock(&mutex); }

/* ---- counters: relaxed atomics, read while others count; a reader sees each number whole */

/* The numbers of one function: FIELDS for each kernel, then one for each reason against kernels. */
enum { CALLS, BYTES, ALPHATENSOR, DIRECT, STOCK, FIELDS };
enum { FALLBACKS = FIELDS * LAI_MAX_KERNELS, NUMBERS = FALLBACKS + LAI_REASONS };

static _Atomic int64_t numbers[LAI_MAX_FUNCTIONS][NUMBERS];
static int64_t at_reset[LAI_MAX_FUNCTIONS][NUMBERS];

/* Products are counted by each thread for itself: an addition that all processors agree on takes 6 ns, and a call of
 * 150 ns needs three or four. */
typedef struct tally {
    _Atomic int64_t numbers[NUMBERS];
    struct tally *next;
} tally;

static tally *tallies;
static _Thread_local tally *mine QUICKLY_REACHED;
static pthread_key_t at_thread_end;
static int has_key;

static void end_tally(void *ended)
{
    tally *t = ended, **link = &tallies;

    lock();
    for (int i = 0; i < NUMBERS; i++)
        numbers[LAI_MATMUL][i] += t->numbers[i];
    while (*link != t)
        link = &(*link)->next;
    *link = t->next;
    unlock();
    mine = NULL;
    free(t);
}

/* A fork must not copy the mutex while another thread holds it. */
static void begin(void)
{
    pthread_atfork(lock, unlock, unlock);
    has_key = pthread_key_create(&at_thread_end, end_tally) == 0;
}

static void begin_once(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, begin);
}

/* NULL: no memory. */
static tally *make_tally(void)
{
    begin_once();
    tally *t = has_key ? calloc(1, sizeof *t) : NULL;
    if (t == NULL || pthread_setspecific(at_thread_end, t) != 0) {
        free(t);
        return NULL;
    }
    lock();
    t->next = tallies;
    tallies = t;
    unlock();
    return t;
}

static void add(_Atomic int64_t *number, int64_t amount)
{
    if (amount)
        atomic_fetch_add_explicit(number, amount, memory_order_relaxed);
}

/* Where only this thread writes. */
static void add_alone(_Atomic int64_t *number, int64_t amount)
{
    atomic_store_explicit(number, atomic_load_explicit(number, memory_order_relaxed) + amount, memory_order_relaxed);
}

void lai_count(const lai_decision *d, const lai_blocks *blocks, int calls, int tell, int64_t bytes)
{
    const int f = d->problem.function, first = FIELDS * d->kernel, fallback = FALLBACKS + d->reason;
    const int64_t told = d->reason == LAI_ROUTED ? 0 : tell;

    if (f == LAI_MATMUL && (mine || (mine = make_tally()))) {
        add_alone(&mine->numbers[first + CALLS], calls);
        add_alone(&mine->numbers[first + BYTES], bytes);
        add_alone(&mine->numbers[first + ALPHATENSOR], blocks->alphatensor);
        add_alone(&mine->numbers[first + DIRECT], blocks->direct);
        add_alone(&mine->numbers[first + STOCK], blocks->stock);
        add_alone(&mine->numbers[fallback], told);
        return;
    }
    add(&numbers[f][first + CALLS], calls);
    add(&numbers[f][first + BYTES], bytes);
    add(&numbers[f][first + ALPHATENSOR], blocks->alphatensor);
    add(&numbers[f][first + DIRECT], blocks->direct);
    add(&numbers[f][first + STOCK], blocks->stock);
    add(&numbers[f][fallback], told);
}

/* With the mutex. */
static int64_t total(int function, int number)
{
    int64_t sum = numbers[function][number];

    for (tally *t = function == LAI_MATMUL ? tallies : NULL; t; t = t->next)
        sum += t->numbers[number];
    return sum;
}

static int64_t since_reset(int function, int number)
{
    return total(function, number) - at_reset[function][number];
}

void lai_read_counter(int function, int kernel, lai_counter *c)
{
    const int first = FIELDS * kernel;

    lock();
    c->calls = since_reset(function, first + CALLS);
    c->bytes = since_reset(function, first + BYTES);
    c->blocks.alphatensor = since_reset(function, first + ALPHATENSOR);
    c->blocks.direct = since_reset(function, first + DIRECT);
    c->blocks.stock = since_reset(function, first + STOCK);
    unlock();
}

int64_t lai_read_fallbacks(int function, int reason)
{
    lock();
    const int64_t count = since_reset(function, FALLBACKS + reason);
    unlock();
    return count;
}

void lai_reset_counters(void)
{
    lock();
    for (int f = 0; f < LAI_MAX_FUNCTIONS; f++)
        for (int i = 0; i < NUMBERS; i++)
            at_reset[f][i] = total(f, i);
    unlock();
}

/* ---- traces
 * A thread may hold a trace's address a moment longer than its context lives, so the heads are
 * recycled and never given back. */

struct lai_trace {
    lai_decision *decisions;
    int64_t length, room;
    int open;
    lai_trace *next_free;
};

static lai_trace *free_traces;

lai_trace *lai_open_trace(void)
{
    begin_once();
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
