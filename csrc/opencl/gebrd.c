/* Reduction to upper bidiagonal form, one-stage, blocked as LAPACK's gebrd and labrd: panels in one pass over the rest of the
 * matrix a column where a group can hold a column (cl/svd/sweep.cl), in two where it cannot (cl/svd/reduction.cl). */
#include "opencl/panel.h"

/* As in cl/svd/sweep.cl. */
enum { SUMS = 2 * PANEL, ROWS = 32, ITEMS = 256 };

enum {
    MOST_ROWS = 32 * ITEMS,     /* of a column that a group holds */
    GROUPS = 132,               /* of a sweep: as many as a large device has compute units */
    COLUMNS_A_FLUSH = 8
};

typedef struct {
    lai_matrix a, d, e, tauq, taup;                     /* what the panel reduces, from its first row and column on */
    lai_matrix vx, yu, c, r, w, of_column, of_sweep;
} lai_sweep;

static void take_sweep(lai_sweep *sweep, lai_workspace *work, int m, int n)
{
    sweep->vx = take(work, m, SUMS);
    sweep->yu = take(work, SUMS, n);
    sweep->c = take(work, m, 1);
    sweep->r = take(work, n, 1);
    sweep->w = take(work, m, GROUPS);
    sweep->of_column = take(work, SUMS, pieces(m, ROWS));
    sweep->of_sweep = take(work, SUMS, GROUPS);
}

int64_t lai_cl_gebrd_work(int m, int n)
{
    lai_sweep sweep;
    lai_panel panel;
    lai_workspace query = { NULL, 0 }, of_panels = { NULL, 0 };
    take_sweep(&sweep, &query, (int)least(m, MOST_ROWS), (int)least(n, MOST_ROWS));
    if (m > MOST_ROWS)
        lai_panel_take(&panel, &of_panels, m, n, PANEL, 1);
    return most(query.next, of_panels.next);
}

/* ---- one pass a column ---------------------------------------------------------------------------- */

static int64_t sweep_groups(const lai_sweep *sweep, int j)
{
    return most(1, least(GROUPS, sweep->a.columns - j - 1));
}

static int sweep_column(const lai_opencl *cl, const lai_sweep *sweep, int j)
{
    const int m = sweep->a.rows, n = sweep->a.columns;
    return launch(cl, LAI_CL_SWEEP_COLUMN, ((lai_groups){ pieces(m - j, ROWS), 1, 1 }),
                  INT(m), INT(n), INT(j), INT((int)sweep_groups(sweep, j - 1)), MATRIX(&sweep->a), MATRIX(&sweep->vx),
                  MATRIX(&sweep->yu), VECTOR(&sweep->r), MATRIX(&sweep->w), MATRIX(&sweep->of_sweep), VECTOR(&sweep->c),
                  MATRIX(&sweep->of_column), VECTOR(&sweep->e), VECTOR(&sweep->taup));
}

static int sweep_rest(const lai_opencl *cl, const lai_sweep *sweep, int j)
{
    const int m = sweep->a.rows, n = sweep->a.columns;
    const int64_t rows_an_item = pieces(m - j - 1, ITEMS);
    const enum lai_cl_kernel kernel = rows_an_item <= 2 ? LAI_CL_SWEEP_2 : rows_an_item <= 4 ? LAI_CL_SWEEP_4
        : rows_an_item <= 8 ? LAI_CL_SWEEP_8 : rows_an_item <= 16 ? LAI_CL_SWEEP_16 : LAI_CL_SWEEP_32;
    return launch(cl, kernel, ((lai_groups){ sweep_groups(sweep, j), 1, 1 }),
                  INT(m), INT(n), INT(j), INT((int)pieces(m - j, ROWS)), MATRIX(&sweep->a), MATRIX(&sweep->vx),
                  MATRIX(&sweep->yu), VECTOR(&sweep->c), MATRIX(&sweep->of_column), VECTOR(&sweep->r), MATRIX(&sweep->w),
                  MATRIX(&sweep->of_sweep), VECTOR(&sweep->d), VECTOR(&sweep->tauq));
}

/* The panel at the top left corner of `rest`, which is `k` columns into the matrix; then the columns behind it. */
static int reduce_in_one_pass(const lai_opencl *cl, lai_sweep *sweep, const lai_matrix *p, int width)
{
    const int m = sweep->a.rows, n = sweep->a.columns;
    for (int j = 0; j < width; j++) {
        TRY(sweep_column(cl, sweep, j));
        TRY(sweep_rest(cl, sweep, j));
        if (j % COLUMNS_A_FLUSH == 0)
            TRY(lai_cl_flush(cl));
    }
    if (width < n) {
        const lai_matrix rest = part(&sweep->a, width, width, m - width, n - width);
        const lai_matrix vx = part(&sweep->vx, width, 0, m - width, SUMS), yu = part(&sweep->yu, 0, width, SUMS, n - width);
        TRY(sweep_column(cl, sweep, width));    /* the last columns of X and U */
        TRY(lai_cl_gemm(cl, 0, 0, -1, &vx, &yu, 1, &rest, NULL));
    }
    const int reflectors = (int)least(width, n - 1);
    const lai_matrix u = part(&sweep->yu, PANEL, 0, reflectors, n), of_p = part(p, 0, 0, n, reflectors);
    return lai_cl_lascl(cl, 1, 0, &u, &of_p);
}

/* ---- two passes a column, for columns that are too long ---------------------------------------------- */

static int reduce_in_two_passes(const lai_opencl *cl, const lai_panel *panel, int width)
{
    const int m = panel->a.rows, n = panel->a.columns;
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
    if (width < n) {
        const lai_matrix rest = part(&panel->a, width, width, m - width, n - width);
        const lai_matrix vx = part(&panel->vx, width, 0, m - width, SUMS);
        const lai_matrix yu = part(&panel->yu, width, 0, n - width, SUMS);
        TRY(lai_panel_column(cl, panel, width, width));    /* the last column of X */
        TRY(lai_cl_gemm(cl, 0, 1, -1, &vx, &yu, 1, &rest, NULL));
    }
    return CL_SUCCESS;
}

/* ---- the matrix ---------------------------------------------------------------------------------------- */

int lai_cl_gebrd(const lai_opencl *cl, const lai_matrix *a, const lai_matrix *p, const lai_matrix *d,
                 const lai_matrix *e, const lai_matrix *tauq, const lai_matrix *taup, const lai_matrix *work)
{
    const lai_workspace space = { work->buffer, work->offset };
    TRY(suffices(work, lai_cl_gebrd_work(a->rows, a->columns)));

    for (int k = 0; k < a->columns; k += PANEL) {
        const int m = a->rows - k, n = a->columns - k, width = (int)least(PANEL, n);
        const lai_matrix rest = part(a, k, k, m, n), of_p = part(p, k, k, n, n);
        const lai_matrix of_d = part(d, k, 0, n, 1), of_e = part(e, k, 0, n - 1, 1);
        const lai_matrix of_tauq = part(tauq, k, 0, n, 1), of_taup = part(taup, k, 0, n - 1, 1);
        lai_workspace of_panel = space;
        if (m <= MOST_ROWS) {
            lai_sweep sweep = { .a = rest, .d = of_d, .e = of_e, .tauq = of_tauq, .taup = of_taup };
            take_sweep(&sweep, &of_panel, m, n);
            TRY(reduce_in_one_pass(cl, &sweep, &of_p, width));
        } else {
            lai_panel panel;
            lai_panel_take(&panel, &of_panel, m, n, PANEL, 1);
            panel.r.ld = 1;     /* a row */
            panel.a = rest, panel.p = of_p, panel.d = of_d, panel.e = of_e, panel.tauq = of_tauq, panel.taup = of_taup;
            TRY(reduce_in_two_passes(cl, &panel, width));
        }
    }
    return lai_cl_flush(cl);
}
