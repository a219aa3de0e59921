/* Copies and fills, one tile of 32 x 32 elements a work-group of 32 x 8; neighbours work on neighbouring rows.
 *
 *   lascl               B = 2^exponent A, rounded once where it becomes subnormal
 *   lascl_transposed    B = 2^exponent A', or the conjugate of that
 *   laset               A = alpha off the diagonal, beta on it
 *   lacpy_upper         B = the upper triangle or trapezoid of A, zero below
 *   lacp2               B = A, which is real
 *
 * Groups: (tiles of rows, y, z) of A, y z at least the tiles of columns: some devices have 65535 groups at most
 * in the second dimension, and the tall matrix that the host keeps by rows is a very wide one here.
 */

#define TILE 32
#define STEP 8

#define FIRST_ROW (get_group_id(0) * TILE)
#define FIRST_COLUMN ((get_group_id(1) + get_group_id(2) * get_num_groups(1)) * TILE)

/* For each element (i, j) of this item in a tile. */
#define FOR_TILE(i, j)                                      \
    const int i = (int)(FIRST_ROW + get_local_id(0));       \
    for (int j = (int)(FIRST_COLUMN + get_local_id(1)), end_ = j + TILE; j < end_; j += STEP)

__kernel __attribute__((reqd_work_group_size(TILE, STEP, 1)))
void lascl(int m, int n, int exponent, MATRIX(a), MATRIX(b))
{
    FOR_TILE(i, j)
        if (i < m && j < n)
            AT(b, i, j) = LDEXP(AT(a, i, j), exponent);
}

__kernel __attribute__((reqd_work_group_size(TILE, STEP, 1)))
void lascl_transposed(int m, int n, int exponent, int conjugate, MATRIX(a), MATRIX(b))
{
    __local scalar tile[TILE][TILE + 1]; /* by columns of A; the pad spreads its rows over the memory banks */
    const int x = get_local_id(0), y = get_local_id(1);
    const int i0 = FIRST_ROW, j0 = FIRST_COLUMN;

    for (int s = y; s < TILE; s += STEP)
        if (i0 + x < m && j0 + s < n)
            tile[s][x] = AT(a, i0 + x, j0 + s);
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int s = y; s < TILE; s += STEP)
        if (j0 + x < n && i0 + s < m) {
            const scalar value = conjugate ? CONJ(tile[x][s]) : tile[x][s];
            AT(b, j0 + x, i0 + s) = LDEXP(value, exponent);
        }
}

__kernel __attribute__((reqd_work_group_size(TILE, STEP, 1)))
void laset(int m, int n, int alpha, int beta, MATRIX(a))
{
    FOR_TILE(i, j)
        if (i < m && j < n)
            AT(a, i, j) = SCALAR(i == j ? beta : alpha);
}

__kernel __attribute__((reqd_work_group_size(TILE, STEP, 1)))
void lacpy_upper(int m, int n, MATRIX(a), MATRIX(b))
{
    FOR_TILE(i, j)
        if (i < m && j < n)
            AT(b, i, j) = i <= j ? AT(a, i, j) : ZERO;
}

#ifdef COMPLEX
__kernel __attribute__((reqd_work_group_size(TILE, STEP, 1)))
void lacp2(int m, int n, REAL_MATRIX(a), MATRIX(b))
{
    FOR_TILE(i, j)
        if (i < m && j < n)
            AT(b, i, j) = SCALAR(AT(a, i, j));
}
#endif

#undef TILE
#undef STEP
#undef FIRST_ROW
#undef FIRST_COLUMN
#undef FOR_TILE
