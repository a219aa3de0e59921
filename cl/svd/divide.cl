/* Singular vectors from the compact divide and conquer of csrc/lasda.c.
 *
 * S (U or V of the bidiagonal matrix) begins as the leaves' vectors on its diagonal. A merge changes its own rows and columns, from
 * its first one on; all merges of a level run at once:
 *
 *   merge_rotate    pairs of columns that deflation made alike
 *   merge_gather    ROOM = S's columns in the merge's order; V: and its first and last column rotated
 *   merge_secular   Z = k x k, the vectors of the secular equation's problem
 *   (gemm)          S's first k columns = ROOM Z
 *   merge_keep      the others as ROOM has them
 *
 * A merge is six integers (lai_merge), a level's numbers are arrays of n, LAI_NUMBERS of them (csrc/include/lapack_ai.h).
 * With d_i the old values (poles), s_j the new ones and off a distance that lasd4 gave, d_i - s_j is computed in brackets
 * that cancel nothing, hence no contraction: ((d_i - d_j) - off). */

#define INTEGERS(x) __global const int *x, long x##_offset

/* The places of lai_merge's members. */
#define FIRST 0
#define LEFT 1
#define SIZE 2
#define SIZE_V 3
#define INNER 4
#define ROTATIONS 5
#define MEMBERS 6
#define MEMBER(member) ELEMENT(merges, MEMBERS * node + member)

/* Rows of lai_numbers and lai_indices. */
#define NUMBER(which, i) ELEMENT(numbers, (long)(which) * n + first + (i))
#define Z_OF 0
#define DSIGMA 1
#define SIGMA 2
#define DIFL 3
#define DIFR 4
#define NORMS 5
#define SINES 6
#define COSINES 7
#define LAST_COSINE 8
#define LAST_SINE 9
#define INDEX(which, i) ELEMENT(indices, (long)(which) * n + first + (i))

/* Items: 32 rows x 8 columns. Groups: leaves. */
__kernel __attribute__((reqd_work_group_size(32, 8, 1)))
void leaf_vectors(int right, INTEGERS(leaves), MATRIX(vectors), MATRIX(s))
{
    const int leaf = get_group_id(0), first = ELEMENT(leaves, 3 * leaf), size = ELEMENT(leaves, 3 * leaf + 1 + right);
    for (int j = get_local_id(1); j < size; j += 8)
        for (int i = get_local_id(0); i < size; i += 32)
            AT(s, first + i, first + j) = right ? AT(vectors, first + j, i) : AT(vectors, first + i, j);
}

/* Items: 64 rows. Groups: (rows / 64, merges). */
__kernel __attribute__((reqd_work_group_size(64, 1, 1)))
void merge_rotate(int n, int right, INTEGERS(merges), VECTOR(numbers), INTEGERS(indices), MATRIX(s))
{
    const int node = get_group_id(1), first = MEMBER(FIRST), rotations = MEMBER(ROTATIONS), i = get_global_id(0);
    if (i < MEMBER(SIZE + right))
        for (int g = 0; g < rotations; g++) {
            const int one = first + INDEX(2, g) - 1, other = first + INDEX(1, g) - 1;
            const real cosine = NUMBER(COSINES, g), sine = NUMBER(SINES, g);
            const real x = AT(s, first + i, one), y = AT(s, first + i, other);
            AT(s, first + i, one) = cosine * x + sine * y;
            AT(s, first + i, other) = cosine * y - sine * x;
        }
}

/* Items: 32 rows x 8 columns. Groups: (rows / 32, columns / 8, merges). */
__kernel __attribute__((reqd_work_group_size(32, 8, 1)))
void merge_gather(int n, int right, INTEGERS(merges), VECTOR(numbers), INTEGERS(indices), MATRIX(s), MATRIX(room))
{
    const int node = get_group_id(2), first = MEMBER(FIRST), size = MEMBER(SIZE), rows = MEMBER(SIZE + right);
    const int i = get_global_id(0), j = get_global_id(1), last = rows - 1;
    if (i < rows && j < rows) {
        real value = AT(s, first + i, first + (j < size ? INDEX(0, j) - 1 : last));
        if (rows > size && (j == 0 || j == last)) {
            const real cosine = NUMBER(LAST_COSINE, 0), sine = NUMBER(LAST_SINE, 0);
            const real other = AT(s, first + i, first + (j == 0 ? last : INDEX(0, 0) - 1));
            value = j == 0 ? cosine * value - sine * other : cosine * value + sine * other;
        }
        AT(room, first + i, first + j) = value;
    }
}

/* Items: 64, of a column of Z. Groups: (columns, merges). */
__kernel __attribute__((reqd_work_group_size(64, 1, 1)))
void merge_secular(int n, int right, INTEGERS(merges), VECTOR(numbers), MATRIX(z))
{
#pragma OPENCL FP_CONTRACT OFF
    __local real sums[64];
    const int node = get_group_id(1), first = MEMBER(FIRST), k = MEMBER(INNER), j = get_group_id(0), id = get_local_id(0);
    const int inside = j < k;
    const real at = inside ? NUMBER(DSIGMA, j) : 0, behind = inside && j + 1 < k ? NUMBER(DSIGMA, j + 1) : 0;
    const real from_at = inside ? NUMBER(DIFL, j) : 0, from_behind = inside ? NUMBER(DIFR, j) : 0;
    const real value = inside ? NUMBER(SIGMA, j) : 0;

    real squares = 0;
    if (inside)
        for (int i = id; i < k; i += 64) {
            const real d = NUMBER(DSIGMA, i), z_i = NUMBER(Z_OF, i);
            const real distance = i <= j ? (d - at) - from_at : (d - behind) - from_behind;
            real x = z_i / distance / (d + value);
            if (k == 1)
                x = right || z_i >= 0 ? 1 : -1;
            else if (!right)
                x = i == 0 ? -1 : d * x;
            AT(z, first + i, first + j) = x;
            squares += x * x;
        }
    sums[id] = squares;
    SUM_IN_GROUP(real, sums, 8, id)
    if (inside && k > 1) {
        const real norm = right ? NUMBER(NORMS, j) : sqrt(sums[0]);
        for (int i = id; i < k; i += 64)
            AT(z, first + i, first + j) /= norm;
    }
}

/* Items: 32 rows x 8 columns. Groups: (rows / 32, columns / 8, merges). */
__kernel __attribute__((reqd_work_group_size(32, 8, 1)))
void merge_keep(int right, INTEGERS(merges), MATRIX(room), MATRIX(s))
{
    const int node = get_group_id(2), first = MEMBER(FIRST), rows = MEMBER(SIZE + right);
    const int i = get_global_id(0), j = get_global_id(1) + MEMBER(INNER);
    if (i < rows && j < rows)
        AT(s, first + i, first + j) = AT(room, first + i, first + j);
}

/* B's columns = A's in the given order. Items: 32 rows x 8 columns. Groups: (rows / 32, columns / 8). */
__kernel __attribute__((reqd_work_group_size(32, 8, 1)))
void permute(int m, int n, INTEGERS(order), MATRIX(a), MATRIX(b))
{
    const int i = get_global_id(0), j = get_global_id(1);
    if (i < m && j < n)
        AT(b, i, j) = AT(a, i, ELEMENT(order, j));
}
