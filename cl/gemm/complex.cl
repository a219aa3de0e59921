/* A complex matrix as the left operand of a product in real arithmetic.
 *
 * Columns of complex numbers are columns of reals, twice as long. Multiplied from the left by a number a + ib, of which
 *
 *     [ a  -b ]
 *     [ b   a ]   is the matrix,
 *
 * they are those of the product. So C = A B is the product of real matrices in which A has such a square for each of
 * its numbers, m x k becoming 2 m x 2 k, and B and C are as they are. The matrix of A' is the transpose of that of A.
 *
 *   real_form   B = [a_1, i a_1, a_2, i a_2, ...] for the columns a of A, or of its conjugate.
 *               Groups of 256: (rows / 256, as many as you like).
 */

__kernel __attribute__((reqd_work_group_size(256, 1, 1)))
void real_form(int m, int n, int conjugate, MATRIX(a), MATRIX(b))
{
    const int i = get_global_id(0);
    if (i < m)
        for (int j = get_group_id(1); j < n; j += get_num_groups(1)) {
            const scalar value = conjugate ? CONJ(AT(a, i, j)) : AT(a, i, j);
            AT(b, i, 2 * j) = value;
            AT(b, i, 2 * j + 1) = (scalar)(-value.y, value.x);
        }
}
