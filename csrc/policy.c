/* The one policy: rows, first match wins. numpy.matmul's loop, the scipy.linalg path and explain() all come here. */
#include "native.h"

_Static_assert(sizeof ((lai_table *)0)->first == (LAI_MAX_FUNCTIONS * LAI_DTYPES + 1) * sizeof(int), "one range a dtype");

/* What rows bound, taken from a problem once for all of them. */
typedef struct {
    int64_t least, largest;
    double work;        /* m k n of huge operands does not fit 64 bits, and a limit needs no last digit */
    int square;
} extent;

static extent extent_of(const lai_problem *p)
{
    extent e = {
        .least = p->m < p->n ? p->m : p->n,
        .largest = p->m > p->n ? p->m : p->n,
        .work = (double)p->m * (double)p->n,
        .square = p->m == p->n};

    if (p->function == LAI_MATMUL) {
        e.least = p->k < e.least ? p->k : e.least;
        e.largest = p->k > e.largest ? p->k : e.largest;
        e.work *= (double)p->k;
        e.square &= p->m == p->k;
    }
    return e;
}

static int match(const lai_row *row, const lai_problem *p, const extent *e)
{
    if (!(row->dtypes >> p->dtype & 1))
        return LAI_DTYPE;
    if (row->square && !e->square)
        return LAI_SHAPE;
    if (e->least < row->min_dim || e->largest > row->max_dim || e->work < (double)row->min_work)
        return LAI_SIZE;
    if (p->batch < row->min_batch || p->batch > row->max_batch)
        return LAI_BATCH;
    if (p->symmetric && !row->symmetric)
        return LAI_SYMMETRIC;
    if (row->min_isa > lai_current_isa())
        return LAI_ISA;
    if (row->as_blas && lai_blas_threads() > lai_num_threads())
        return LAI_THREADS;
    if (row->as_blas && e->work < (double)row->min_work * lai_num_threads())
        return LAI_SIZE;
    return row->blocked;
}

int lai_match_row(const lai_row *row, const lai_problem *problem)
{
    const extent e = extent_of(problem);
    return match(row, problem, &e);
}

static lai_device_functions device;

void lai_use_device_functions(const lai_device_functions *functions)
{
    device = *functions;
}

int lai_device_serves(const lai_table *table, int kernel, int dtype)
{
    return device.serves ? device.serves(table, kernel, dtype) : LAI_DEVICE;
}

int lai_device_multiply(const lai_table *table, int dtype, const lai_product *product)
{
    return device.multiply ? device.multiply(table, dtype, product) : LAI_DEVICE;
}

void lai_decide(lai_decision *d)
{
    lai_decide_without(d, -1);
}

void lai_decide_without(lai_decision *d, int kernel)
{
    const lai_table *table = d->table;
    const int f = d->problem.function;

    d->kernel = LAI_STOCK;
    d->rule = -1;
    if (table == NULL) {
        d->reason = LAI_INACTIVE;
        return;
    }
    if (table->off[f] != LAI_ROUTED) {
        d->reason = table->off[f];
        return;
    }
    const extent e = extent_of(&d->problem);
    const int *first = table->first + LAI_DTYPES * f;
    d->reason = first[0] == first[LAI_DTYPES] ? LAI_NO_RULE : LAI_DTYPE;
    for (int i = first[d->problem.dtype]; i < first[d->problem.dtype + 1]; i++) {
        const lai_row *row = &table->rows[i];
        if (row->kernel == kernel)
            continue;
        int reason = match(row, &d->problem, &e);
        if (reason == LAI_ROUTED && row->on_device)     /* asked last, for problems that are worth it */
            reason = lai_device_serves(table, row->kernel, d->problem.dtype);
        if (reason == LAI_ROUTED) {
            d->kernel = row->kernel;
            d->rule = row->rule;
            if (d->kernel != LAI_STOCK)
                d->reason = LAI_ROUTED;
            else if (d->reason < LAI_SYMMETRIC)     /* else a kernel was measured to be faster, and may not */
                d->reason = LAI_TUNED;
            return;
        }
        /* Reasons are numbered in the order in which a row is tested, so the largest
         * one tells of the row that came closest to serving the problem. */
        if (reason > d->reason)
            d->reason = reason;
    }
}
