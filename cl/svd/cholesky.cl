/* Blocks of the Cholesky factorization L L' and of solves with L', for CholeskyQR (csrc/opencl/cholqr.c).
 *
 *   potrf       L of a block of SIDE x SIDE at most, in place, the upper triangle left alone. Groups: 1, of 256.
 *   trsm        B = B L^-T in place for such a block L: each item solves for one row of B. Groups: rows / 256.
 *   distance_to_identity   parts of |A - I|^2 in the Frobenius norm. Groups: as many as parts, of 256.
 *
 * A matrix that is not positive definite gives NaN or Inf, and they spread: the distance of the next Gram matrix tells.
 * Rows are solved by substitution, not with an inverse, whose error is that of the condition of L times larger.
 */

#define ITEMS 256
#define SIDE (64 / COMPONENTS) /* as in csrc/opencl/cholqr.c */
#define HALF (SIDE / 2)
#define LOWER(i, j) ((i) * ((i) + 1) / 2 + (j)) /* place of (i, j), i >= j, in a packed triangle */

__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1)))
void potrf(int n, MATRIX(a))
{
    __local scalar l[LOWER(SIDE, 0)];
    const int id = get_local_id(0), x = id % 16, y = id / 16;

    for (int i = x; i < n; i += 16)
        for (int j = y; j <= i; j += 16)
            l[LOWER(i, j)] = AT(a, i, j);
    for (int k = 0; k < n; k++) { /* as L D L', whose column k is not read again once it is right: one barrier each */
        barrier(CLK_LOCAL_MEM_FENCE);
        const real reciprocal = 1 / REAL(l[LOWER(k, k)]);
        for (int i = k + 1 + x; i < n; i += 16)
            for (int j = k + 1 + y; j <= i; j += 16)
                SUBTRACT_PRODUCT(l[LOWER(i, j)], l[LOWER(i, k)], (CONJ(l[LOWER(j, k)]) * reciprocal));
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = x; i < n; i += 16)
        for (int j = y; j <= i; j += 16) {
            const real root = sqrt(REAL(l[LOWER(j, j)]));
            AT(a, i, j) = i == j ? SCALAR(root) : l[LOWER(i, j)] / root;
        }
}

__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1)))
void trsm(int m, int n, MATRIX(l), MATRIX(b))
{
    __local scalar block[3][HALF][HALF]; /* of L: the first diagonal block, the one below, the second; [j][i] is (i, j)' */
    const int id = get_local_id(0), row = get_global_id(0);

    for (int e = id; e < 3 * HALF * HALF; e += ITEMS) { /* what L has not is an identity */
        const int z = e / (HALF * HALF), j = e / HALF % HALF, i = e % HALF;
        const int over = j + (z == 2 ? HALF : 0), down = i + (z == 0 ? 0 : HALF);
        block[z][j][i] = down < n && over <= down ? CONJ(AT(l, down, over)) : SCALAR(down == over);
    }
    barrier(CLK_LOCAL_MEM_FENCE);

    for (int first = 0; first < n; first += HALF) {
        const int which = first ? 2 : 0;
        scalar x[HALF];
        __attribute__((opencl_unroll_hint(HALF)))
        for (int j = 0; j < HALF; j++)
            x[j] = row < m && first + j < n ? AT(b, row, first + j) : ZERO;
        if (first)
            for (int k = 0; k < HALF; k++) { /* the first half is full where there is a second */
                const scalar known = row < m ? AT(b, row, k) : ZERO;
                __attribute__((opencl_unroll_hint(HALF)))
                for (int j = 0; j < HALF; j++)
                    SUBTRACT_PRODUCT(x[j], known, block[1][k][j]);
            }
        __attribute__((opencl_unroll_hint(HALF)))
        for (int k = 0; k < HALF; k++) {
            x[k] /= REAL(block[which][k][k]);
            __attribute__((opencl_unroll_hint(HALF)))
            for (int j = 0; j < HALF; j++)
                if (j > k)
                    SUBTRACT_PRODUCT(x[j], x[k], block[which][k][j]);
        }
        __attribute__((opencl_unroll_hint(HALF)))
        for (int j = 0; j < HALF; j++)
            if (row < m && first + j < n)
                AT(b, row, first + j) = x[j];
    }
}

__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1)))
void distance_to_identity(int n, MATRIX(a), REAL_VECTOR(parts))
{
    __local real sums[ITEMS];
    const int id = get_local_id(0);

    real sum = 0;
    for (int j = get_group_id(0); j < n; j += get_num_groups(0))
        for (int i = id; i < n; i += ITEMS) {
            const scalar difference = AT(a, i, j) - SCALAR(i == j);
            sum += ABS_SQUARED(difference);
        }
    sums[id] = sum;
    SUM_IN_GROUP(real, sums, 16, id)
    if (id == 0)
        ELEMENT(parts, get_group_id(0)) = sums[0];
}

#undef ITEMS
#undef SIDE
#undef HALF
#undef LOWER
