/* Products of reflectors as block reflectors, H_1 ... H_k = I - V T V' (k <= BLOCK, T upper triangular).
 *
 * The reflectors of a matrix V (m x k) are cut into blocks of BLOCK columns; block b begins at row and
 * column b BLOCK. T follows from the Gram matrix G = V'V, since T^-1 = its strict upper triangle + diag(1 / tau):
 *
 *   unit_lower  V with its 1s and 0s written out. Groups: (rows / 32, columns / 32), of 32 x 8.
 *   gram        parts of V'V of every block. Groups: (chunks of `chunk` rows of the block, blocks), of 256.
 *   larft       T, or T', of every block, side by side. Groups: blocks, of BLOCK. Item j solves for column j of T:
 *                   t_j = tau_j,  t_i = -tau_i (G(i, i+1) t_{i+1} + ... + G(i, j) t_j),  i = j - 1, ..., 0,
 *               which holds for tau = 0 too, where 1 / tau does not exist.
 *
 * The rest is products of matrices (csrc/opencl/ormqr.c).
 */

#define BLOCK 128   /* reflectors of a block at most, as in csrc/opencl/ormqr.c */
#define STEP 16     /* the side of the work-group */
#define DEPTH (STEP / COMPONENTS) /* rows in local memory */
#define EACH 8      /* BLOCK / STEP */

/* For each of an item's elements of the upper triangle of a Gram matrix of so many columns. Unrolled, so that arrays
 * of them are registers. */
#define FOR_EACH(r, s, columns)                             \
    _Pragma("unroll") for (int s = 0; s < EACH; s++)        \
        _Pragma("unroll") for (int r = 0; r < EACH; r++)    \
            if (r <= s && STEP * s < columns)

__kernel __attribute__((reqd_work_group_size(32, 8, 1)))
void unit_lower(int m, int n, MATRIX(a), MATRIX(b))
{
    const int i = get_global_id(0);
    for (int s = 0; s < 32; s += 8) {
        const int j = get_group_id(1) * 32 + get_local_id(1) + s;
        if (i < m && j < n)
            AT(b, i, j) = i > j ? AT(a, i, j) : SCALAR(i == j);
    }
}

__kernel __attribute__((reqd_work_group_size(STEP, STEP, 1)))
void gram(int m, int k, int block, int chunk, MATRIX(v), VECTOR(parts))
{
    __local scalar tile[DEPTH][BLOCK + 1];
    const int x = get_local_id(0), y = get_local_id(1), id = x + STEP * y, row = id % DEPTH, column = id / DEPTH;
    const int first = get_group_id(1) * block, columns = min(block, k - first);
    const int loaded = (columns + STEP - 1) / STEP * STEP;
    const int begin = first + get_group_id(0) * chunk, end = min(m, begin + chunk);

    scalar sum[EACH][EACH];
    FOR_EACH(r, s, BLOCK)
        sum[r][s] = ZERO;

    for (int i0 = begin; i0 < end; i0 += DEPTH) {
        for (int j = column; j < loaded; j += STEP * STEP / DEPTH) {
            const int i = i0 + row, below = i - first - j;
            tile[row][j] = i >= end || j >= columns || below < 0 ? ZERO : below == 0 ? SCALAR(1) : AT(v, i, first + j);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        FOR_EACH(r, s, columns) {
            scalar product = ZERO; /* of these rows alone: one long sum would cost Q digits where reflectors are alike */
            for (int p = 0; p < DEPTH; p++)
                ADD_PRODUCT(product, CONJ(tile[p][x + STEP * r]), tile[p][y + STEP * s]);
            sum[r][s] += product;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }

    const long part = (get_group_id(0) + (long)get_group_id(1) * get_num_groups(0)) * BLOCK * BLOCK;
    FOR_EACH(r, s, columns)
        ELEMENT(parts, part + x + STEP * r + BLOCK * (y + STEP * s)) = sum[r][s];
}

__kernel __attribute__((reqd_work_group_size(BLOCK, 1, 1)))
void larft(int k, int block, int chunks, int transpose, VECTOR(parts), VECTOR(tau), MATRIX(t))
{
    const int id = get_local_id(0), first = get_group_id(0) * block, columns = min(block, k - first);
    const long g = (long)get_group_id(0) * chunks * BLOCK * BLOCK; /* G takes the place of its first part */

    for (int j = 1; j < columns; j++) /* item i adds up row i */
        if (id < j) {
            scalar sum = ZERO;
            for (int s = 0; s < chunks; s++)
                sum += ELEMENT(parts, g + (long)s * BLOCK * BLOCK + id + BLOCK * j);
            ELEMENT(parts, g + id + BLOCK * j) = sum;
        }
    barrier(CLK_GLOBAL_MEM_FENCE);

    if (id < columns) { /* below the diagonal of G is room for T', where neighbours find their columns side by side */
        const scalar last = ELEMENT(tau, first + id);
        const long by = transpose ? t_ld : 1; /* (0, id) of T is the first element, the next ones are in its column */
        t += t_offset + first * t_ld + id * (transpose ? 1 : t_ld);
        for (int i = id + 1; i < columns; i++)
            t[i * by] = ZERO;
        t[id * by] = transpose ? CONJ(last) : last;
        for (int i = id - 1; i >= 0; i--) {
            scalar sum = TIMES(ELEMENT(parts, g + i + BLOCK * id), last);
            for (int l = i + 1; l < id; l++)
                ADD_PRODUCT(sum, ELEMENT(parts, g + i + BLOCK * l), ELEMENT(parts, g + id + BLOCK * l));
            sum = TIMES(-ELEMENT(tau, first + i), sum);
            ELEMENT(parts, g + id + BLOCK * i) = sum;
            t[i * by] = transpose ? CONJ(sum) : sum;
        }
    }
}
