/* Copies and fills, one tile of 32 x 32 elements a work-group of 32 x 8; neighbours work on neighbouring rows.
 *
 *   lascl               B = 2^exponent A, rounded once where it becomes subnormal
 *   lascl_transposed    B = 2^exponent A'
 *   laset               A = alpha off the diagonal, beta on it
 *   lacpy_upper         B = the upper triangle or trapezoid of A, zero below
 *
 * Groups: (tiles of rows, tiles of columns) of A.
 */

#define TILE 32
#define STEP 8

/* For each element (i, j) of this item in a tile. */
#define FOR_TILE(i, j)                                                                              \
    const int i = (int)(get_group_id(0) * TILE + get_local_id(0));                                  \
    for (int j = (int)(get_group_id(1) * TILE + get_local_id(1)), end_ = j + TILE; j < end_; j += STEP)

__kernel __attribute__((reqd_work_group_size(TILE, STEP, 1)))
void lascl(int m, int n, int exponent, MATRIX(a), MATRIX(b))
{
    FOR_TILE(i, j)
        if (i < m && j < n)
            AT(b, i, j) = ldexp(AT(a, i, j), exponent);
}

__kernel __attribute__((reqd_work_group_size(TILE, STEP, 1)))
void lascl_transposed(int m, int n, int exponent, MATRIX(a), MATRIX(b))
{
    __local real tile[TILE][TILE + 1]; /* by columns of A; the pad spreads its rows over the memory banks */
    const int x = get_local_id(0), y = get_local_id(1);
    const int i0 = get_group_id(0) * TILE, j0 = get_group_id(1) * TILE;

    for (int s = y; s < TILE; s += STEP)
        if (i0 + x < m && j0 + s < n)
            tile[s][x] = AT(a, i0 + x, j0 + s);
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int s = y; s < TILE; s += STEP)
        if (j0 + x < n && i0 + s < m)
            AT(b, j0 + x, i0 + s) = ldexp(tile[x][s], exponent);
}

__kernel __attribute__((reqd_work_group_size(TILE, STEP, 1)))
void laset(int m, int n, int alpha, int beta, MATRIX(a))
{
    FOR_TILE(i, j)
        if (i < m && j < n)
            AT(a, i, j) = i == j ? beta : alpha;
}

__kernel __attribute__((reqd_work_group_size(TILE, STEP, 1)))
void lacpy_upper(int m, int n, MATRIX(a), MATRIX(b))
{
    FOR_TILE(i, j)
        if (i < m && j < n)
            AT(b, i, j) = i <= j ? AT(a, i, j) : 0;
}

#undef TILE
#undef STEP
#undef FOR_TILE
