/* Products of matrices. Where C has few tiles and the sums are long, k is split so that all of the device works.
 *
 * Complex matrices are multiplied in real arithmetic: the left one is written out in its real form (cl/gemm/complex.cl),
 * the others are matrices of reals as they are. That takes as many operations as complex arithmetic does, all of them by
 * the kernels of real matrices and hence on matrix units, and memory for a part of the left operand. */
#include "opencl/launch.h"

enum { SMALL, LARGE };  /* tiles */
enum { LARGEST_TILE = 128, SHORTEST = 256, DEPTH_UNIT = 16, ITEMS = 256, MOST_GROUPS = 1024 };

/* Large tiles made products of order 2048 to 8192 a sixth faster on an H100. Only few of them are in work at a time,
 * so they need long sums, lest their ends cost more than that, and enough of them. */
enum { LONG = 256 };
static const double LARGE_GAIN = 7. / 6;

/* Split further only where so much more of the device works then: it costs another launch, and memory traffic. */
static const double SPLIT_GAIN = 9. / 8;

static int64_t tiles_of(const lai_gemm_tile *tile, int m, int n)
{
    return pieces(m, tile->rows) * pieces(n, tile->columns);
}

/* The part of the device that works while so many groups, of equal cost, do: they come in waves. */
static double occupied(const lai_gemm_tile *tile, int64_t groups)
{
    return (double)groups / (double)(pieces(groups, tile->groups) * tile->groups);
}

static int choose_tile(const lai_opencl *cl, int m, int n, int k, int64_t products)
{
    const lai_gemm_tile *const large = &cl->gemm_tile[LARGE];
    if (cl->gemm_large == NULL || k < LONG || m == 0 || n == 0)
        return SMALL;
    const int64_t tiles = tiles_of(large, m, n);
    const double filled = (double)m * n / ((double)tiles * large->rows * large->columns);
    return filled * occupied(large, tiles * products) * LARGE_GAIN >= 1 ? LARGE : SMALL;
}

/* Into how many sums a sum over k is split at most. */
static int64_t most_parts(int m, int n, int k)
{
    const int64_t tiles = most(1, pieces(m, LARGEST_TILE) * pieces(n, LARGEST_TILE));
    return most(1, least(LAI_MANY_GROUPS / tiles, pieces(k, SHORTEST)));
}

static int64_t choose_parts(const lai_gemm_tile *tile, int m, int n, int k)
{
    const int64_t tiles = most(1, tiles_of(tile, m, n));
    const int64_t limit = least(most_parts(m, n, k), 2 * tile->groups / tiles);    /* two waves */
    int64_t best = 1;
    for (int64_t parts = 2; parts <= limit; parts++)
        if (occupied(tile, parts * tiles) > occupied(tile, best * tiles) * SPLIT_GAIN)
            best = parts;
    return best;
}

static int64_t sums_work(int m, int n, int k)
{
    const int64_t parts = most_parts(m, n, k);
    return parts > 1 ? parts * m * n : 0;
}

/* A, B, C and their strides as the kernels take them; the table has a buffer where there are many products. */
#define OPERANDS(a, b, c, part_stride, table, first)                                                        \
    VECTOR(a), LONG(transa ? (a)->ld : 1), LONG(transa ? 1 : (a)->ld),                                      \
    VECTOR(b), LONG(transb ? (b)->ld : 1), LONG(transb ? 1 : (b)->ld), MATRIX(c), LONG(part_stride),        \
    { sizeof(void *), &(void *const){ table } }, LONG(first)

/* Enqueue the kernel of these tiles for an m x n result, z times. */
#define multiply(cl, tile, m, n, z, ...)                                                                    \
    enqueue_tiles(cl, tile, m, n, z, (const lai_argument[]){ __VA_ARGS__ },                                 \
                  sizeof((const lai_argument[]){ __VA_ARGS__ }) / sizeof(lai_argument))

static int enqueue_tiles(const lai_opencl *cl, int tile, int m, int n, int64_t z,
                         const lai_argument *arguments, size_t count)
{
    const lai_gemm_tile *const size = &cl->gemm_tile[tile];
    const lai_groups groups = { pieces(m, size->rows), pieces(n, size->columns), z };
    return lai_cl_enqueue(cl, tile == LARGE ? LAI_CL_KERNELS : LAI_CL_GEMM, (const size_t[]){ (size_t)size->items, 1, 1 },
                          groups, arguments, count);
}

static int real_gemm(const lai_opencl *cl, int transa, int transb, int alpha, const lai_matrix *a, const lai_matrix *b,
                     int beta, const lai_matrix *c, const lai_matrix *work)
{
    const int m = c->rows, n = c->columns, k = transa ? a->rows : a->columns;
    const int tile = choose_tile(cl, m, n, k, 1);
    const int64_t wanted = tile == LARGE ? 1 : choose_parts(&cl->gemm_tile[tile], m, n, k);
    const int depth = (int)most(1, wanted == 1 ? k : pieces(pieces(k, wanted), DEPTH_UNIT) * DEPTH_UNIT);
    const int64_t parts = most(1, pieces(k, depth)), stride = (int64_t)m * n;

    if (parts == 1)
        return multiply(cl, tile, m, n, 1, INT(m), INT(n), INT(k), INT(depth), INT(alpha), INT(beta),
                        OPERANDS(a, b, c, 0, NULL, 0));

    TRY(suffices(work, parts * stride));
    const lai_matrix sums = { work->buffer, work->offset, m, m, n };
    TRY(multiply(cl, tile, m, n, parts, INT(m), INT(n), INT(k), INT(depth), INT(1), INT(0),
                 OPERANDS(a, b, &sums, stride, NULL, 0)));
    return launch(cl, LAI_CL_GEMM_SUM, ((lai_groups){ pieces(m, ITEMS), n, 1 }), INT(m), INT((int)parts),
                  INT(alpha), INT(beta), MATRIX(&sums), LONG(stride), MATRIX(c));
}

/* ---- complex matrices ------------------------------------------------------------------------------ */

/* Elements of op(A) whose real form is there at a time. */
enum { LEFT = 1 << 22, CHUNK_UNIT = 64 };

/* How much of a side of op(A), m x k, that is: of the longer one, all of the other. */
static void chunk_of(int *m, int *k)
{
    int *const longer = *m >= *k ? m : k;
    const int64_t other = most(1, least(*m, *k));
    *longer = (int)least(*longer, most(1, LEFT / other / CHUNK_UNIT) * CHUNK_UNIT);
}

int64_t lai_cl_gemm_work(int dtype, int transb, int m, int n, int k)
{
    if (components(dtype) == 1)
        return sums_work(m, n, k);
    int chunk_m = m, chunk_k = k;
    chunk_of(&chunk_m, &chunk_k);
    const int last_m = chunk_m ? m % chunk_m : 0, last_k = chunk_k ? k % chunk_k : 0;
    const int64_t sums = most(sums_work(2 * chunk_m, n, 2 * chunk_k), most(sums_work(2 * last_m, n, 2 * chunk_k),
                                                                          sums_work(2 * chunk_m, n, 2 * last_k)));
    return 2 * (int64_t)chunk_m * chunk_k + (transb ? (int64_t)k * n : 0) + pieces(sums, 2);
}

/* The real form of A, or of its conjugate: 2 m x 2 k reals. */
static int real_form(const lai_opencl *cl, int conjugate, const lai_matrix *a, lai_workspace *space, lai_matrix *form)
{
    const lai_matrix columns = take(space, a->rows, 2 * (int64_t)a->columns);
    *form = as_reals(cl->dtype, &columns);
    return launch(cl, LAI_CL_REAL_FORM, ((lai_groups){ pieces(a->rows, ITEMS), least(a->columns, MOST_GROUPS), 1 }),
                  INT(a->rows), INT(a->columns), INT(conjugate), MATRIX(a), MATRIX(&columns));
}

/* op(B): B itself, or a copy. */
static int right_operand(const lai_opencl *cl, int transb, const lai_matrix *b, lai_workspace *space, lai_matrix *op_b)
{
    *op_b = *b;
    if (!transb)
        return CL_SUCCESS;
    *op_b = take(space, b->columns, b->rows);
    return lai_cl_lascl(cl, transb, 0, b, op_b);
}

static int complex_gemm(const lai_opencl *cl, int transa, int transb, int alpha, const lai_matrix *a,
                        const lai_matrix *b, int beta, const lai_matrix *c, const lai_matrix *work)
{
    const int m = c->rows, n = c->columns, k = transa ? a->rows : a->columns;
    int chunk_m = m, chunk_k = k;
    chunk_of(&chunk_m, &chunk_k);
    TRY(suffices(work, lai_cl_gemm_work(cl->dtype, transb, m, n, k)));
    lai_workspace space = { work->buffer, work->offset };
    lai_matrix op_b;
    TRY(right_operand(cl, transb, b, &space, &op_b));
    for (int i = 0; i < most(1, m); i += (int)most(1, chunk_m))
        for (int p = 0; p < most(1, k); p += (int)most(1, chunk_k)) {
            const int rows = (int)least(chunk_m, m - i), terms = (int)least(chunk_k, k - p);
            const lai_matrix of_a = transa ? part(a, p, i, terms, rows) : part(a, i, p, rows, terms);
            const lai_matrix of_b = part(&op_b, p, 0, terms, n), of_c = part(c, i, 0, rows, n);
            const lai_matrix right = as_reals(cl->dtype, &of_b), result = as_reals(cl->dtype, &of_c);
            lai_workspace of_chunk = space;
            lai_matrix left;
            TRY(real_form(cl, transa == 1, &of_a, &of_chunk, &left));
            const lai_matrix sums = take(&of_chunk, pieces(sums_work(2 * rows, n, 2 * terms), 2), 1);
            const lai_matrix real_sums = as_reals(cl->dtype, &sums);
            TRY(real_gemm(cl, transa, 0, alpha, &left, &right, p > 0 ? 1 : beta, &result, &real_sums));
        }
    return CL_SUCCESS;
}

int lai_cl_gemm(const lai_opencl *cl, int transa, int transb, int alpha, const lai_matrix *a, const lai_matrix *b,
                int beta, const lai_matrix *c, const lai_matrix *work)
{
    return (components(cl->dtype) > 1 ? complex_gemm : real_gemm)(cl, transa, transb, alpha, a, b, beta, c, work);
}

/* ---- many products ----------------------------------------------------------------------------------- */

static int real_gemm_blocks(const lai_opencl *cl, int width, const lai_matrix *a, int transb, const lai_matrix *b,
                            const lai_matrix *c, int64_t stride)
{
    const int transa = 0, m = a->rows, n = transb ? b->rows : b->columns, k = a->columns;
    const int64_t blocks = pieces(k, width);    /* as the parts of a sum that nobody adds up */
    return multiply(cl, choose_tile(cl, m, n, width, blocks), m, n, blocks, INT(m), INT(n), INT(k), INT(width),
                    INT(1), INT(0), OPERANDS(a, b, c, stride, NULL, 0));
}

int64_t lai_cl_gemm_blocks_work(int dtype, int m, int n, int k)
{
    return components(dtype) > 1 ? 2 * (int64_t)m * k + (int64_t)k * n : 0;
}

int lai_cl_gemm_blocks(const lai_opencl *cl, int width, const lai_matrix *a, const lai_matrix *b,
                       const lai_matrix *c, int64_t stride, const lai_matrix *work)
{
    if (components(cl->dtype) == 1)
        return real_gemm_blocks(cl, width, a, 1, b, c, stride);
    TRY(suffices(work, lai_cl_gemm_blocks_work(cl->dtype, a->rows, b->rows, a->columns)));
    lai_workspace space = { work->buffer, work->offset };
    lai_matrix left, op_b;
    TRY(real_form(cl, 0, a, &space, &left));
    TRY(right_operand(cl, 2, b, &space, &op_b));
    const lai_matrix right = as_reals(cl->dtype, &op_b), result = as_reals(cl->dtype, c);
    return real_gemm_blocks(cl, 2 * width, &left, 0, &right, &result, 2 * stride);
}

int lai_cl_gemm_batch(const lai_opencl *cl, int transa, int transb, int alpha, const lai_matrix *a,
                      const lai_matrix *b, int beta, const lai_matrix *c, void *table, int64_t first, int products,
                      int m, int n)
{
    const int k = (int)least(m, n);     /* a guess: only the device knows */
    return multiply(cl, choose_tile(cl, m, n, k, products), m, n, products, INT(m), INT(n), INT(0), INT(0),
                    INT(alpha), INT(beta), OPERANDS(a, b, c, 0, table, first));
}
