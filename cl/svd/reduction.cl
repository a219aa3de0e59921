/* Householder panels: reduction to upper bidiagonal form (gebrd), one side alone for QR (geqrf).
 *
 * A reflector H = I - tau (1 v)(1 v)' has H' (head, tail) = (beta, 0):
 *     beta = -sign(head) |(head, tail)|,  tau = (beta - head) / beta,  v = tail / (head - beta).
 * ' is the conjugate transpose. Of complex vectors tau is complex, too, but beta is real, with the opposite sign of the
 * head's real part: bidiagonal matrices are real (LAPACK's zlarfg). A right reflector is made of a row r as it stands,
 * u' = scale r, and kept as the column u'^T: such columns make P in A = Q B P^T (^T: no conjugate), so that
 * nobody has to conjugate V in A = U S V^T.
 *
 * Within a panel the trailing matrix T (m x n, what was left when the panel began) stays as it was. The
 * reflectors so far are kept aside: left ones V, right ones U, and the products Y, X with which
 *
 *     the matrix is    T - V Y' - X U',   the rows Y' and U' being what is kept.
 *
 * Column j takes four launches, since each needs sums over all of the one before:
 *
 *   panel_column    x_{j-1} = taup' (T u - V (Y'u) - X (U'u))       finishes the previous column
 *                   c = T_j - V Y(j,:)' - X U(j,:)'                 column j, and |its tail|^2 by groups
 *   panel_left      the left reflector v of c; t = v'T for the columns behind, v'V, v'X
 *   panel_row       y_j' = tauq' (t - (v'V) Y' - (v'X) U')
 *                   r = T(j,:) - V(j,:) Y' - X(j,:) U' - y_j'       row j behind the diagonal, |its tail|^2
 *   panel_right     the right reflector u of r; T u, Y'u, U'u
 *
 * Afterwards T -= [V X] [Y U]' is one product of matrices (csrc/opencl/gebrd.c). Every group computes the
 * reflector for itself from the parts of |tail|^2, in the same order and hence to the same bits.
 *
 * Storage, all relative to the panel's first row and column: vx = [V X] is m x 2 PANEL, yu = [Y' U']^T is
 * n x 2 PANEL; leading 1s of V and U are explicit, what lies above them is not defined. `left` and
 * `right` count the finished columns of V (and Y) and of U; X lags one behind, panel_column adds it.
 * A QR panel runs the first three with right = 0 and n = its own width.
 */

#define PANEL (32 / COMPONENTS) /* columns of a panel at most, as in csrc/opencl/panel.h: so many bytes fit registers */
#define SPAN 64     /* rows of a group of panel_column, columns of a group of panel_row */
#define SLICES 4    /* items that share such a row */
#define ITEMS 256   /* SPAN * SLICES */
#define LANES 32    /* items that share a dot product in panel_left */
#define COLUMNS 8   /* dot products of a group of panel_left: ITEMS / LANES */

typedef struct {
    real beta;
    scalar tau, scale; /* v = scale * tail */
} reflector;

/* Squares of numbers below sqrt(tiny) are inexact or vanish, and a norm from such squares makes H far
 * from orthogonal. The whole matrix is scaled to max |a_ij| in [1/2, 1): a tail below sqrt(tiny) / eps counts
 * as zero, which changes the matrix by far less than eps. */
#ifdef COMPLEX
reflector householder(scalar head, scalar tail_squared)
{
    reflector h = {head.x, ZERO, ZERO};
    const real rest = tail_squared.x + head.y * head.y;
    if (rest > REAL_TINY / REAL_EPSILON / REAL_EPSILON) {
        h.beta = -copysign(sqrt(head.x * head.x + rest), head.x);
        h.tau = (SCALAR(h.beta) - head) / h.beta;
        const scalar difference = head - SCALAR(h.beta);
        h.scale = CONJ(difference) / ABS_SQUARED(difference);
    }
    return h;
}
#else
reflector householder(real head, real tail_squared)
{
    reflector h = {head, 0, 0};
    if (tail_squared > REAL_TINY / REAL_EPSILON / REAL_EPSILON) {
        h.beta = -copysign(sqrt(head * head + tail_squared), head);
        h.tau = (h.beta - head) / h.beta;
        h.scale = 1 / (head - h.beta);
    }
    return h;
}
#endif

/* sums[0] = |tail|^2 from the parts that the launch before left. */
#define SUM_PARTS(sums, squares, parts, id)             \
    scalar part_ = ZERO;                                \
    for (int k_ = (id); k_ < (parts); k_ += ITEMS)      \
        part_ += ELEMENT(squares, k_);                  \
    sums[id] = part_;                                   \
    SUM_IN_GROUP(scalar, sums, 16, id)

/* Items: 64 rows x 4 slices of the panel's columns. Groups: (m - j) / 64.
 * In: t_u = the `chunks` parts of T u, y_u = (Y'u, U'u). Out: column right - 1 of X, c, squares[group]. */
__kernel __attribute__((reqd_work_group_size(SPAN, SLICES, 1)))
void panel_column(int m, int j, int left, int right, int chunks, MATRIX(a), MATRIX(vx), MATRIX(yu),
                  VECTOR(taup), MATRIX(t_u), VECTOR(y_u), VECTOR(c), VECTOR(squares))
{
    __local scalar to_c[2 * PANEL], to_x[2 * PANEL]; /* what the columns of [V X] count in c and in x */
    __local scalar sums_c[SLICES][SPAN], sums_x[SLICES][SPAN];
    __local real tails[SPAN];
    const int row = get_local_id(0), slice = get_local_id(1), id = row + SPAN * slice;
    const int i = j + get_group_id(0) * SPAN + row;
    const int known = max(right - 1, 0); /* columns of X */

    if (id < left) {
        to_c[id] = AT(yu, j, id);
        to_x[id] = right > 0 ? ELEMENT(y_u, id) : ZERO;
    }
    if (id < known) {
        to_c[PANEL + id] = AT(yu, j, PANEL + id);
        to_x[PANEL + id] = ELEMENT(y_u, left + id);
    }
    barrier(CLK_LOCAL_MEM_FENCE);

    scalar sum_c = ZERO, sum_x = ZERO;
    if (i < m) {
        for (int l = slice; l < left; l += SLICES) {
            const scalar v = AT(vx, i, l);
            ADD_PRODUCT(sum_c, v, to_c[l]);
            ADD_PRODUCT(sum_x, v, to_x[l]);
        }
        for (int l = PANEL + slice; l < PANEL + known; l += SLICES) {
            const scalar x = AT(vx, i, l);
            ADD_PRODUCT(sum_c, x, to_c[l]);
            ADD_PRODUCT(sum_x, x, to_x[l]);
        }
        sum_x = -sum_x;
        for (int s = slice; s < chunks; s += SLICES)
            sum_x += AT(t_u, i, s);
    }
    sums_c[slice][row] = sum_c;
    sums_x[slice][row] = sum_x;
    barrier(CLK_LOCAL_MEM_FENCE);

    if (slice == 0) {
        scalar tail = ZERO;
        if (i < m) {
            for (int s = 1; s < SLICES; s++) {
                sum_c += sums_c[s][row];
                sum_x += sums_x[s][row];
            }
            scalar value = AT(a, i, j) - sum_c;
            if (right > 0) {
                const scalar x = TIMES(CONJ(ELEMENT(taup, right - 1)), sum_x);
                AT(vx, i, PANEL + right - 1) = x;
                value -= x; /* u's leading 1 is at j */
            }
            ELEMENT(c, i) = value;
            tail = i > j ? value : ZERO;
        }
        tails[row] = ABS_SQUARED(tail);
    }
    SUM_IN_GROUP(real, tails, 8, id)
    if (id == 0)
        ELEMENT(squares, get_group_id(0)) = SCALAR(tails[0]);
}

/* Items: 32 rows x 8 dot products. Groups: (chunks of `chunk` rows from j on, dot products / 8); the dot
 * products are those of v with the columns of T behind j, then of V, then of X.
 * In: c, squares. Out: dots (dot product, chunk); row = T(j, j+1:); v to vx and, below the diagonal, to a;
 * beta to the diagonal of a and to d; tau. */
__kernel __attribute__((reqd_work_group_size(LANES, COLUMNS, 1)))
void panel_left(int m, int n, int j, int left, int right, int chunk, int parts, MATRIX(a), MATRIX(vx),
                VECTOR(c), VECTOR(squares), MATRIX(dots), VECTOR(row), REAL_VECTOR(d), VECTOR(tau))
{
    __local scalar sums[ITEMS];
    __local scalar products[COLUMNS][LANES];
    const int lane = get_local_id(0), column = get_local_id(1), id = lane + LANES * column;
    const int begin = j + get_group_id(0) * chunk, end = min(m, begin + chunk);
    const int behind = n - j - 1;
    const int which = get_group_id(1) * COLUMNS + column;

    SUM_PARTS(sums, squares, parts, id)
    const reflector h = householder(ELEMENT(c, j), sums[0]);

    __global const scalar *factor = which < behind ? &AT(a, 0, j + 1 + which)
        : which < behind + left ? &AT(vx, 0, which - behind) : &AT(vx, 0, PANEL + which - behind - left);
    scalar sum = ZERO;
    if (which < behind + left + right)
        for (int i = begin + lane; i < end; i += LANES)
            ADD_PRODUCT(sum, factor[i], (i == j ? SCALAR(1) : CONJ(TIMES(h.scale, ELEMENT(c, i)))));
    products[column][lane] = sum;
    for (int half_ = LANES / 2; half_ > 0; half_ /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (lane < half_)
            products[column][lane] += products[column][lane + half_];
    }
    if (lane == 0 && which < behind + left + right) {
        AT(dots, which, get_group_id(0)) = products[column][0];
        if (begin == j && which < behind)
            ELEMENT(row, which) = factor[j];
    }

    if (get_group_id(1) == 0) {
        for (int i = begin + id; i < end; i += ITEMS) {
            const scalar v = i == j ? SCALAR(1) : TIMES(h.scale, ELEMENT(c, i));
            AT(vx, i, left) = v;
            AT(a, i, j) = i == j ? SCALAR(h.beta) : v;
        }
        if (begin == j && id == 0) {
            ELEMENT(d, j) = h.beta;
            ELEMENT(tau, j) = h.tau;
        }
    }
}

/* Items: 64 columns behind j x 4 slices of the panel's columns. Groups: (n - j - 1) / 64.
 * In: dots (by chunks), row. Out: column `left` of Y, r (1 x (n - j - 1)), squares[group]. */
__kernel __attribute__((reqd_work_group_size(SPAN, SLICES, 1)))
void panel_row(int n, int j, int left, int right, int chunks, MATRIX(vx), MATRIX(yu), MATRIX(dots),
               VECTOR(row), VECTOR(tau), MATRIX(r), VECTOR(squares))
{
    __local scalar to_y[2 * PANEL], to_r[2 * PANEL]; /* what the columns of [Y U] count in y and in r */
    __local scalar sums_y[SLICES][SPAN], sums_r[SLICES][SPAN];
    __local real tails[SPAN];
    const int column = get_local_id(0), slice = get_local_id(1), id = column + SPAN * slice;
    const int behind = n - j - 1;
    const int q = get_group_id(0) * SPAN + column, l = j + 1 + q;

    if (id < left + right) {
        const int place = id < left ? id : PANEL + id - left;
        scalar sum = ZERO;
        for (int s = 0; s < chunks; s++)
            sum += AT(dots, behind + id, s);
        to_y[place] = sum;
        to_r[place] = AT(vx, j, place);
    }
    barrier(CLK_LOCAL_MEM_FENCE);

    scalar sum_y = ZERO, sum_r = ZERO;
    if (q < behind) {
        for (int k = slice; k < left; k += SLICES) {
            const scalar y = AT(yu, l, k);
            ADD_PRODUCT(sum_y, y, to_y[k]);
            ADD_PRODUCT(sum_r, y, to_r[k]);
        }
        for (int k = PANEL + slice; k < PANEL + right; k += SLICES) {
            const scalar u = AT(yu, l, k);
            ADD_PRODUCT(sum_y, u, to_y[k]);
            ADD_PRODUCT(sum_r, u, to_r[k]);
        }
        sum_y = -sum_y;
        for (int s = slice; s < chunks; s += SLICES)
            sum_y += AT(dots, q, s);
    }
    sums_y[slice][column] = sum_y;
    sums_r[slice][column] = sum_r;
    barrier(CLK_LOCAL_MEM_FENCE);

    if (slice == 0) {
        scalar tail = ZERO;
        if (q < behind) {
            for (int s = 1; s < SLICES; s++) {
                sum_y += sums_y[s][column];
                sum_r += sums_r[s][column];
            }
            const scalar y = TIMES(CONJ(ELEMENT(tau, j)), sum_y);
            const scalar value = ELEMENT(row, q) - sum_r - y; /* v's leading 1 is at j */
            AT(yu, l, left) = y;
            AT(r, 0, q) = value;
            tail = q > 0 ? value : ZERO;
        }
        tails[column] = ABS_SQUARED(tail);
    }
    SUM_IN_GROUP(real, tails, 8, id)
    if (id == 0)
        ELEMENT(squares, get_group_id(0)) = SCALAR(tails[0]);
}

/* Items: 256. Groups: first blocks * chunks, each 256 rows behind j times `width` columns behind j, for T u;
 * then one for each column of Y and of U (whose counts are `left` and `right` here), for Y'u and U'u.
 * In: r, squares. Out: t_u (row, chunk), y_u; u to yu and p; beta to e; tau. */
__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1)))
void panel_right(int m, int n, int j, int left, int right, int blocks, int chunks, int width, int parts,
                 MATRIX(a), MATRIX(yu), VECTOR(r), VECTOR(squares), MATRIX(t_u), VECTOR(y_u), MATRIX(p),
                 REAL_VECTOR(e), VECTOR(tau))
{
    __local scalar sums[ITEMS], u[ITEMS]; /* u' */
    const int id = get_local_id(0), group = get_group_id(0);
    const int behind = n - j - 1;
    const int products = blocks * chunks;
    const int block = group % blocks, chunk = group / blocks;
    const int begin = chunk * width, count = group < products ? min(width, behind - begin) : 0;

    SUM_PARTS(sums, squares, parts, id)
    const reflector h = householder(ELEMENT(r, 0), sums[0]);

    if (id < count) {
        const int q = begin + id;
        u[id] = q == 0 ? SCALAR(1) : TIMES(h.scale, ELEMENT(r, q));
        if (block == 0) {
            AT(yu, j + 1 + q, PANEL + right) = u[id];
            AT(p, j + 1 + q, j) = u[id];
        }
    }
    if (group == 0 && id == 0) {
        ELEMENT(e, j) = h.beta;
        ELEMENT(tau, j) = h.tau;
    }
    barrier(CLK_LOCAL_MEM_FENCE);

    const int i = j + 1 + block * ITEMS + id;
    scalar sum = ZERO;
    if (group < products) {
        if (i < m) {
            for (int w = 0; w < count; w++)
                ADD_PRODUCT(sum, AT(a, i, j + 1 + begin + w), CONJ(u[w]));
            AT(t_u, i, chunk) = sum;
        }
    } else {
        const int which = group - products;
        const int column = which < left ? which : PANEL + which - left;
        for (int q = id; q < behind; q += ITEMS)
            ADD_PRODUCT(sum, AT(yu, j + 1 + q, column), (q == 0 ? SCALAR(1) : CONJ(TIMES(h.scale, ELEMENT(r, q)))));
    }
    sums[id] = sum;
    SUM_IN_GROUP(scalar, sums, 16, id)
    if (group >= products && id == 0)
        ELEMENT(y_u, group - products) = sums[0];
}
