/* The one policy: rows, first match wins. numpy.matmul's loop, the scipy.linalg path and explain() all come here. */
#include "native.h"

static int64_t least(const lai_problem *p)
{
    int64_t least = p->m < p->n ? p->m : p->n;
    return p->function == LAI_MATMUL && p->k < least ? p->k : least;
}

static int64_t largest(const lai_problem *p)
{
    int64_t largest = p->m > p->n ? p->m : p->n;
    return p->function == LAI_MATMUL && p->k > largest ? p->k : largest;
}

/* In double: m k n of huge operands does not fit 64 bits, and a limit needs no last digit. */
static double work(const lai_problem *p)
{
    return (double)p->m * (double)p->n * (p->function == LAI_MATMUL ? (double)p->k : 1.0);
}

int lai_match_row(const lai_row *row, const lai_problem *p)
{
    if (!(row->dtypes >> p->dtype & 1))
        return LAI_DTYPE;
    if (row->square && (p->m != p->n || (p->function == LAI_MATMUL && p->m != p->k)))
        return LAI_SHAPE;
    if (least(p) < row->min_dim || largest(p) > row->max_dim || work(p) < (double)row->min_work)
        return LAI_SIZE;
    if (p->batch < row->min_batch || p->batch > row->max_batch)
        return LAI_BATCH;
    if (p->symmetric && !row->symmetric)
        return LAI_SYMMETRIC;
    return row->blocked;
}

void lai_decide(lai_decision *d)
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
    d->reason = LAI_NO_RULE;
    for (int i = table->first[f]; i < table->first[f + 1]; i++) {
        const int reason = lai_match_row(&table->rows[i], &d->problem);
        if (reason == LAI_ROUTED) {
            d->kernel = table->rows[i].kernel;
            d->rule = table->rows[i].rule;
            d->reason = LAI_ROUTED;
            return;
        }
        /* Reasons are numbered in the order in which a row is tested, so the largest
         * one tells of the row that came closest to serving the problem. */
        if (reason > d->reason)
            d->reason = reason;
    }
}
