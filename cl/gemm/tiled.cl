/* gemm on any device, see cl/gemm/product.cl.
 *
 * Each of 256 items, 16 by 16, computes EACH_M x EACH_N elements of the group's tile (options of the build), in runs
 * of WIDTH rows and columns, 16 WIDTH apart. The operands pass through local memory, STEP columns of op(A) and STEP
 * rows of op(B) at a time, filled up with zeros at the edges. The next ones are on their way into registers meanwhile,
 * and go to the other one of two buffers: one barrier a step.
 */

#if PRECISION == 64
typedef double2 run;
#define WIDTH 2
#else
typedef float4 run;
#define WIDTH 4
#endif
#ifndef STEP
#define STEP 8
#endif

#define SIDE 16
#define ITEMS (SIDE * SIDE)
#define TILE_M (SIDE * EACH_M)
#define TILE_N (SIDE * EACH_N)
#define LOADS_M (TILE_M * STEP / ITEMS) /* of op(A), by one item */
#define LOADS_N (TILE_N * STEP / ITEMS)
#define PITCH_M (TILE_M + WIDTH)        /* the pads spread columns over the memory banks */
#define PITCH_N (TILE_N + WIDTH)
#define UNROLL _Pragma("unroll")

/* Which elements of an operand, called x here, an item loads. The first one is at place (s, p), s along the
 * tile's side, p along k; the others follow by (s_by, p_by). Neighbours load along the stride that is 1. */
#define OPERAND(x, x_s, x_p, x0, TILE, PITCH)                                                               \
    const bool x##_along = x_s == 1;                                                                        \
    const int x##_at = x##_along ? id % TILE : id / STEP, x##_p0 = x##_along ? id / TILE : id % STEP;       \
    const int x##_s_by = x##_along ? 0 : ITEMS / STEP, x##_p_by = x##_along ? ITEMS / TILE : 0;             \
    const long x##_by = x##_s_by * x_s + x##_p_by * x_p;                                                    \
    const int x##_place = x##_at + x##_p0 * PITCH, x##_place_by = x##_s_by + x##_p_by * PITCH;              \
    x += (x0 + x##_at) * x_s + (first + x##_p0) * x_p;

/* Load an item's elements of x for the step that begins at p: all of them exist, or those before the edges. */
#define FETCH(x, x_p, LOADS, into, whole, p, side)                                                          \
    UNROLL for (int r = 0; r < LOADS; r++)                                                                  \
        into[r] = whole || (x##_at + r * x##_s_by < (side) && (p) + x##_p0 + r * x##_p_by < last)           \
                ? x[r * x##_by] : 0;                                                                        \
    x += STEP * x_p;

#define STORE(x, LOADS, from, tile)                                                                         \
    UNROLL for (int r = 0; r < LOADS; r++)                                                                  \
        tile[x##_place + r * x##_place_by] = from[r];

/* For the runs that an item computes side by side; the first element of run s is (i, j). */
#define FOR_EACH_RUN(...)                                                                                   \
    UNROLL for (int s = 0; s < EACH_N; s++) {                                                               \
        const int j = j0 + WIDTH * (y + SIDE * (s / WIDTH)) + s % WIDTH;                                    \
        __VA_ARGS__                                                                                         \
    }

__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1)))
void gemm(GEMM_ARGUMENTS)
{
    __local real tile_a[2][STEP * PITCH_M] __attribute__((aligned(16)));
    __local real tile_b[2][STEP * PITCH_N] __attribute__((aligned(16)));
    const int id = get_local_id(0), x = id % SIDE, y = id / SIDE;
    GEMM_TILE(TILE_M, TILE_N)
    const bool inside = i0 + TILE_M <= m && j0 + TILE_N <= n;
    OPERAND(a, a_i, a_p, i0, TILE_M, PITCH_M)
    OPERAND(b, b_j, b_p, j0, TILE_N, PITCH_N)

    real sum[EACH_M][EACH_N], next_a[LOADS_M], next_b[LOADS_N];
    UNROLL for (int r = 0; r < EACH_M; r++)
        UNROLL for (int s = 0; s < EACH_N; s++)
            sum[r][s] = 0;
    FETCH(a, a_p, LOADS_M, next_a, false, first, m - i0)
    FETCH(b, b_p, LOADS_N, next_b, false, first, n - j0)
    STORE(a, LOADS_M, next_a, tile_a[0])
    STORE(b, LOADS_N, next_b, tile_b[0])
    barrier(CLK_LOCAL_MEM_FENCE);

    for (int p0 = first, now = 0; p0 < last; p0 += STEP, now = 1 - now) {
        const int next = p0 + STEP;
        if (inside && next + STEP <= last) {
            FETCH(a, a_p, LOADS_M, next_a, true, next, m - i0)
            FETCH(b, b_p, LOADS_N, next_b, true, next, n - j0)
        } else { /* behind the last step this loads nothing */
            FETCH(a, a_p, LOADS_M, next_a, false, next, m - i0)
            FETCH(b, b_p, LOADS_N, next_b, false, next, n - j0)
        }
        UNROLL for (int p = 0; p < STEP; p++) {
            run left[EACH_M / WIDTH], above[EACH_N / WIDTH];
            UNROLL for (int r = 0; r < EACH_M / WIDTH; r++)
                left[r] = *(__local const run *)&tile_a[now][p * PITCH_M + WIDTH * (x + SIDE * r)];
            UNROLL for (int s = 0; s < EACH_N / WIDTH; s++)
                above[s] = *(__local const run *)&tile_b[now][p * PITCH_N + WIDTH * (y + SIDE * s)];
            UNROLL for (int r = 0; r < EACH_M; r++)
                UNROLL for (int s = 0; s < EACH_N; s++)
                    sum[r][s] += ((const real *)left)[r] * ((const real *)above)[s];
        }
        STORE(a, LOADS_M, next_a, tile_a[1 - now])
        STORE(b, LOADS_N, next_b, tile_b[1 - now])
        barrier(CLK_LOCAL_MEM_FENCE);
    }

    /* EACH_N runs at a time: all that is read of C for them is on its way before the first one is written, for the
     * compiler cannot know that no later one depends on it. More of them would take too many registers. */
    const bool whole = inside && c_ld % WIDTH == 0 && (ulong)c % sizeof(run) == 0;
    UNROLL for (int r = 0; r < EACH_M; r += WIDTH) {
        const int i = i0 + WIDTH * x + SIDE * r;
        run old[EACH_N];
        FOR_EACH_RUN(old[s] = 0;)
        if (beta != 0 && whole) {
            FOR_EACH_RUN(old[s] = *(__global const run *)&c[i + j * c_ld];)
        } else if (beta != 0) {
            FOR_EACH_RUN(
                UNROLL for (int l = 0; l < WIDTH; l++)
                    if (i + l < m && j < n)
                        ((real *)old)[s * WIDTH + l] = c[i + l + j * c_ld];
            )
        }
        FOR_EACH_RUN(
            UNROLL for (int l = 0; l < WIDTH; l++) {
                real *const each = &((real *)old)[s * WIDTH + l];
                *each = GEMM_RESULT(real, sum[r + l][s], *each);
            }
        )
        if (whole) {
            FOR_EACH_RUN(*(__global run *)&c[i + j * c_ld] = old[s];)
        } else {
            FOR_EACH_RUN(
                UNROLL for (int l = 0; l < WIDTH; l++)
                    if (i + l < m && j < n)
                        c[i + l + j * c_ld] = ((const real *)old)[s * WIDTH + l];
            )
        }
    }
}

#undef WIDTH
#undef EACH_M
#undef EACH_N
#undef STEP
#undef SIDE
#undef ITEMS
#undef TILE_M
#undef TILE_N
#undef LOADS_M
#undef LOADS_N
#undef PITCH_M
#undef PITCH_N
#undef OPERAND
#undef FETCH
#undef STORE
#undef FOR_EACH_RUN
