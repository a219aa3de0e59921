/* QR factorization, blocked: panels as in gebrd without their right side, the columns behind by ormqr. */
#include "opencl/panel.h"

static void take_panel(lai_panel *panel, lai_workspace *space, int dtype, int m, int n)
{
    const int width = panel_width(dtype);
    lai_panel_take(panel, space, dtype, m, width, (int)least(n, width), 0);
    panel->taup = take(space, width, 1);            /* not read without right reflectors, yet it must be a buffer */
    panel->d = as_reals(dtype, &panel->taup);       /* R's diagonal, which is in A too */
}

/* The columns behind the panels. */
static int64_t update_work(int dtype, int m, int n)
{
    const int width = panel_width(dtype);
    int64_t needed = 0;
    for (int k = 0; k < least(m, n - width); k += width)
        needed = most(needed, lai_cl_ormqr_work(dtype, m - k, n - k - width, (int)least(width, m - k)));
    return needed;
}

int64_t lai_cl_geqrf_work(int dtype, int m, int n)
{
    lai_panel panel;
    lai_workspace query = { NULL, 0 };
    take_panel(&panel, &query, dtype, m, n);
    return query.next + update_work(dtype, m, n);
}

static int reduce_panel(const lai_opencl *cl, const lai_panel *panel)
{
    const int n = panel->a.columns, width = (int)least(panel->a.rows, n);
    for (int j = 0; j < width; j++) {
        TRY(lai_panel_column(cl, panel, j, 0));
        TRY(lai_panel_left(cl, panel, j, 0));
        if (j + 1 < n) {
            const lai_matrix r = part(&panel->a, j, j + 1, 1, n - j - 1);
            TRY(lai_panel_row(cl, panel, j, 0, &r));
        }
    }
    return lai_cl_flush(cl);
}

int lai_cl_geqrf(const lai_opencl *cl, const lai_matrix *a, const lai_matrix *tau, const lai_matrix *work)
{
    lai_workspace space = { work->buffer, work->offset };
    lai_panel panel = { 0 };    /* no buffers where the right side would be */
    const int columns = panel_width(cl->dtype);
    TRY(suffices(work, lai_cl_geqrf_work(cl->dtype, a->rows, a->columns)));
    take_panel(&panel, &space, cl->dtype, a->rows, a->columns);
    const lai_matrix update = take(&space, update_work(cl->dtype, a->rows, a->columns), 1);

    for (int k = 0; k < least(a->rows, a->columns); k += columns) {
        const int m = a->rows - k, n = a->columns - k, width = (int)least(columns, n);
        panel.a = part(a, k, k, m, width);
        panel.tauq = part(tau, k, 0, (int)least(m, width), 1);
        TRY(reduce_panel(cl, &panel));
        if (width < n) {
            const lai_matrix v = part(a, k, k, m, panel.tauq.rows), rest = part(a, k, k + width, m, n - width);
            TRY(lai_cl_ormqr(cl, 2, &v, &panel.tauq, &rest, &update));
        }
    }
    return lai_cl_flush(cl);
}
