/* C = alpha op(A) op(B) + beta C, any sizes; op(A) is m x k, op(B) k x n.
 *
 * A work-group of 16 x 16 computes a tile of 64 x 64 elements, each item 4 x 4 of them, 16 apart. The
 * operands pass through local memory 16 columns of op(A) and 16 rows of op(B) at a time, filled up with
 * zeros at the edges. Transposition is a pair of strides: op(A)(i, p) is at a_offset + i a_i + p a_p;
 * neighbouring items load along whichever stride is 1.
 *
 * gemm        groups: (tiles of rows, tiles of columns, parts of k). Part z takes p in [z depth, (z + 1) depth).
 *             With one part it finishes C; with more, part z writes its sum to C + z part_stride, alpha = 1, beta = 0.
 * gemm_sum    C = alpha (sum of the parts) + beta C. Groups of 256: (rows / 256, columns).
 */

#define TILE 64  /* side of a group's tile */
#define STEP 16  /* columns of op(A) in local memory; also the side of the work-group */
#define EACH 4   /* TILE / STEP */

/* For each of an item's elements of the tile. Unrolled, so that arrays of them are registers. */
#define FOR_EACH(r, s)                                      \
    _Pragma("unroll") for (int r = 0; r < EACH; r++)        \
        _Pragma("unroll") for (int s = 0; s < EACH; s++)

__kernel __attribute__((reqd_work_group_size(STEP, STEP, 1)))
void gemm(int m, int n, int k, int depth, int alpha, int beta,
          VECTOR(a), long a_i, long a_p, VECTOR(b), long b_p, long b_j, MATRIX(c), long part_stride)
{
    __local real tile_a[STEP][TILE + 1], tile_b[STEP][TILE + 1]; /* the pads spread columns over the memory banks */
    const int x = get_local_id(0), y = get_local_id(1), id = x + STEP * y;
    const int i0 = get_group_id(0) * TILE, j0 = get_group_id(1) * TILE;
    const int first = get_group_id(2) * depth, last = min(k, first + depth);

    real sum[EACH][EACH];
    FOR_EACH(r, s)
        sum[r][s] = 0;

    for (int p0 = first; p0 < last; p0 += STEP) {
        for (int r = 0; r < EACH; r++) {
            const int e = id + STEP * STEP * r;
            const int along = e % TILE, across = e / TILE;  /* neighbours along the tile's side */
            const int deep = e % STEP, over = e / STEP;     /* neighbours along k */
            const int i = a_i == 1 ? along : over, pa = a_i == 1 ? across : deep;
            const int j = b_p == 1 ? over : along, pb = b_p == 1 ? deep : across;
            tile_a[pa][i] = i0 + i < m && p0 + pa < last ? ELEMENT(a, (i0 + i) * a_i + (p0 + pa) * a_p) : 0;
            tile_b[pb][j] = j0 + j < n && p0 + pb < last ? ELEMENT(b, (p0 + pb) * b_p + (j0 + j) * b_j) : 0;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int p = 0; p < STEP; p++)
            FOR_EACH(r, s)
                sum[r][s] += tile_a[p][x + STEP * r] * tile_b[p][y + STEP * s];
        barrier(CLK_LOCAL_MEM_FENCE);
    }

    c += get_group_id(2) * part_stride;
    FOR_EACH(r, s) {
        const int i = i0 + x + STEP * r, j = j0 + y + STEP * s;
        if (i < m && j < n)
            AT(c, i, j) = alpha * sum[r][s] + (beta == 0 ? 0 : beta * AT(c, i, j)); /* 0 NaN is NaN, so no 0 C */
    }
}

__kernel __attribute__((reqd_work_group_size(256, 1, 1)))
void gemm_sum(int m, int parts, int alpha, int beta, MATRIX(part), long part_stride, MATRIX(c))
{
    const int i = get_global_id(0), j = get_group_id(1);
    if (i < m) {
        real sum = 0;
        for (int z = 0; z < parts; z++)
            sum += AT(part, i + z * part_stride, j);
        AT(c, i, j) = alpha * sum + (beta == 0 ? 0 : beta * AT(c, i, j));
    }
}
