/* A panel of Householder reflectors on the device; the mathematics is in cl/svd/reduction.cl. */
#ifndef LAPACK_AI_OPENCL_PANEL_H
#define LAPACK_AI_OPENCL_PANEL_H

#include "opencl/launch.h"

/* Columns of a panel, as PANEL in cl/svd/reduction.cl. */
static inline int panel_width(int dtype)
{
    return 32 / components(dtype);
}

typedef struct {
    /* What the panel reduces, from its first row and column on; outputs likewise. */
    lai_matrix a, p, d, e, tauq, taup;
    /* [V X] and [Y U]; a column and a row of the matrix; sums and parts of sums. */
    lai_matrix vx, yu, c, r, row, dots, t_u, y_u, squares;
} lai_panel;

/* Hand out the workspace of panels, of which the first is m x n and all of them have n columns at most;
 * `left`: columns of V. Without right reflectors there are no X and no T u: they need no room, yet must be buffers. */
void lai_panel_take(lai_panel *panel, lai_workspace *work, int dtype, int m, int n, int left, int both_sides);

/* One launch each, for column j of the panel. `right`: how many right reflectors there are before it. */
int lai_panel_column(const lai_opencl *cl, const lai_panel *panel, int j, int right);
int lai_panel_left(const lai_opencl *cl, const lai_panel *panel, int j, int right);
int lai_panel_row(const lai_opencl *cl, const lai_panel *panel, int j, int right, const lai_matrix *r);
int lai_panel_right(const lai_opencl *cl, const lai_panel *panel, int j);

#endif
