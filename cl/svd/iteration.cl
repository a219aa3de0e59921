/* Singular values of an upper bidiagonal matrix by Sturm multisection, each on its own.
 *
 * The symmetric tridiagonal matrix with zero diagonal and off-diagonal d_1, e_1, d_2, ..., d_n (Golub and
 * Kahan) has the eigenvalues +-s_i. Of the pivots q of its LDL' at x,
 *
 *     q = -x,   q <- -x - b (b / q)   for each off-diagonal b,
 *
 * n + #{s_i < x} are negative. Zero diagonals make this accurate relative to x, however small x is. So
 * the search is by the bits of x, which are ordered as positive x are: the number of passes is fixed, and small
 * singular values come out with as many digits as large ones, down to about tiny max(1, |B|^2).
 *
 * multisection    a group of 8 x 32 narrows 32 singular values down: 8 items try 8 points each, which cuts
 *                 the bracket [lower, upper) to a ninth. Groups: n / 32.
 */

/* A pivot is zero where x is the value itself: not above it, so that values which are numbers come out exact. */
#define AWAY_FROM_ZERO(q, least) (fabs(q) >= (least) ? (q) : (q) < 0 ? -(least) : (least))

#define POINTS 8
#define VALUES 32
#define ITEMS 256
#if PRECISION == 64
#define PASSES 22   /* 9^20 > 2^62, and two for the rounding up of each cut */
#else
#define PASSES 12   /* 9^10 > 2^31 */
#endif

__kernel __attribute__((reqd_work_group_size(POINTS, VALUES, 1)))
void multisection(int n, VECTOR(d), VECTOR(e), VECTOR(s))
{
#pragma OPENCL FP_CONTRACT OFF
    __local real bounds[ITEMS];
    __local bits lower[VALUES], upper[VALUES];
    __local int above[VALUES][POINTS]; /* is the point above the value? */
    const int point = get_local_id(0), value = get_local_id(1), id = point + POINTS * value;
    const int index = get_group_id(0) * VALUES + value;
    const int smaller = n - 1 - index; /* singular values below this one; the largest is s_0 */

    real bound = 0;
    for (int i = id; i < n; i += ITEMS)
        bound = fmax(bound, fabs(ELEMENT(d, i)) + (i < n - 1 ? fabs(ELEMENT(e, i)) : 0)
                                + (i > 0 ? fabs(ELEMENT(e, i - 1)) : 0));
    bounds[id] = bound;
    for (int half_ = ITEMS / 2; half_ > 0; half_ /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (id < half_)
            bounds[id] = fmax(bounds[id], bounds[id + half_]);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    bound = bounds[0];
    const real least = REAL_TINY * fmax((real)1, bound * bound); /* b (b / least) is finite */
    if (point == 0) {
        lower[value] = 0;
        upper[value] = AS_BITS(bound * (1 + 8 * REAL_EPSILON)) + 1;
    }
    barrier(CLK_LOCAL_MEM_FENCE);

    for (int pass = 0; pass < PASSES; pass++) {
        const bits low = lower[value], high = upper[value], step = (high - low) / (POINTS + 1) + 1;
        const bits at = min(high, low + step * (bits)(point + 1));
        const real x = AS_REAL(at);
        real q = -x;
        int negative = 0;
        for (int i = 0; i < n; i++) {
            q = AWAY_FROM_ZERO(q, least);
            negative += q < 0;
            const real diagonal = ELEMENT(d, i);
            q = -x - diagonal * (diagonal / q);
            q = AWAY_FROM_ZERO(q, least);
            negative += q < 0;
            const real super = i < n - 1 ? ELEMENT(e, i) : 0;
            q = -x - super * (super / q);
        }
        above[value][point] = at == high || negative - n > smaller;
        barrier(CLK_LOCAL_MEM_FENCE);
        if (point == 0) {
            bits from = low, to = high;
            for (int k = POINTS - 1; k >= 0; k--)
                if (above[value][k])
                    to = min(high, low + step * (bits)(k + 1));
            for (int k = 0; k < POINTS; k++)
                if (low + step * (bits)(k + 1) < to)
                    from = low + step * (bits)(k + 1);
            lower[value] = from;
            upper[value] = to;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (point == 0 && index < n)
        ELEMENT(s, index) = AS_REAL(lower[value]);
}

#undef AWAY_FROM_ZERO
#undef POINTS
#undef VALUES
#undef ITEMS
#undef PASSES
