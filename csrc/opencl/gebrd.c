/* Reduction to upper bidiagonal form, one-stage, blocked as LAPACK's gebrd and labrd: panels in one pass over the rest of the
 * matrix a column where a group can hold a column (cl/svd/sweep.cl), in two where it cannot (cl/svd/reduction.cl). */
#include "opencl/panel.h"

/* As in cl/svd/sweep.cl. */
enum { ROWS = 32, ITEMS = 256 };

enum {
    MOST_ROWS = 32 * ITEMS,     /* of a column that a group holds; half as many of the longest numbers */
    GROUPS = 132,               /* of a sweep: as many as a large device has compute units */
    COLUMNS_A_FLUSH = 8
};

typedef struct {
    lai_matrix a, d, e, tauq, taup;                     /* what the panel reduces, from its first row and column on */
    lai_matrix vx, yu, c, r, w, of_column, of_sweep;
    lai_matrix counter;                                 /* of the groups that have waited for each other, and so many have */
    int arrived;
} lai_sweep;

static int most_rows(int dtype)
{
    return dtype == LAI_COMPLEX128 ? MOST_ROWS / 2 : MOST_ROWS;
}

static void take_sweep(lai_sweep *sweep, lai_workspace *work, int dtype, int m, int n)
{
    const int sums = 2 * panel_width(dtype);
    sweep->vx = take(work, m, sums);
    sweep->yu = take(work, sums, n);
    sweep->c = take(work, m, 1);
    sweep->r = take(work, n, 1);
    sweep->w = take(work, m, GROUPS);
    sweep->of_column = take(work, sums, pieces(m, ROWS));
    sweep->of_sweep = take(work, sums, GROUPS);
}

/* The columns behind a panel. */
static int64_t update_work(int dtype, int m, int n)
{
    return components(dtype) > 1 ? lai_cl_gemm_work(dtype, 1, m, n, 2 * panel_width(dtype)) : 0;
}

int64_t lai_cl_gebrd_work(int dtype, int m, int n)
{
    lai_sweep sweep;
    lai_panel panel;
    lai_workspace query = { NULL, 0 }, of_panels = { NULL, 0 };
    take_sweep(&sweep, &query, dtype, (int)least(m, most_rows(dtype)), (int)least(n, most_rows(dtype)));
    if (m > most_rows(dtype))
        lai_panel_take(&panel, &of_panels, dtype, m, n, panel_width(dtype), 1);
    return most(query.next, of_panels.next) + update_work(dtype, m, n) + 1;
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

/* The kernel whose items have so many rows each, of LAI_CL_SWEEP_2 or of LAI_CL_SWEEP_PANEL_2 and those behind it. */
static enum lai_cl_kernel kernel_for(enum lai_cl_kernel first, int rows)
{
    const int64_t rows_an_item = pieces(rows, ITEMS);
    return first + (rows_an_item <= 2 ? 0 : rows_an_item <= 4 ? 1 : rows_an_item <= 8 ? 2 : rows_an_item <= 16 ? 3 : 4);
}

static int sweep_rest(const lai_opencl *cl, const lai_sweep *sweep, int j)
{
    const int m = sweep->a.rows, n = sweep->a.columns;
    return launch(cl, kernel_for(LAI_CL_SWEEP_2, m - j - 1), ((lai_groups){ sweep_groups(sweep, j), 1, 1 }),
                  INT(m), INT(n), INT(j), INT((int)pieces(m - j, ROWS)), MATRIX(&sweep->a), MATRIX(&sweep->vx),
                  MATRIX(&sweep->yu), VECTOR(&sweep->c), MATRIX(&sweep->of_column), VECTOR(&sweep->r), MATRIX(&sweep->w),
                  MATRIX(&sweep->of_sweep), VECTOR(&sweep->d), VECTOR(&sweep->tauq));
}

static int sweep_columns(const lai_opencl *cl, const lai_sweep *sweep, int width)
{
    for (int j = 0; j < width; j++) {
        TRY(sweep_column(cl, sweep, j));
        TRY(sweep_rest(cl, sweep, j));
        if (j % COLUMNS_A_FLUSH == 0)
            TRY(lai_cl_flush(cl));
    }
    return width < sweep->a.columns ? sweep_column(cl, sweep, width) : CL_SUCCESS; /* the last columns of X and U */
}

/* The same by one launch. */
static int sweep_panel(const lai_opencl *cl, lai_sweep *sweep, int width)
{
    const int m = sweep->a.rows, n = sweep->a.columns;
    const int groups = (int)least(least(GROUPS, cl->waiting_groups), most(n - 1, pieces(m, ROWS)));
    const int before = sweep->arrived;
    sweep->arrived += 2 * width * groups;
    TRY(launch(cl, kernel_for(LAI_CL_SWEEP_PANEL_2, m - 1), ((lai_groups){ groups, 1, 1 }),
               INT(m), INT(n), INT(width), INT(before), MATRIX(&sweep->a), MATRIX(&sweep->vx), MATRIX(&sweep->yu),
               VECTOR(&sweep->c), MATRIX(&sweep->of_column), VECTOR(&sweep->r), MATRIX(&sweep->w), MATRIX(&sweep->of_sweep),
               VECTOR(&sweep->d), VECTOR(&sweep->e), VECTOR(&sweep->tauq), VECTOR(&sweep->taup), VECTOR(&sweep->counter)));
    return lai_cl_flush(cl);
}

/* The panel at the top left corner of `rest`, which is `k` columns into the matrix; then the columns behind it. */
static int reduce_in_one_pass(const lai_opencl *cl, lai_sweep *sweep, const lai_matrix *p, int width,
                              const lai_matrix *work)
{
    const int m = sweep->a.rows, n = sweep->a.columns, panel = panel_width(cl->dtype), sums = 2 * panel;
    TRY(cl->waiting_groups > 0 ? sweep_panel(cl, sweep, width) : sweep_columns(cl, sweep, width));
    if (width < n) {
        const lai_matrix rest = part(&sweep->a, width, width, m - width, n - width);
        const lai_matrix vx = part(&sweep->vx, width, 0, m - width, sums);
        const lai_matrix yu = part(&sweep->yu, 0, width, sums, n - width);
        TRY(lai_cl_gemm(cl, 0, 0, -1, &vx, &yu, 1, &rest, work));
    }
    const int reflectors = (int)least(width, n - 1);
    const lai_matrix u = part(&sweep->yu, panel, 0, reflectors, n), of_p = part(p, 0, 0, n, reflectors);
    return lai_cl_lascl(cl, 1, 0, &u, &of_p);
}

/* ---- two passes a column, for columns that are too long ---------------------------------------------- */

static int reduce_in_two_passes(const lai_opencl *cl, const lai_panel *panel, int width, const lai_matrix *work)
{
    const int m = panel->a.rows, n = panel->a.columns, sums = 2 * panel_width(cl->dtype);
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
        const lai_matrix vx = part(&panel->vx, width, 0, m - width, sums);
        const lai_matrix yu = part(&panel->yu, width, 0, n - width, sums);
        TRY(lai_panel_column(cl, panel, width, width));    /* the last column of X */
        TRY(lai_cl_gemm(cl, 0, 1, -1, &vx, &yu, 1, &rest, work));
    }
    return CL_SUCCESS;
}

/* ---- the matrix ---------------------------------------------------------------------------------------- */

int lai_cl_gebrd(const lai_opencl *cl, const lai_matrix *a, const lai_matrix *p, const lai_matrix *d,
                 const lai_matrix *e, const lai_matrix *tauq, const lai_matrix *taup, const lai_matrix *work)
{
    const int panel_columns = panel_width(cl->dtype);
    lai_workspace space = { work->buffer, work->offset };
    TRY(suffices(work, lai_cl_gebrd_work(cl->dtype, a->rows, a->columns)));
    const lai_matrix update = take(&space, update_work(cl->dtype, a->rows, a->columns), 1);
    lai_sweep sweep = { .counter = take(&space, 1, 1) };
    if (cl->waiting_groups > 0)
        TRY(lai_cl_laset(cl, 0, 0, &sweep.counter));

    for (int k = 0; k < a->columns; k += panel_columns) {
        const int m = a->rows - k, n = a->columns - k, width = (int)least(panel_columns, n);
        const lai_matrix rest = part(a, k, k, m, n), of_p = part(p, k, k, n, n);
        const lai_matrix of_d = part(d, k, 0, n, 1), of_e = part(e, k, 0, n - 1, 1);
        const lai_matrix of_tauq = part(tauq, k, 0, n, 1), of_taup = part(taup, k, 0, n - 1, 1);
        lai_workspace of_panel = space;
        if (m <= most_rows(cl->dtype)) {
            sweep.a = rest, sweep.d = of_d, sweep.e = of_e, sweep.tauq = of_tauq, sweep.taup = of_taup;
            take_sweep(&sweep, &of_panel, cl->dtype, m, n);
            TRY(reduce_in_one_pass(cl, &sweep, &of_p, width, &update));
        } else {
            lai_panel panel;
            lai_panel_take(&panel, &of_panel, cl->dtype, m, n, panel_columns, 1);
            panel.r.ld = 1;     /* a row */
            panel.a = rest, panel.p = of_p, panel.d = of_d, panel.e = of_e, panel.tauq = of_tauq, panel.taup = of_taup;
            TRY(reduce_in_two_passes(cl, &panel, width, &update));
        }
    }
    return lai_cl_flush(cl);
}
