/* What the kernels of C = alpha op(A) op(B) + beta C share; op(A) is m x k, op(B) k x n, C m x n, of any sizes.
 *
 * A work-group computes one tile of C. Transposition is a pair of strides: op(A)(i, p) is at
 * a_offset + i a_i + p a_p, op(B)(p, j) at b_offset + p b_p + j b_j, one of the two being 1.
 *
 * groups: (tiles of rows, tiles of columns, z). Without a table z is a part of k, the p in
 * [z depth, (z + 1) depth): with one part the kernel finishes C; with more, part z writes its sum to
 * C + z part_stride, alpha = 1, beta = 0, and gemm_sum adds them up. With a table, z is one of many products
 * of the same strides, whose sizes and offsets stand in row z; there are groups for the largest one.
 */

typedef struct {
    long a, b, c;   /* elements from the first one of A, B and C */
    int m, n, k;
    int unused;     /* the size of a row is a multiple of 8 */
} product;          /* lai_gemm_row in csrc/include/lapack_ai.h */

#define SWATH 8     /* rows of tiles that groups walk through together: their operands stay in the cache */

#define GEMM_ARGUMENTS                                                                                      \
    int m, int n, int k, int depth, int alpha, int beta, VECTOR(a), long a_i, long a_p,                     \
    VECTOR(b), long b_p, long b_j, MATRIX(c), long part_stride, __global const product *table, long first_row

/* Declares the group's tile, whose first element is (i0, j0), and its part of k, [first, last). */
#define GEMM_TILE(TILE_M, TILE_N)                                                                           \
    int first = get_group_id(2) * depth, last = min(k, first + depth);                                      \
    c += c_offset + get_group_id(2) * part_stride;                                                          \
    a += a_offset, b += b_offset;                                                                           \
    if (table != 0) {                                                                                       \
        const product row_ = table[first_row + get_group_id(2)];                                            \
        a += row_.a, b += row_.b, c += row_.c;                                                              \
        m = row_.m, n = row_.n;                                                                             \
        first = 0, last = row_.k;                                                                           \
    }                                                                                                       \
    const int tall_ = get_num_groups(0), wide_ = get_num_groups(1);                                         \
    const int number_ = get_group_id(0) + tall_ * get_group_id(1), swath_ = number_ / (SWATH * wide_);      \
    const int height_ = min(SWATH, tall_ - SWATH * swath_), inside_ = number_ - swath_ * SWATH * wide_;     \
    const int i0 = (swath_ * SWATH + inside_ % height_) * TILE_M, j0 = inside_ / height_ * TILE_N;          \
    if (i0 >= m || j0 >= n)                                                                                 \
        last = first; /* a smaller product of the table has no such tile */

/* What becomes of one element or more of C; 0 NaN is NaN, so beta = 0 does not read them but has 0 in their place. */
#define GEMM_RESULT(type, sum, old) ((type)alpha * (sum) + (type)beta * (old))

/* C = alpha (sum of the parts) + beta C. Groups of 256: (rows / 256, columns). */
__kernel __attribute__((reqd_work_group_size(256, 1, 1)))
void gemm_sum(int m, int parts, int alpha, int beta, MATRIX(part), long part_stride, MATRIX(c))
{
    const int i = get_global_id(0), j = get_group_id(1);
    if (i < m) {
        real sum = 0;
        for (int z = 0; z < parts; z++)
            sum += AT(part, i + z * part_stride, j);
        AT(c, i, j) = GEMM_RESULT(real, sum, beta == 0 ? 0 : AT(c, i, j));
    }
}
