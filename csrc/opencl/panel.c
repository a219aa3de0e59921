#include "opencl/panel.h"

/* As in cl/svd/reduction.cl. */
enum { SPAN = 64, ITEMS = 256, LANES = 32, COLUMNS = 8 };

/* Work for at least this many rows, or columns, goes into one part of a sum. */
enum { MIN_ROWS = 256, MIN_COLUMNS = 16 };

/* How panel_left cuts the rows of a panel into chunks. */
static int row_chunk(const lai_opencl *cl, const lai_panel *panel)
{
    const int64_t rows = panel->a.rows, groups = pieces(panel->a.columns + 2 * panel_width(cl->dtype), COLUMNS);
    const int64_t chunks = most(1, least(LAI_MANY_GROUPS / groups, pieces(rows, MIN_ROWS)));
    return (int)(pieces(pieces(rows, chunks), LANES) * LANES);
}

/* How panel_right cuts the columns of a panel into chunks. */
static int column_chunk(const lai_panel *panel)
{
    const int64_t columns = panel->a.columns, blocks = pieces(panel->a.rows, ITEMS);
    const int64_t chunks = least(LAI_MANY_GROUPS / blocks, pieces(columns, MIN_COLUMNS));
    return (int)pieces(columns, most(chunks, pieces(columns, ITEMS)));
}

void lai_panel_take(lai_panel *panel, lai_workspace *work, int dtype, int m, int n, int left, int both_sides)
{
    const int sums = 2 * panel_width(dtype);
    panel->vx = take(work, m, both_sides ? sums : left);
    panel->yu = take(work, n, sums);
    panel->c = take(work, m, 1);
    panel->r = take(work, n, 1);
    panel->row = take(work, n, 1);
    panel->y_u = take(work, sums, 1);
    panel->squares = take(work, pieces(most(m, n), SPAN), 1);
    panel->dots = take(work, n + sums, least(LAI_MANY_GROUPS, pieces(m, MIN_ROWS)));
    /* rows * chunks: column_chunk makes the more chunks the fewer rows are left. */
    panel->t_u = both_sides ? take(work, most(m * pieces(n, ITEMS), ITEMS * LAI_MANY_GROUPS), 1) : panel->c;
}

int lai_panel_column(const lai_opencl *cl, const lai_panel *panel, int j, int right)
{
    const int m = panel->a.rows, n = panel->a.columns;
    const int chunks = right ? (int)pieces(n - j, column_chunk(panel)) : 0;
    return launch(cl, LAI_CL_PANEL_COLUMN, ((lai_groups){ pieces(m - j, SPAN), 1, 1 }),
                  INT(m), INT(j), INT(j), INT(right), INT(chunks), MATRIX(&panel->a), MATRIX(&panel->vx),
                  MATRIX(&panel->yu), VECTOR(&panel->taup), VECTOR(&panel->t_u), LONG(m), VECTOR(&panel->y_u),
                  VECTOR(&panel->c), VECTOR(&panel->squares));
}

int lai_panel_left(const lai_opencl *cl, const lai_panel *panel, int j, int right)
{
    const int m = panel->a.rows, n = panel->a.columns, chunk = row_chunk(cl, panel);
    const int products = n - j - 1 + j + right;
    return launch(cl, LAI_CL_PANEL_LEFT, ((lai_groups){ pieces(m - j, chunk), most(1, pieces(products, COLUMNS)), 1 }),
                  INT(m), INT(n), INT(j), INT(j), INT(right), INT(chunk), INT((int)pieces(m - j, SPAN)),
                  MATRIX(&panel->a), MATRIX(&panel->vx), VECTOR(&panel->c), VECTOR(&panel->squares),
                  MATRIX(&panel->dots), VECTOR(&panel->row), VECTOR(&panel->d), VECTOR(&panel->tauq));
}

int lai_panel_row(const lai_opencl *cl, const lai_panel *panel, int j, int right, const lai_matrix *r)
{
    const int m = panel->a.rows, n = panel->a.columns;
    return launch(cl, LAI_CL_PANEL_ROW, ((lai_groups){ pieces(n - j - 1, SPAN), 1, 1 }),
                  INT(n), INT(j), INT(j), INT(right), INT((int)pieces(m - j, row_chunk(cl, panel))),
                  MATRIX(&panel->vx), MATRIX(&panel->yu), MATRIX(&panel->dots), VECTOR(&panel->row),
                  VECTOR(&panel->tauq), MATRIX(r), VECTOR(&panel->squares));
}

int lai_panel_right(const lai_opencl *cl, const lai_panel *panel, int j)
{
    const int m = panel->a.rows, n = panel->a.columns, width = column_chunk(panel);
    const int blocks = (int)pieces(m - j - 1, ITEMS), chunks = (int)pieces(n - j - 1, width);
    const int left = j + 1, right = j;  /* columns of Y and of U */
    return launch(cl, LAI_CL_PANEL_RIGHT, ((lai_groups){ (int64_t)blocks * chunks + left + right, 1, 1 }),
                  INT(m), INT(n), INT(j), INT(left), INT(right), INT(blocks), INT(chunks), INT(width),
                  INT((int)pieces(n - j - 1, SPAN)), MATRIX(&panel->a), MATRIX(&panel->yu), VECTOR(&panel->r),
                  VECTOR(&panel->squares), VECTOR(&panel->t_u), LONG(m), VECTOR(&panel->y_u), MATRIX(&panel->p),
                  VECTOR(&panel->e), VECTOR(&panel->taup));
}
