/* Reduction to upper bidiagonal form, one pass over the trailing matrix a column (G. W. Howell et al., "Cache efficient
 * bidiagonalization using BLAS 2.5 operators", ACM TOMS 34(3), 2008). What a panel is, and reflectors: reduction.cl.
 *
 * Its panel_left reads T for t = T'v, its panel_right again for T u. Yet of a column T_l all that u's part needs
 * is known as soon as t_l = T_l'v is: the row's new entry r_l. So the same visit, while T_l is in registers, adds T_l r_l to
 *
 *     w = T r',   and   u' = (r - beta e_1') / (r_1 - beta)   gives   T u = (w - beta T_1) / (r_1 - beta)'.
 *
 * r_1 and beta have opposite signs: nothing cancels. Column j takes two launches:
 *
 *   sweep_column    the right reflector u of r, from sums over it; x_{j-1} = taup' (T u - V (Y'u) - X (U'u)); u' itself
 *                   c = T_j - V Y(j,:)' - X U(j,:)'         column j; sums of squares, c'V, c'X by groups, tails alone
 *   sweep           the left reflector v of c, hence v'V, v'X; for every column l behind j
 *                     y_l' = tauq' (v'T_l - (v'V) Y(l,:)' - (v'X) U(l,:)')
 *                     r_l = T(j,l) - V(j,:) Y(l,:)' - X(j,:) U(l,:)' - y_l'
 *                     w += T_l r_l'                         by groups; and sums of squares, Y'r', U'r'
 *
 * Storage is that of reduction.cl, but yu = [Y U]' is 2 PANEL x n: a column of it is what one l needs. Sums are
 * 2 PANEL x groups: first those with V or Y, from PANEL on those with X or U, last the sum of squares, whose place is free
 * as long as sums are wanted. All sums have one order.
 */

#define SUMS (2 * PANEL)
#define SQUARES (SUMS - 1)
#define ROWS 32     /* of a group of sweep_column */
#define PARTS 8     /* ITEMS / ROWS: items that share such a row */

/* totals[s] = the sum of row s of `parts`, SUMS x count. Unrolled, so that many loads are on their way at once. */
#define ADD_PARTS(totals, scratch, parts, count, id)                        \
    {                                                                       \
        scalar sum_ = ZERO;                                                 \
        _Pragma("unroll 16")                                                \
        for (int k_ = (id) / SUMS; k_ < (count); k_ += ITEMS / SUMS)        \
            sum_ += AT(parts, (id) % SUMS, k_);                             \
        scratch[id] = sum_;                                                 \
    }                                                                       \
    barrier(CLK_LOCAL_MEM_FENCE);                                           \
    if ((id) < SUMS) {                                                      \
        scalar sum_ = ZERO;                                                 \
        for (int k_ = (id); k_ < ITEMS; k_ += SUMS)                         \
            sum_ += scratch[k_];                                            \
        totals[id] = sum_;                                                  \
    }                                                                       \
    barrier(CLK_LOCAL_MEM_FENCE);

/* Local memory of a group. */
typedef struct {
    scalar scratch[ITEMS], totals[SUMS], to_c[SUMS], to_x[SUMS];
    scalar sums_c[PARTS][ROWS], sums_x[PARTS][ROWS], tail[ROWS], of_vx[SUMS][ROWS + 1];
} column_room;

/* Items: 32 rows from j on, which are the `block`-th, x 8 parts of the sums of each. `groups`: of the sweep before.
 * In: r, w, of_sweep. Out: column j - 1 of X and of U, e, taup; c, of_column. Behind a panel's last column, the first line alone. */
void sweep_column_block(int block, __local column_room *room, int m, int n, int j, int groups, MATRIX(a), MATRIX(vx), MATRIX(yu),
                        VECTOR(r), MATRIX(w), MATRIX(of_sweep), VECTOR(c), MATRIX(of_column), REAL_VECTOR(e), VECTOR(tau))
{
    const int id = get_local_id(0), row = id % ROWS, part = id / ROWS, i = j + block * ROWS + row;

    scalar own[SUMS / PARTS], sum_w = ZERO; /* everything from memory first */
    _Pragma("unroll") for (int k = 0; k < SUMS / PARTS; k++) {
        const int s = part + PARTS * k;
        own[k] = i < m && (s < j || (s >= PANEL && s < PANEL + j - 1)) ? AT(vx, i, s) : ZERO; /* X lags one behind */
    }
    const scalar t = i < m && part == 0 ? AT(a, i, j) : ZERO;
    const scalar here = id < j || (id >= PANEL && id < PANEL + j - 1) ? AT(yu, id, j) : ZERO; /* U, too */
    if (j > 0 && i < m) {
        _Pragma("unroll 16") for (int g = part; g < groups; g += PARTS)
            sum_w += AT(w, i, g);
    }
    ADD_PARTS(room->totals, room->scratch, of_sweep, j > 0 ? groups : 0, id)
    const reflector h = householder(j > 0 ? ELEMENT(r, j) : ZERO, room->totals[SQUARES]);
    if (id < SUMS) {
        const int known = id < j || (id >= PANEL && id < PANEL + j - 1);
        room->to_c[id] = here;
        room->to_x[id] = known ? TIMES(CONJ(h.scale), room->totals[id] - h.beta * here) : ZERO;
    }
    barrier(CLK_LOCAL_MEM_FENCE);

    scalar sum_c = ZERO, sum_x = ZERO;
    _Pragma("unroll") for (int k = 0; k < SUMS / PARTS; k++) {
        const int s = part + PARTS * k;
        ADD_PRODUCT(sum_c, own[k], room->to_c[s]);
        ADD_PRODUCT(sum_x, own[k], room->to_x[s]);
        room->of_vx[s][row] = own[k];
    }
    room->sums_c[part][row] = sum_c;
    room->sums_x[part][row] = TIMES(CONJ(h.scale), sum_w) - sum_x;
    barrier(CLK_LOCAL_MEM_FENCE);

    if (part == 0) {
        scalar value = ZERO, x = ZERO;
        for (int s = 1; s < PARTS; s++)
            sum_c += room->sums_c[s][row];
        for (int s = 0; s < PARTS; s++)
            x += room->sums_x[s][row];
        x = TIMES(CONJ(h.tau), x - TIMES(CONJ(h.scale) * h.beta, t));
        value = t - sum_c;
        if (j > 0) {
            value -= x; /* u's leading 1 is at j */
            room->of_vx[PANEL + j - 1][row] = x;
        }
        if (i < m) {
            if (j > 0)
                AT(vx, i, PANEL + j - 1) = x;
            ELEMENT(c, i) = value;
        }
        room->tail[row] = i > j && i < m ? value : ZERO;
    }
    if (part == 1 && j > 0 && i < n)
        AT(yu, PANEL + j - 1, i) = i == j ? SCALAR(1) : TIMES(h.scale, ELEMENT(r, i));
    if (j > 0 && block == 0 && id == 2 * ROWS) {
        ELEMENT(e, j - 1) = h.beta;
        ELEMENT(tau, j - 1) = h.tau;
    }
    barrier(CLK_LOCAL_MEM_FENCE);

    const int s = id / (ITEMS / SUMS), piece = id % (ITEMS / SUMS); /* of the rows */
    scalar sum = ZERO;
    _Pragma("unroll") for (int k = piece; k < ROWS; k += ITEMS / SUMS)
        ADD_PRODUCT(sum, CONJ(room->tail[k]), (s == SQUARES ? room->tail[k] : room->of_vx[s][k]));
    room->scratch[id] = sum;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (piece == 0) {
        for (int k = 1; k < ITEMS / SUMS; k++)
            sum += room->scratch[id + k];
        AT(of_column, s, block) = sum;
    }
}

__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1)))
void sweep_column(int m, int n, int j, int groups, MATRIX(a), MATRIX(vx), MATRIX(yu), VECTOR(r), MATRIX(w),
                  MATRIX(of_sweep), VECTOR(c), MATRIX(of_column), REAL_VECTOR(e), VECTOR(tau))
{
    __local column_room room;
    sweep_column_block(get_group_id(0), &room, m, n, j, groups, PASS_MATRIX(a), PASS_MATRIX(vx), PASS_MATRIX(yu), PASS_VECTOR(r),
                       PASS_MATRIX(w), PASS_MATRIX(of_sweep), PASS_VECTOR(c), PASS_MATRIX(of_column), PASS_VECTOR(e), PASS_VECTOR(tau));
}

/* Each of `count` values becomes its sum over the group, in one order; `turn` alternates between 0 and 1. */
#ifdef __NV_CL_C_VERSION /* no sub-groups in NVIDIA's OpenCL, but its assembly language has shuffles within 32 items */
#define WARPS (ITEMS / 32)
#if PRECISION == 64
real from_lane(real x, int mask)
{
    int low = as_int2(x).x, high = as_int2(x).y;
    asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=r"(low) : "r"(low), "r"(mask));
    asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=r"(high) : "r"(high), "r"(mask));
    return as_double((int2)(low, high));
}
#else
real from_lane(real x, int mask)
{
    int whole = as_int(x);
    asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=r"(whole) : "r"(whole), "r"(mask));
    return as_float(whole);
}
#endif
#ifdef COMPLEX
#define FROM_LANE(z, mask) ((scalar)(from_lane((z).x, mask), from_lane((z).y, mask)))
#else
#define FROM_LANE(z, mask) from_lane(z, mask)
#endif
#define ADD_IN_GROUP(values, count, room, turn, id)                     \
    _Pragma("unroll") for (int v_ = 0; v_ < (count); v_++) {            \
        _Pragma("unroll") for (int mask_ = 16; mask_ > 0; mask_ /= 2)   \
            values[v_] += FROM_LANE(values[v_], mask_);                 \
        if ((id) % 32 == 0)                                             \
            room->sums[turn][v_][(id) / 32] = values[v_];               \
    }                                                                   \
    barrier(CLK_LOCAL_MEM_FENCE);                                       \
    _Pragma("unroll") for (int v_ = 0; v_ < (count); v_++) {            \
        values[v_] = ZERO;                                              \
        _Pragma("unroll") for (int k_ = 0; k_ < WARPS; k_++)            \
            values[v_] += room->sums[turn][v_][k_];                     \
    }
#else
#define WARPS (ITEMS / 8)       /* eight items leave one sum */
#define ADD_IN_GROUP(values, count, room, turn, id)                     \
    for (int v_ = 0; v_ < (count); v_++) {                              \
        room->scratch[id] = values[v_];                                 \
        barrier(CLK_LOCAL_MEM_FENCE);                                   \
        if ((id) < WARPS) {                                             \
            scalar sum_ = ZERO;                                         \
            for (int k_ = 0; k_ < 8; k_++)                              \
                sum_ += room->scratch[(id) + WARPS * k_];               \
            room->sums[turn][v_][id] = sum_;                            \
        }                                                               \
        barrier(CLK_LOCAL_MEM_FENCE);                                   \
    }                                                                   \
    for (int v_ = 0; v_ < (count); v_++) {                              \
        values[v_] = ZERO;                                              \
        for (int k_ = 0; k_ < WARPS; k_++)                              \
            values[v_] += room->sums[turn][v_][k_];                     \
    }
#endif

#define MOST_AT_ONCE 4
typedef struct {
    scalar scratch[ITEMS], totals[SUMS], sums[2][2 * MOST_AT_ONCE][WARPS];
} sweep_room;

/* Items: 256, each with every 256th row behind j. Groups: each with every so manieth column behind j, at least one, AT_ONCE of
 * them in a visit. `parts`: the groups of sweep_column. In: c, of_column. Out: column j of V and, with beta on the diagonal, of A, d, tauq;
 * row j of Y, r, w, of_sweep. */
#define SWEEP(name, EACH_ITEM, AT_ONCE)                                                                                            \
void name##_columns(__local sweep_room *room, int m, int n, int j, int parts, MATRIX(a), MATRIX(vx), MATRIX(yu),                   \
                    VECTOR(c), MATRIX(of_column), VECTOR(r), MATRIX(w), MATRIX(of_sweep), REAL_VECTOR(d), VECTOR(tau))             \
{                                                                                                                                  \
    const int id = get_local_id(0), group = get_group_id(0), groups = get_num_groups(0);                                           \
    const int known = id < j || (id >= PANEL && id < PANEL + j); /* columns of [V X] */                                            \
    const int first = j + 1 + id;                                                                                                  \
                                                                                                                                   \
    scalar v[EACH_ITEM], own[AT_ONCE][EACH_ITEM], sum[EACH_ITEM], of_id = ZERO;                                                    \
    _Pragma("unroll") for (int k = 0; k < EACH_ITEM; k++)                                                                          \
        v[k] = first + ITEMS * k < m ? ELEMENT(c, first + ITEMS * k) : ZERO;                                                       \
    const scalar at_j = known ? AT(vx, j, id) : ZERO; /* v's leading 1 is there */                                                 \
    ADD_PARTS(room->totals, room->scratch, of_column, parts, id)                                                                   \
    const reflector h = householder(ELEMENT(c, j), room->totals[SQUARES]);                                                         \
    const scalar times_v = known ? TIMES(CONJ(h.scale), room->totals[id]) + at_j : ZERO;                                           \
                                                                                                                                   \
    _Pragma("unroll") for (int k = 0; k < EACH_ITEM; k++) {                                                                        \
        const int i = first + ITEMS * k;                                                                                           \
        v[k] = TIMES(h.scale, v[k]);                                                                                               \
        sum[k] = ZERO;                                                                                                             \
        if (group == 0 && i < m) {                                                                                                 \
            AT(vx, i, j) = v[k];                                                                                                   \
            AT(a, i, j) = v[k];                                                                                                    \
        }                                                                                                                          \
    }                                                                                                                              \
    if (group == 0 && id == 0) {                                                                                                   \
        AT(vx, j, j) = SCALAR(1);                                                                                                  \
        AT(a, j, j) = SCALAR(h.beta);                                                                                              \
        ELEMENT(d, j) = h.beta;                                                                                                    \
        ELEMENT(tau, j) = h.tau;                                                                                                   \
    }                                                                                                                              \
                                                                                                                                   \
    int turn = 0;                                                                                                                  \
    for (int begin = j + 1 + group; begin < n; begin += AT_ONCE * groups, turn = 1 - turn) {                                       \
        scalar top[AT_ONCE], factor[AT_ONCE], pairs[2 * AT_ONCE];                                                                  \
        _Pragma("unroll") for (int q = 0; q < AT_ONCE; q++) {                                                                      \
            const int l = begin + q * groups;                                                                                      \
            _Pragma("unroll") for (int k = 0; k < EACH_ITEM; k++) {                                                                \
                const int i = first + ITEMS * k;                                                                                   \
                own[q][k] = i < m && l < n ? AT(a, i, l) : ZERO;                                                                   \
            }                                                                                                                      \
            top[q] = l < n ? AT(a, j, l) : ZERO;                                                                                   \
            factor[q] = known && l < n ? AT(yu, id, l) : ZERO;                                                                     \
        }                                                                                                                          \
        _Pragma("unroll") for (int q = 0; q < AT_ONCE; q++) {                                                                      \
            scalar dot = ZERO;                                                                                                     \
            _Pragma("unroll") for (int k = 0; k < EACH_ITEM; k++)                                                                  \
                ADD_PRODUCT(dot, own[q][k], CONJ(v[k]));                                                                           \
            pairs[2 * q] = dot - TIMES(factor[q], times_v);                                                                        \
            pairs[2 * q + 1] = TIMES(factor[q], at_j);                                                                             \
        }                                                                                                                          \
        ADD_IN_GROUP(pairs, 2 * AT_ONCE, room, turn, id)                                                                           \
        _Pragma("unroll") for (int q = 0; q < AT_ONCE; q++) {                                                                      \
            const int l = begin + q * groups;                                                                                      \
            const scalar y = TIMES(CONJ(h.tau), top[q] + pairs[2 * q]), entry = top[q] - pairs[2 * q + 1] - y;                     \
            _Pragma("unroll") for (int k = 0; k < EACH_ITEM; k++)                                                                  \
                ADD_PRODUCT(sum[k], own[q][k], CONJ(entry));                                                                       \
            if (id == j && l < n) {                                                                                                \
                AT(yu, j, l) = factor[q] = y;                                                                                      \
                ELEMENT(r, l) = entry;                                                                                             \
            }                                                                                                                      \
            ADD_PRODUCT(of_id, (id == SQUARES ? (l > j + 1 ? entry : ZERO) : factor[q]), CONJ(entry));                             \
        }                                                                                                                          \
    }                                                                                                                              \
                                                                                                                                   \
    _Pragma("unroll") for (int k = 0; k < EACH_ITEM; k++)                                                                          \
        if (first + ITEMS * k < m)                                                                                                 \
            AT(w, first + ITEMS * k, group) = sum[k];                                                                              \
    if (id < SUMS)                                                                                                                 \
        AT(of_sweep, id, group) = of_id;                                                                                           \
}                                                                                                                                  \
                                                                                                                                   \
__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1)))                                                                        \
void name(int m, int n, int j, int parts, MATRIX(a), MATRIX(vx), MATRIX(yu), VECTOR(c), MATRIX(of_column),                         \
          VECTOR(r), MATRIX(w), MATRIX(of_sweep), REAL_VECTOR(d), VECTOR(tau))                                                     \
{                                                                                                                                  \
    __local sweep_room room;                                                                                                       \
    name##_columns(&room, m, n, j, parts, PASS_MATRIX(a), PASS_MATRIX(vx), PASS_MATRIX(yu), PASS_VECTOR(c), PASS_MATRIX(of_column),\
                   PASS_VECTOR(r), PASS_MATRIX(w), PASS_MATRIX(of_sweep), PASS_VECTOR(d), PASS_VECTOR(tau));                       \
}

/* A whole panel in one launch, where the device runs all groups of a launch at a time (GRID_BARRIER says so): they wait for each
 * other between sweep_column and sweep, which takes a third of the time of a launch. OpenCL promises nothing of the kind, so the host
 * starts no more groups than there are compute units, and who has waited for too long lets all groups pass and says so: d[0] is NaN. */
#ifdef GRID_BARRIER
#define LET_PASS (1u << 30)
#define MOST_POLLS (1 << 23) /* some seconds */
#ifdef __NV_CL_C_VERSION
#define DEVICE_FENCE() asm volatile("membar.gl;" ::: "memory") /* mem_fence() reaches no further than the group */
#else
#define DEVICE_FENCE() mem_fence(CLK_GLOBAL_MEM_FENCE)
#endif

/* Every group passes once all of them have arrived: the counter is `wanted` then, at least. */
void wait_for_groups(volatile __global uint *arrived, uint wanted)
{
    barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
    if (get_local_id(0) == 0) {
        int polls = 0;
        DEVICE_FENCE();
        atomic_inc(arrived);
        while (*arrived < wanted && polls < MOST_POLLS)
            polls++;
        if (polls == MOST_POLLS)
            atomic_or(arrived, LET_PASS);
        DEVICE_FENCE();
    }
    barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
}

/* Columns 0 .. width - 1 of a panel, and X's and U's last ones where there is a column behind it. `counter` has reached `before`. */
#define PANEL_KERNEL(name, sweep)                                                                                                  \
__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1)))                                                                        \
void name(int m, int n, int width, int before, MATRIX(a), MATRIX(vx), MATRIX(yu), VECTOR(c), MATRIX(of_column), VECTOR(r),         \
          MATRIX(w), MATRIX(of_sweep), REAL_VECTOR(d), REAL_VECTOR(e), VECTOR(tauq), VECTOR(taup), VECTOR(counter))                \
{                                                                                                                                  \
    __local column_room of_block;                                                                                                  \
    __local sweep_room of_sweeps;                                                                                                  \
    const int group = get_group_id(0), groups = get_num_groups(0);                                                                 \
    volatile __global uint *arrived = (volatile __global uint *)(counter + counter_offset);                                        \
    uint wanted = before;                                                                                                          \
    for (int j = 0; j < width + (width < n); j++) {                                                                                \
        const int blocks = (m - j + ROWS - 1) / ROWS;                                                                              \
        for (int block = group; block < blocks; block += groups) {                                                                 \
            sweep_column_block(block, &of_block, m, n, j, groups, PASS_MATRIX(a), PASS_MATRIX(vx), PASS_MATRIX(yu),                \
                               PASS_VECTOR(r), PASS_MATRIX(w), PASS_MATRIX(of_sweep), PASS_VECTOR(c), PASS_MATRIX(of_column),      \
                               PASS_VECTOR(e), PASS_VECTOR(taup));                                                                 \
            barrier(CLK_LOCAL_MEM_FENCE);                                                                                          \
        }                                                                                                                          \
        if (j < width) {                                                                                                           \
            wait_for_groups(arrived, wanted += groups);                                                                            \
            sweep##_columns(&of_sweeps, m, n, j, blocks, PASS_MATRIX(a), PASS_MATRIX(vx), PASS_MATRIX(yu), PASS_VECTOR(c),         \
                            PASS_MATRIX(of_column), PASS_VECTOR(r), PASS_MATRIX(w), PASS_MATRIX(of_sweep), PASS_VECTOR(d),         \
                            PASS_VECTOR(tauq));                                                                                    \
            wait_for_groups(arrived, wanted += groups);                                                                            \
        }                                                                                                                          \
    }                                                                                                                              \
    if (get_global_id(0) == 0 && *arrived >= LET_PASS)                                                                             \
        ELEMENT(d, 0) = NAN;                                                                                                       \
}
#else
#define PANEL_KERNEL(name, sweep)
#endif

#ifndef AT16
#define AT16 1
#define AT8 2
#define AT4 4
#endif
SWEEP(sweep_2, 2, AT4)
SWEEP(sweep_4, 4, AT4)
SWEEP(sweep_8, 8, AT8)
SWEEP(sweep_16, 16, AT16)
PANEL_KERNEL(sweep_panel_2, sweep_2)
PANEL_KERNEL(sweep_panel_4, sweep_4)
PANEL_KERNEL(sweep_panel_8, sweep_8)
PANEL_KERNEL(sweep_panel_16, sweep_16)
#if !defined COMPLEX || PRECISION == 32 /* they would not fit registers */
SWEEP(sweep_32, 32, 1)
PANEL_KERNEL(sweep_panel_32, sweep_32)
#endif
