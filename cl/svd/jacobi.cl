/* Stacks of small singular value decompositions, A = U S V', by one-sided Jacobi rotations: Z. Drmac and K. Veselic,
 * New fast and accurate Jacobi SVD algorithm I, SIAM J. Matrix Anal. Appl. 29(4), 2008. First A P = Q R, with pivots,
 * by Householder reflectors. Then the columns of X = P R' are rotated in pairs until all are orthogonal, and those of
 * Q with them: X = V S and U = Q then. Without QR matrices with graded rows would take many more rotations, and tall
 * ones longer columns.
 *
 *   gesvj            matrices in local memory, n <= 32; several in a group where they are small. Groups: of `teams`.
 *   gesvj_large      the same in global memory, that is in caches, n <= 64. A program has this file twice, for both.
 *   complete_basis   columns of V that X does not give, its rank being less; of U, of full matrices. Groups: one each.
 *
 * A matrix is a team's work, two columns that of PAIR_ITEMS items: in the reduction always the same two, then those
 * that meet. Columns meet as in an odd-even transposition sort: of all in a row every other pair of neighbours meets
 * and changes places, so that in n steps each column meets each other one. In a round robin, where one column keeps
 * its place, Gaussian matrices of 32 columns take 9 times n steps, so 7.
 *
 * Each matrix is scaled by a power of two to entries below 1. Columns of X shorter than SHORT, whose squares lose
 * digits, are not rotated, and V's columns are completed there: that changes A by far less than rounding does.
 */

#ifndef NOT_FINITE
#define NOT_CONVERGED (-1) /* in place of a rank: LAI_GESVJ_NOT_CONVERGED, LAI_GESVJ_NOT_FINITE */
#define NOT_FINITE (-2)
#define MOST_SWEEPS 30 /* of n steps; the hardest that are known take 9 */

/* The square of SHORT eps is a normal number. Norms of shorter columns come from squares of RAISE times the numbers. */
#if PRECISION == 64
#define SHORT 0x1p-450
#define RAISE 0x1p500
#else
#define SHORT 0x1p-40f
#define RAISE 0x1p80f
#endif

#define NAME gesvj
#define SPACE __local
#define FENCE CLK_LOCAL_MEM_FENCE
#define ROOM __local real *room
#define ITEMS 64 /* as in csrc/opencl/gesvj.c */
#define PAIR_ITEMS 4
#else
#define NAME gesvj_large
#define SPACE __global
#define FENCE (CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE)
#define ROOM VECTOR(work)
#define ITEMS 256
#define PAIR_ITEMS 8
#endif

#define TEAMS (ITEMS / PAIR_ITEMS) /* of a group at most */
#define ALL_COLUMNS (2 * TEAMS)    /* of all their matrices */

/* Each of `count` values becomes its sum over the PAIR_ITEMS. Where there are no shuffles, there is a barrier here, and
 * must be one before the next sums. */
#ifdef __NV_CL_C_VERSION
#define ADD_IN_PAIR(values, count)                                                  \
    _Pragma("unroll") for (int v_ = 0; v_ < (count); v_++)                          \
        _Pragma("unroll") for (int mask_ = PAIR_ITEMS / 2; mask_ > 0; mask_ /= 2)   \
            values[v_] += from_lane(values[v_], mask_);
#define BEFORE_SUMS
#else
#define ADD_IN_PAIR(values, count)                                                  \
    for (int v_ = 0; v_ < (count); v_++)                                            \
        scratch[v_][id] = values[v_];                                               \
    barrier(CLK_LOCAL_MEM_FENCE);                                                   \
    for (int v_ = 0; v_ < (count); v_++) {                                          \
        values[v_] = 0;                                                             \
        for (int k_ = 0; k_ < PAIR_ITEMS; k_++)                                     \
            values[v_] += scratch[v_][id - lane + k_];                              \
    }
#define BEFORE_SUMS barrier(CLK_LOCAL_MEM_FENCE);
#endif

/* An item has every PAIR_ITEMS-th row of its columns: AT_ONCE of them, all that x has, are in registers together. */
#define AT_ONCE 8
#define EACH_ROW _Pragma("unroll") for (int r = 0; r < AT_ONCE; r++)
#define FIRST_ROW(k) ((k) - (k) % PAIR_ITEMS + lane) /* an item's rows are always the same: it may be one before k */

/* Of its two columns. */
#define EACH_SIDE _Pragma("unroll") for (int side = 0; side < 2; side++)

/* Square root of a sum of squares, or of that of the numbers times RAISE. */
#define NORM(sum, raised) ((sum) >= SHORT * SHORT ? sqrt(sum) : sqrt(raised) / RAISE)

/* Matrices without gaps, `count` of each, one behind the other by the leading dimension. a is m x n, m >= n, by rows,
 * or by columns where `wide`: the caller's matrix is its transpose then. u is m x left and by rows, v by columns, or
 * the other way round where `wide`; both are left alone without `vectors`. s has n values of the scaled matrix; info:
 * see lai_cl_gesvj. Room for a matrix: x, m x ld_x by rows, and y, ld_y x n by columns. */
__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1)))
void NAME(int count, int teams, int m, int n, int left, int vectors, int wide, MATRIX(a), MATRIX(u), MATRIX(v),
          MATRIX(s), MATRIX(info), int ld_x, int ld_y, ROOM)
{
#ifndef __NV_CL_C_VERSION
    __local real scratch[4][ITEMS];
#endif
    __local real norms_of_all[ALL_COLUMNS], betas_of_all[ALL_COLUMNS];
    __local bits largest[ITEMS];
    __local int pivots_of_all[ALL_COLUMNS], order_of_all[ALL_COLUMNS], changed[2];
    const int id = get_local_id(0), lane = id % PAIR_ITEMS;
    const int pairs = (n + 1) / 2, team = pairs * PAIR_ITEMS;
    const int which = id / team, member = id % team, pair = member / PAIR_ITEMS;
    const long b = (long)get_group_id(0) * teams + which;
    int here = which < teams && b < count;
    __local real *const norms = norms_of_all + which * n, *const betas = betas_of_all + which * n;
    __local int *const pivots = pivots_of_all + which * n, *const order = order_of_all + which * n;
#ifdef IN_GLOBAL
    SPACE real *const x = work + work_offset + b * (m * ld_x + n * ld_y);
#else
    SPACE real *const x = room + which * (m * ld_x + n * ld_y);
#endif
    SPACE real *const y = x + m * ld_x;

    /* Scale. */
    bits top = 0;
    if (here)
        for (int e = member; e < m * n; e += team) {
            const real value = ELEMENT(a, b * a_ld + e);
            x[wide ? e % m * ld_x + e / m : e / n * ld_x + e % n] = value;
            top = max(top, AS_BITS(fabs(value)));
        }
    largest[id] = top;
    barrier(FENCE);
    if (here)
        for (int k = 0; k < team; k++)
            top = max(top, largest[which * team + k]);
    int exponent = 0;
    if (top >= AS_BITS((real)INFINITY)) {
        if (member == 0) {
            AT(info, 0, b) = 0;
            AT(info, 1, b) = NOT_FINITE;
        }
        here = 0;
    } else if (top > 0)
        frexp(AS_REAL(top), &exponent);

    /* Reduce. Reflector k is I - f f' / (beta (beta - alpha)), f being the pivot's column from row k on, with
     * alpha - beta in place of alpha. */
    const int own[2] = { pair, pair + pairs };
    int active[2];
    real sums[4] = { 0, 0, 0, 0 };
    EACH_SIDE {
        active[side] = here && own[side] < n;
        if (active[side])
            for (int i = lane; i < m; i += PAIR_ITEMS) {
                const real value = ldexp(x[i * ld_x + own[side]], -exponent), raised = value * RAISE;
                x[i * ld_x + own[side]] = value;
                sums[side] += value * value;
                sums[2 + side] += raised * raised;
            }
    }
    ADD_IN_PAIR(sums, 4)
    EACH_SIDE
        if (active[side] && lane == side)
            norms[own[side]] = NORM(sums[side], sums[2 + side]);
    for (int k = 0; k < n; k++) {
        barrier(FENCE);
        int pivot = 0;
        real alpha = 0, beta = 0;
        if (here) {
            real longest = norms[0];
            for (int j = 1; j < n; j++)
                if (norms[j] > longest) {
                    longest = norms[j];
                    pivot = j;
                }
            alpha = x[k * ld_x + pivot];
            beta = longest > 4 * REAL_TINY ? -copysign(longest, alpha) : 0;
        }
        sums[0] = sums[1] = 0;
        EACH_SIDE {
            active[side] = active[side] && own[side] != pivot;
            if (active[side] && beta != 0)
                for (int i = FIRST_ROW(k); i < m; i += PAIR_ITEMS)
                    if (i >= k)
                        sums[side] += (i == k ? alpha - beta : x[i * ld_x + pivot]) * x[i * ld_x + own[side]];
        }
        ADD_IN_PAIR(sums, 2)
        barrier(CLK_LOCAL_MEM_FENCE); /* the norms have been read */
        const real of_beta = 1 / beta, of_difference = 1 / (beta - alpha);
        const real factors[2] = { sums[0] * of_beta * of_difference, sums[1] * of_beta * of_difference };
        sums[0] = sums[1] = sums[2] = sums[3] = 0;
        EACH_SIDE
            if (active[side] && beta != 0)
                for (int begin = FIRST_ROW(k); begin < m; begin += AT_ONCE * PAIR_ITEMS) {
                    real values[AT_ONCE];
                    EACH_ROW {
                        const int i = begin + r * PAIR_ITEMS;
                        values[r] = 0;
                        if (i >= k && i < m)
                            values[r] = x[i * ld_x + own[side]]
                                        - factors[side] * (i == k ? alpha - beta : x[i * ld_x + pivot]);
                    }
                    EACH_ROW {
                        const int i = begin + r * PAIR_ITEMS;
                        if (i >= k && i < m)
                            x[i * ld_x + own[side]] = values[r];
                        const real below = i > k ? values[r] : 0, raised = below * RAISE;
                        sums[side] += below * below;
                        sums[2 + side] += raised * raised;
                    }
                }
        ADD_IN_PAIR(sums, 4)
        EACH_SIDE
            if (active[side] && lane == side)
                norms[own[side]] = NORM(sums[side], sums[2 + side]);
        if (here && member == 0) {
            norms[pivot] = -1;
            betas[k] = beta;
            pivots[k] = pivot;
        }
    }
    barrier(FENCE);

    /* Q, from its last reflector to the first. */
    if (vectors) {
        EACH_SIDE {
            active[side] = here && own[side] < n;
            if (active[side])
                for (int i = lane; i < m; i += PAIR_ITEMS)
                    y[own[side] * ld_y + i] = i == own[side] ? 1 : 0;
        }
        for (int k = n - 1; k >= 0; k--) {
            const int pivot = here ? pivots[k] : 0;
            const real beta = here ? betas[k] : 0, alpha = beta != 0 ? x[k * ld_x + pivot] : 0;
            const real of_beta = 1 / beta, of_difference = 1 / (beta - alpha);
            BEFORE_SUMS
            sums[0] = sums[1] = 0;
            EACH_SIDE
                if (active[side] && beta != 0 && own[side] >= k)
                    for (int i = FIRST_ROW(k); i < m; i += PAIR_ITEMS)
                        if (i >= k)
                            sums[side] += (i == k ? alpha - beta : x[i * ld_x + pivot]) * y[own[side] * ld_y + i];
            ADD_IN_PAIR(sums, 2)
            EACH_SIDE
                if (active[side] && beta != 0 && own[side] >= k) {
                    const real factor = sums[side] * of_beta * of_difference;
                    for (int begin = FIRST_ROW(k); begin < m; begin += AT_ONCE * PAIR_ITEMS) {
                        real values[AT_ONCE];
                        EACH_ROW {
                            const int i = begin + r * PAIR_ITEMS;
                            if (i >= k && i < m)
                                values[r] = y[own[side] * ld_y + i]
                                            - factor * (i == k ? alpha - beta : x[i * ld_x + pivot]);
                        }
                        EACH_ROW {
                            const int i = begin + r * PAIR_ITEMS;
                            if (i >= k && i < m)
                                y[own[side] * ld_y + i] = values[r];
                        }
                    }
                }
        }
        barrier(FENCE);
    }

    /* X: row k of R by rows is column k by columns. */
    if (here)
        for (int k = pair; k < n; k += pairs)
            for (int i = k + lane; i < n; i += PAIR_ITEMS)
                x[i * ld_x + pivots[k]] = i == k ? betas[k] : 0;
    if (id < 2)
        changed[id] = -1;
    barrier(FENCE);

    /* Rotate, until n steps in a row have changed nothing. Who is at place i and about to move right was `turns` places
     * before it on the circle of 2 n places, from left to right and back; who is beside it comes the other way. */
    const real tolerance = max(n / (real)4, (real)4) * REAL_EPSILON * REAL_EPSILON; /* for squares of cosines */
    int turns = 0, idle = 0;
    for (int step = 0; step < MOST_SWEEPS * n && idle < n; step++) {
        const int i = 2 * pair + step % 2, opposite = 2 * n - 2 - i;
        const int right = i - turns + (i < turns ? 2 * n : 0), left = opposite - turns + (opposite < turns ? 2 * n : 0);
        const int one = min(right, 2 * n - 1 - right), other = min(left, 2 * n - 1 - left);
        const int first = min(one, other), second = max(one, other), meet = here && i + 1 < n;
        SPACE real *const x_first = x + first * ld_x, *const x_second = x + second * ld_x;

        real p[AT_ONCE], q[AT_ONCE], products[3] = { 0, 0, 0 };
        EACH_ROW {
            const int k = lane + r * PAIR_ITEMS;
            p[r] = meet && k < n ? x_first[k] : 0;
            q[r] = meet && k < n ? x_second[k] : 0;
            products[0] += p[r] * p[r];
            products[1] += q[r] * q[r];
            products[2] += p[r] * q[r];
        }
        ADD_IN_PAIR(products, 3)

        /* The longer column becomes the first one, p: the angle t has tan 2t = 2 p'q / (p'p - q'q), which is divided by
         * p'p so that nothing overflows. */
        const real longer = max(products[0], products[1]), shorter = min(products[0], products[1]);
        const real reciprocal = 1 / longer, share = products[2] * reciprocal;
        const int turn = shorter >= SHORT * SHORT && share * products[2] > tolerance * shorter;
        const int change = products[1] > products[0];
        if (meet && (turn || change)) {
            real c = 1, z = 0;
            if (turn) {
                const real gap = (longer - shorter) * reciprocal, root = rsqrt(gap * gap + 4 * share * share);
                const real square = (real)0.5 + (real)0.5 * gap * root, of_c = rsqrt(square);
                c = square * of_c;
                z = share * root * of_c;
                const real missing = (real)-0.5 * fma(z, z, fma(c, c, (real)-1)); /* else U's columns would grow */
                c = fma(c, missing, c);
                z = fma(z, missing, z);
            }
            const real of_first[2] = { change ? z : c, change ? c : z }; /* what the two columns give to each */
            const real of_second[2] = { change ? c : -z, change ? -z : c };
            EACH_ROW {
                const int k = lane + r * PAIR_ITEMS;
                if (k < n) {
                    x_first[k] = of_first[0] * p[r] + of_first[1] * q[r];
                    x_second[k] = of_second[0] * p[r] + of_second[1] * q[r];
                }
            }
            SPACE real *const y_first = y + first * ld_y, *const y_second = y + second * ld_y;
            if (vectors)
                for (int begin = lane; begin < m; begin += AT_ONCE * PAIR_ITEMS) {
                    EACH_ROW {
                        const int k = begin + r * PAIR_ITEMS;
                        p[r] = k < m ? y_first[k] : 0;
                        q[r] = k < m ? y_second[k] : 0;
                    }
                    EACH_ROW {
                        const int k = begin + r * PAIR_ITEMS;
                        if (k < m) {
                            y_first[k] = of_first[0] * p[r] + of_first[1] * q[r];
                            y_second[k] = of_second[0] * p[r] + of_second[1] * q[r];
                        }
                    }
                }
            if (lane == 0)
                changed[step % 2] = step;
        }
        barrier(FENCE);
        idle = changed[step % 2] == step ? 0 : idle + 1; /* nobody writes there before the next barrier */
        turns = turns + 1 < 2 * n ? turns + 1 : 0;
    }

    /* Sort. */
    sums[0] = sums[1] = sums[2] = sums[3] = 0;
    EACH_SIDE
        if (here && own[side] < n)
            for (int k = lane; k < n; k += PAIR_ITEMS) {
                const real value = x[own[side] * ld_x + k], raised = value * RAISE;
                sums[side] += value * value;
                sums[2 + side] += raised * raised;
            }
    ADD_IN_PAIR(sums, 4)
    EACH_SIDE
        if (here && own[side] < n && lane == side)
            norms[own[side]] = NORM(sums[side], sums[2 + side]);
    barrier(CLK_LOCAL_MEM_FENCE);
    int rank = 0;
    if (here) {
        for (int k = 0; k < n; k++)
            rank += norms[k] >= SHORT;
        if (member < n) {
            int place = 0;
            for (int k = 0; k < n; k++)
                place += norms[k] > norms[member] || (norms[k] == norms[member] && k < member);
            order[place] = member;
            AT(s, place, b) = norms[member];
        }
        if (member == 0) {
            AT(info, 0, b) = -exponent;
            AT(info, 1, b) = idle < n ? NOT_CONVERGED : rank;
        }
    }
    barrier(CLK_LOCAL_MEM_FENCE);

    if (here && vectors) {
        for (int e = member; e < m * n; e += team) {
            const int i = wide ? e % m : e / n, j = wide ? e / m : e % n;
            ELEMENT(u, b * u_ld + (wide ? e : i * left + j)) = y[order[j] * ld_y + i];
        }
        for (int e = member; e < n * n; e += team) {
            const int i = wide ? e / n : e % n, j = wide ? e % n : e / n;
            if (j < rank)
                ELEMENT(v, b * v_ld + e) = x[order[j] * ld_x + i] / norms[order[j]];
        }
    }
}

#ifndef IN_GLOBAL
#define IN_GLOBAL
#define COMPLETED 64 /* items, and rows at most */

/* Columns of q, which is rows x columns, from `first` on, or where that is negative from the rank on: Gram and Schmidt,
 * twice, on the unit vector that is farthest from the columns there are; 1/8 of it at least is left. */
__kernel __attribute__((reqd_work_group_size(COMPLETED, 1, 1)))
void complete_basis(int rows, int columns, int by_rows, int first, MATRIX(q), MATRIX(info))
{
    __local real weights[COMPLETED], x[COMPLETED], y[COMPLETED];
    const int id = get_local_id(0);
    const long b = get_group_id(0);
    const int rank = (int)AT(info, 1, b), begin = rank < 0 ? columns : first < 0 ? rank : first;
#define Q(i, j) ELEMENT(q, b * q_ld + (by_rows ? (i) * columns + (j) : (i) + (j) * rows))

    real weight = 0; /* the square of a unit vector's projection on the columns */
    if (id < rows && begin < columns)
        for (int j = 0; j < begin; j++)
            weight += Q(id, j) * Q(id, j);
    for (int column = begin; column < columns; column++) {
        weights[id] = weight;
        barrier(CLK_LOCAL_MEM_FENCE);
        int farthest = 0;
        for (int i = 1; i < rows; i++)
            farthest = weights[i] < weights[farthest] ? i : farthest;
        x[id] = id == farthest ? 1 : 0;
        for (int pass = 0; pass < 2; pass++) {
            barrier(CLK_LOCAL_MEM_FENCE);
            real sum = 0;
            if (id < column)
                for (int i = 0; i < rows; i++)
                    sum += Q(i, id) * x[i];
            y[id] = sum;
            barrier(CLK_LOCAL_MEM_FENCE);
            sum = 0;
            if (id < rows)
                for (int j = 0; j < column; j++)
                    sum += Q(id, j) * y[j];
            x[id] -= sum;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        real square = 0;
        for (int i = 0; i < rows; i++)
            square += x[i] * x[i];
        if (id < rows) {
            const real value = x[id] / sqrt(square);
            Q(id, column) = value;
            weight += value * value;
        }
        barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
    }
#undef Q
}
#undef COMPLETED
#else
#undef IN_GLOBAL
#undef NOT_CONVERGED
#undef NOT_FINITE
#undef MOST_SWEEPS
#undef SHORT
#undef RAISE
#endif

#undef NAME
#undef SPACE
#undef FENCE
#undef ROOM
#undef ITEMS
#undef PAIR_ITEMS
#undef TEAMS
#undef ALL_COLUMNS
#undef ADD_IN_PAIR
#undef BEFORE_SUMS
#undef AT_ONCE
#undef EACH_ROW
#undef FIRST_ROW
#undef EACH_SIDE
#undef NORM
