/* Reduction to upper bidiagonal form, one-stage, blocked as LAPACK's gebrd and labrd. */
#include "opencl/panel.h"

enum { COLUMNS_A_FLUSH = 8 };

int64_t lai_cl_gebrd_work(int m, int n)
{
    lai_panel panel;
    lai_workspace query = { NULL, 0 };
    lai_panel_take(&panel, &query, m, n, PANEL, 1);
    return query.next;
}

static int reduce_panel(const lai_opencl *cl, const lai_panel *panel, int width)
{
    const int n = panel->a.columns;
    for (int j = 0; j < width; j++) {
        TRY(lai_panel_column(cl, panel, j, j));
        TRY(lai_panel_left(cl, panel, j, j));
        if (j + 1 < n) {
            TRY(lai_panel_row(cl, panel, j, j, &panel->r));
            TRY(lai_panel_right(cl, panel, j));
        }
        if (j % COLUMNS_A_FLUSH == 0)
            TRY(lai_cl_flush(cl));
    }
    return CL_SUCCESS;
}

int lai_cl_gebrd(const lai_opencl *cl, const lai_matrix *a, const lai_matrix *p, const lai_matrix *d,
                 const lai_matrix *e, const lai_matrix *tauq, const lai_matrix *taup, const lai_matrix *work)
{
    lai_workspace space = { work->buffer, work->offset };
    lai_panel panel;
    TRY(suffices(work, lai_cl_gebrd_work(a->rows, a->columns)));
    lai_panel_take(&panel, &space, a->rows, a->columns, PANEL, 1);
    panel.r.ld = 1;     /* a row */

    for (int k = 0; k < a->columns; k += PANEL) {
        const int m = a->rows - k, n = a->columns - k, width = (int)least(PANEL, n);
        panel.a = part(a, k, k, m, n);
        panel.p = part(p, k, k, n, n);
        panel.d = part(d, k, 0, n, 1);
        panel.e = part(e, k, 0, n - 1, 1);
        panel.tauq = part(tauq, k, 0, n, 1);
        panel.taup = part(taup, k, 0, n - 1, 1);
        TRY(reduce_panel(cl, &panel, width));
        if (width < n) {
            const lai_matrix rest = part(a, k + width, k + width, m - width, n - width);
            const lai_matrix vx = part(&panel.vx, width, 0, m - width, 2 * PANEL);
            const lai_matrix yu = part(&panel.yu, width, 0, n - width, 2 * PANEL);
            TRY(lai_panel_column(cl, &panel, width, width));    /* the last column of X */
            TRY(lai_cl_gemm(cl, 0, 1, -1, &vx, &yu, 1, &rest, NULL));
        }
    }
    return lai_cl_flush(cl);
}
