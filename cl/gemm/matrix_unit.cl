/* gemm in double precision on the matrix units of NVIDIA's GPUs, see cl/gemm/product.cl.
 *
 * A warp of 32 items computes WARP_M x WARP_N elements of the group's tile in blocks of 16 x 8, by the instruction
 * mma.m16n8kK (PTX ISA, "Warp Level Matrix Multiply-Accumulate"): with g = lane / 4 and t = lane % 4 an item holds
 *
 *     of A    rows g, g + 8, columns t, t + 4, ...: a[2 l] = (g, t + 4 l), a[2 l + 1] = (g + 8, t + 4 l)
 *     of B    b[l] = (t + 4 l, g)
 *     of C    c[0], c[1] = (g, 2 t), (g, 2 t + 1);  c[2], c[3] likewise in row g + 8
 *
 * Which row of the tile is called g and which g + 8 is free: they are 2 g and 2 g + 1 here, so that an item reads both
 * at once, and two neighbouring blocks share their columns in the same way. In local memory element s of
 * step p is at place s ^ 4 (p % 4): the items of a warp find their fragments in different banks.
 *
 * The operands come by asynchronous copies, STAGES - 1 steps ahead. MATRIX_UNIT says how the products are made:
 *     16  m16n8k(4 DEPTH), of compute capability 9.0      8  m8n8k4, of 8.0      0  in OpenCL C, for tests
 */

#ifndef MATRIX_UNIT
#define MATRIX_UNIT 16
#endif
#ifndef WARPS_M
#define WARPS_M 2   /* warps above each other */
#endif
#ifndef WARPS_N
#define WARPS_N 2   /* warps side by side */
#endif
#ifndef BLOCKS_M
#define BLOCKS_M 2   /* blocks of a warp above each other */
#endif
#ifndef BLOCKS_N
#define BLOCKS_N 4   /* blocks of a warp side by side; even */
#endif
#ifndef DEPTH
#define DEPTH 4   /* a product is 4 DEPTH deep */
#endif
#ifndef STEP
#define STEP 16
#endif
#ifndef STAGES
#define STAGES 2
#endif

#define ITEMS (32 * WARPS_M * WARPS_N)
#define TILE_M (16 * BLOCKS_M * WARPS_M)
#define TILE_N (8 * BLOCKS_N * WARPS_N)
#define UNROLL _Pragma("unroll")

/* ---- copies to local memory ------------------------------------------------------ */

/* One double or two, of which `count` exist; zeros take the place of the others. */
#if MATRIX_UNIT != 0 && !defined SYNCHRONOUS
#define COPY_1(to, from, count)                                                                             \
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;"                                             \
                 :: "r"((uint)(ulong)(to)), "l"((ulong)(from)), "r"(8 * (int)(count)) : "memory")
#define COPY_2(to, from, count)                                                                             \
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"                                            \
                 :: "r"((uint)(ulong)(to)), "l"((ulong)(from)), "r"(8 * (int)(count)) : "memory")
#define COPIES_END() asm volatile("cp.async.commit_group;" ::: "memory")
#if STAGES == 2 /* wait until all but the last STAGES - 2 steps have arrived */
#define COPIES_WAIT() asm volatile("cp.async.wait_group 0;" ::: "memory")
#elif STAGES == 3
#define COPIES_WAIT() asm volatile("cp.async.wait_group 1;" ::: "memory")
#else
#define COPIES_WAIT() asm volatile("cp.async.wait_group 2;" ::: "memory")
#endif
#else
#define COPY_1(to, from, count) *(to) = (count) > 0 ? *(from) : 0
#define COPY_2(to, from, count) { COPY_1(to, from, count); COPY_1((to) + 1, (from) + 1, (count) - 1); }
#define COPIES_END()
#define COPIES_WAIT()
#endif

/* C is on its way to the device's cache while the sums are made. */
#if MATRIX_UNIT != 0
#define PREFETCH(from) asm volatile("prefetch.global.L2 [%0];" :: "l"((ulong)(from)))
#else
#define PREFETCH(from)
#endif
#define SECTORS (TILE_M / 4) /* of 32 bytes, which are loaded each on its own, of a column of the tile */

/* What an item copies of an operand, called x: pairs of elements along the tile's side, where that stride
 * is 1, or single elements with neighbours along k. Its first ones are at (s, p), `room` of them inside the matrix. */
#define OPERAND(x, x_s, x_p, x0, size, TILE)                                                                \
    const bool x##_along = x_s == 1;                                                                        \
    const int x##_at = x##_along ? 2 * (id % (TILE / 2)) : id / 4 % TILE;                                   \
    const int x##_p0 = x##_along ? id / (TILE / 2) : id % 4 + id / 4 / TILE * 4;                            \
    const int x##_place = x##_p0 * TILE + (x##_at ^ 4 * (x##_p0 % 4)), x##_room = size - x0 - x##_at;       \
    x += (x0 + x##_at) * x_s + (first + x##_p0) * x_p;                                                      \
    const bool x##_aligned = x_p % 2 == 0 && (ulong)(x - x##_p0 * x_p) % 16 == 0;

/* Copy the step of x that begins at p. */
#define COPY(tile, x, x_s, x_p, p, TILE)                                                                    \
    if (x##_along) {                                                                                        \
        UNROLL for (int r = 0; r < PAIRS(TILE); r++) {                                                      \
            const int p_ = r * (2 * ITEMS / TILE), count_ = (p) + x##_p0 + p_ < last ? clamp(x##_room, 0, 2) : 0; \
            if (x##_aligned) {                                                                              \
                COPY_2(&tile[x##_place + p_ * TILE], x + p_ * x_p, count_);                                 \
            } else {                                                                                        \
                COPY_1(&tile[x##_place + p_ * TILE], x + p_ * x_p, count_ > 0);                             \
                COPY_1(&tile[x##_place + p_ * TILE + 1], x + p_ * x_p + 1, count_ > 1);                     \
            }                                                                                               \
        }                                                                                                   \
    } else {                                                                                                \
        UNROLL for (int r = 0; r < 2 * PAIRS(TILE); r++) {                                                  \
            const int q_ = r * (ITEMS / 4), s_ = q_ % TILE, p_ = q_ / TILE * 4;                             \
            COPY_1(&tile[x##_place + p_ * TILE + s_], x + s_ * x_s + p_ * x_p,                              \
                   (p) + x##_p0 + p_ < last && s_ < x##_room);                                              \
        }                                                                                                   \
    }                                                                                                       \
    x += STEP * x_p;

#define PAIRS(TILE) (TILE * STEP / 2 / ITEMS) /* of a step, for one item */

/* ---- products of 16 x 4 DEPTH and 4 DEPTH x 8 ------------------------------------------- */

#if MATRIX_UNIT == 16 && DEPTH == 4
#define MULTIPLY(c, a, b)                                                                                   \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f64.f64.f64.f64 {%0,%1,%2,%3}, "                        \
                 "{%4,%5,%6,%7,%8,%9,%10,%11}, {%12,%13,%14,%15}, {%0,%1,%2,%3};"                           \
                 : "+d"(c[0]), "+d"(c[1]), "+d"(c[2]), "+d"(c[3])                                           \
                 : "d"(a[0]), "d"(a[1]), "d"(a[2]), "d"(a[3]), "d"(a[4]), "d"(a[5]), "d"(a[6]), "d"(a[7]),  \
                   "d"(b[0]), "d"(b[1]), "d"(b[2]), "d"(b[3]))
#elif MATRIX_UNIT == 16 && DEPTH == 2
#define MULTIPLY(c, a, b)                                                                                   \
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f64.f64.f64.f64 {%0,%1,%2,%3}, "                         \
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                                                   \
                 : "+d"(c[0]), "+d"(c[1]), "+d"(c[2]), "+d"(c[3])                                           \
                 : "d"(a[0]), "d"(a[1]), "d"(a[2]), "d"(a[3]), "d"(b[0]), "d"(b[1]))
#elif MATRIX_UNIT == 8
#define MULTIPLY_8(c, d, a, b)                                                                              \
    asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0,%1}, {%2}, {%3}, {%0,%1};"            \
                 : "+d"(c), "+d"(d) : "d"(a), "d"(b))
#define MULTIPLY(c, a, b)                                                                                   \
    UNROLL for (int l = 0; l < DEPTH; l++) {                                                                \
        MULTIPLY_8(c[0], c[1], a[2 * l], b[l]);                                                             \
        MULTIPLY_8(c[2], c[3], a[2 * l + 1], b[l]);                                                         \
    }
#else
#define MULTIPLY(c, a, b)                                                                                   \
    barrier(CLK_LOCAL_MEM_FENCE);                                                                           \
    for (int l = 0; l < DEPTH; l++)                                                                         \
        all[id][2 * l] = a[2 * l], all[id][2 * l + 1] = a[2 * l + 1], all[id][2 * DEPTH + l] = b[l];        \
    barrier(CLK_LOCAL_MEM_FENCE);                                                                           \
    for (int e = 0; e < 4; e++)                                                                             \
        for (int l = 0; l < 4 * DEPTH; l++)                                                                 \
            c[e] += all[id - lane + 4 * g + l % 4][l / 4 * 2 + e / 2] *                                     \
                    all[id - lane + 4 * (2 * t + e % 2) + l % 4][2 * DEPTH + l / 4];
#endif

/* ---- the kernel ---------------------------------------------------------------------- */

/* For the elements (i, j) and (i + 1, j) of C that an item holds of blocks s and s + 1 of its warp. */
#define FOR_EACH_PAIR(...)                                                                                  \
    UNROLL for (int r = 0; r < BLOCKS_M; r++)                                                               \
        UNROLL for (int e = 0; e < 4; e++) {                                                                \
            const int i = i0 + i_warp + 16 * r + 2 * g, j = j0 + j_warp + 8 * s + 4 * t + e;                \
            __VA_ARGS__                                                                                     \
        }

__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1)))
void gemm_matrix_unit(GEMM_ARGUMENTS)
{
    __local double tile_a[STAGES][STEP * TILE_M] __attribute__((aligned(16)));
    __local double tile_b[STAGES][STEP * TILE_N] __attribute__((aligned(16)));
#if MATRIX_UNIT == 0
    __local double all[ITEMS][3 * DEPTH];
#endif
    const int id = get_local_id(0), lane = id % 32, g = lane / 4, t = lane % 4;
    const int i_warp = id / 32 % WARPS_M * 16 * BLOCKS_M, j_warp = id / 32 / WARPS_M * 8 * BLOCKS_N;
    GEMM_TILE(TILE_M, TILE_N)
    if (beta != 0)
        for (int s = id; s < SECTORS * TILE_N; s += ITEMS) {
            const int i = i0 + s % SECTORS * (TILE_M / SECTORS), j = j0 + s / SECTORS;
            if (i < m && j < n)
                PREFETCH(c + i + j * c_ld);
        }
    OPERAND(a, a_i, a_p, i0, m, TILE_M)
    OPERAND(b, b_j, b_p, j0, n, TILE_N)

    double sum[BLOCKS_M][BLOCKS_N][4];
    UNROLL for (int r = 0; r < BLOCKS_M; r++)
        UNROLL for (int s = 0; s < BLOCKS_N; s++)
            UNROLL for (int e = 0; e < 4; e++)
                sum[r][s][e] = 0;

    for (int stage = 0; stage < STAGES - 1; stage++) {
        COPY(tile_a[stage], a, a_i, a_p, first + stage * STEP, TILE_M)
        COPY(tile_b[stage], b, b_j, b_p, first + stage * STEP, TILE_N)
        COPIES_END();
    }

    for (int p0 = first, now = 0; p0 < last; p0 += STEP, now = now + 1 == STAGES ? 0 : now + 1) {
        const int free = now == 0 ? STAGES - 1 : now - 1;
        COPIES_WAIT();
        barrier(CLK_LOCAL_MEM_FENCE);
        if (p0 + (STAGES - 1) * STEP < last) {
            COPY(tile_a[free], a, a_i, a_p, p0 + (STAGES - 1) * STEP, TILE_M)
            COPY(tile_b[free], b, b_j, b_p, p0 + (STAGES - 1) * STEP, TILE_N)
        }
        COPIES_END();

        UNROLL for (int p = 0; p < STEP; p += 4 * DEPTH) {
            double left[BLOCKS_M][2 * DEPTH], above[BLOCKS_N][DEPTH];
            UNROLL for (int l = 0; l < DEPTH; l++) {
                UNROLL for (int r = 0; r < BLOCKS_M; r++) {
                    const double2 two = *(__local const double2 *)
                        &tile_a[now][(p + 4 * l + t) * TILE_M + i_warp + 16 * r + (2 * g ^ 4 * t)];
                    left[r][2 * l] = two.x, left[r][2 * l + 1] = two.y;
                }
                UNROLL for (int s = 0; s < BLOCKS_N; s += 2) {
                    const double2 two = *(__local const double2 *)
                        &tile_b[now][(p + 4 * l + t) * TILE_N + j_warp + 8 * s + (2 * g ^ 4 * t)];
                    above[s][l] = two.x, above[s + 1][l] = two.y;
                }
            }
            UNROLL for (int r = 0; r < BLOCKS_M; r++)
                UNROLL for (int s = 0; s < BLOCKS_N; s++) {
                    MULTIPLY(sum[r][s], left[r], above[s]);
                }
        }
    }

    /* Two blocks of columns at a time: all that is read of C is on its way before the first element is written, for
     * the compiler cannot know that no later one depends on it. Most tiles need no tests. */
    const bool whole = i0 + TILE_M <= m && j0 + TILE_N <= n && c_ld % 2 == 0 && (ulong)c % 16 == 0;
    UNROLL for (int s = 0; s < BLOCKS_N; s += 2) {
        double2 old[BLOCKS_M][4];
        FOR_EACH_PAIR(old[r][e] = 0;)
        if (beta != 0 && whole) {
            FOR_EACH_PAIR(old[r][e] = *(__global const double2 *)&c[i + j * c_ld];)
        } else if (beta != 0) {
            FOR_EACH_PAIR(
                if (i < m && j < n)
                    old[r][e].x = c[i + j * c_ld];
                if (i + 1 < m && j < n)
                    old[r][e].y = c[i + 1 + j * c_ld];
            )
        }
        FOR_EACH_PAIR(
            const double2 both = (double2)(sum[r][s + e % 2][e / 2], sum[r][s + e % 2][e / 2 + 2]);
            old[r][e] = GEMM_RESULT(double2, both, old[r][e]);
        )
        if (whole) {
            FOR_EACH_PAIR(*(__global double2 *)&c[i + j * c_ld] = old[r][e];)
        } else {
            FOR_EACH_PAIR(
                if (i < m && j < n)
                    c[i + j * c_ld] = old[r][e].x;
                if (i + 1 < m && j < n)
                    c[i + 1 + j * c_ld] = old[r][e].y;
            )
        }
    }
}
