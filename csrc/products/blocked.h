/* alphatensor49_blocked: what its driver (blocked.c) and its loops (blocked.inc, one set an instruction set and
 * precision) tell each other. Strides are in bytes, sizes and positions in elements. */
#ifndef LAPACK_AI_BLOCKED_H
#define LAPACK_AI_BLOCKED_H

#include "../native.h"

/* What a real product reads of a complex operand. */
enum lai_component { LAI_REAL, LAI_IMAGINARY, LAI_SUM };

/* An operand cut in 4 x 4 blocks: `minor` is the dimension that its packed vectors run along (rows of A, columns
 * of B), `depth` the inner one. Blocks at the far edges may be shorter, or empty. */
typedef struct {
    const char *data;
    int is_complex;
    enum lai_component component;
    intptr_t minor, depth;                      /* of the whole operand */
    intptr_t minor_stride, depth_stride;
    intptr_t block_minor, block_depth;
    int depth_is_row;                           /* B: the inner dimension is the row of a block */
} lai_blocked_operand;

/* The result: entry + sign * value, for the components of a complex one. */
typedef struct {
    char *data;
    int is_complex;
    int real_sign, imaginary_sign;              /* of a complex result; 0: not touched */
    intptr_t rows, columns, row_stride, column_stride;
    intptr_t block_rows, block_columns;
    int first;                                  /* C = alpha x + beta C, else C += alpha x */
    double alpha, beta;                         /* real results only; beta = 0 does not read C */
} lai_blocked_result;

/* What the guard wants to know of an operand's lines (rows of A, columns of B), as bit patterns without sign. */
typedef struct {
    uint64_t largest;           /* of all magnitudes */
    uint64_t least;             /* of those that are not zero; UINT64_MAX: none */
    uint64_t least_line;        /* of the largest magnitudes of the lines */
    int64_t most_zeros;         /* in a line; of complex elements at least as many as there are */
} lai_blocked_scan;

typedef struct {
    int tile_rows, tile_columns;        /* of the register tile */
    /* Forms of A (of_a), or of B, packed in panels of tile_rows (tile_columns) lines: 49 of them, `stride` elements apart.
     * Lines first.. of each block, a multiple of the panel's width; inner positions from..; depth is a multiple of 4. */
    void (*form)(const lai_blocked_operand *operand, int of_a, intptr_t first, intptr_t lines, intptr_t from, intptr_t depth,
                 void *to, intptr_t stride);
    /* tiles (rows x columns) = rows' panels times columns' panels, while the next ones are fetched into the second-level cache. */
    void (*multiply)(intptr_t depth, const void *rows_panels, intptr_t rows, const void *columns_panels, intptr_t columns,
                     void *tiles, const void *next_rows, const void *next_columns);
    /* The entries of C from the 49 products of rows x columns, at row and column of each block. */
    void (*add_entries)(const void *tiles, intptr_t rows, intptr_t columns, intptr_t row, intptr_t column,
                        const lai_blocked_result *result);
    /* Lines from..to of an operand: minor lines, depth entries each. */
    void (*scan)(const lai_blocked_operand *operand, intptr_t from, intptr_t to, lai_blocked_scan *scan);
} lai_blocked_steps;

/* C = alpha A B + beta C for each product of the stack. complex: alpha = 1, beta = 0. */
int lai_blocked_gemm(int dtype, const lai_product *product, double alpha, double beta);

int lai_blocked_product(int dtype, const lai_product *product, lai_blocks *blocks);

/* The loops of a dtype's precision at the current instruction set; NULL: none. */
const lai_blocked_steps *lai_blocked_steps_of(int dtype);

#endif
