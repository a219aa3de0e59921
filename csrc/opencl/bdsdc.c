/* Singular vectors of a bidiagonal matrix from the compact form of csrc/lasda.c; the mathematics is in cl/svd/divide.cl. */
#include "opencl/launch.h"

enum { ROWS = 32, COLUMNS = 8, ITEMS = 64 };

#define INTEGERS(place) { sizeof(void *), &places->integers }, LONG(place)

/* The largest of each size among a level's merges. */
static lai_merge largest_of(const lai_tree *tree, int level)
{
    lai_merge found = { 0 };
    for (int node = 0; node < tree->counts[level]; node++) {
        const lai_merge *merge = &tree->merges[(int64_t)level * tree->most + node];
        found.size = (int)most(found.size, merge->size);
        found.size_v = (int)most(found.size_v, merge->size_v);
        found.k = (int)most(found.k, merge->k);
        found.rotations = (int)most(found.rotations, merge->rotations);
    }
    return found;
}

static int merge_level(const lai_opencl *cl, const lai_tree *tree, int level, int right, const lai_matrix *numbers,
                       const lai_tree_places *places, const lai_matrix *s, const lai_matrix *room, const lai_matrix *z)
{
    const int n = s->columns, count = tree->counts[level];
    const lai_merge largest = largest_of(tree, level);
    const int rows = right ? largest.size_v : largest.size;
    const lai_groups blocks = { pieces(rows, ROWS), pieces(rows, COLUMNS), count };
    const lai_matrix of_level = part(numbers, level * LAI_NUMBERS * n, 0, LAI_NUMBERS * n, 1);
    const int64_t merges = places->merges + (int64_t)level * tree->most * (int64_t)(sizeof(lai_merge) / sizeof(int));
    const int64_t indices = places->indices + (int64_t)level * LAI_INDICES * n;
    const int64_t first_product = (2 * (int64_t)level + right) * tree->most;

    if (largest.rotations > 0)
        TRY(launch(cl, LAI_CL_MERGE_ROTATE, ((lai_groups){ pieces(rows, ITEMS), count, 1 }), INT(n), INT(right),
                   INTEGERS(merges), VECTOR(&of_level), INTEGERS(indices), MATRIX(s)));
    TRY(launch(cl, LAI_CL_MERGE_GATHER, blocks, INT(n), INT(right), INTEGERS(merges), VECTOR(&of_level), INTEGERS(indices),
               MATRIX(s), MATRIX(room)));
    TRY(launch(cl, LAI_CL_MERGE_SECULAR, ((lai_groups){ largest.k, count, 1 }), INT(n), INT(right), INTEGERS(merges),
               VECTOR(&of_level), MATRIX(z)));
    TRY(lai_cl_gemm_batch(cl, 0, 0, 1, room, z, 0, s, places->products, first_product, count, rows, largest.k));
    TRY(launch(cl, LAI_CL_MERGE_KEEP, blocks, INT(right), INTEGERS(merges), MATRIX(room), MATRIX(s)));
    return lai_cl_flush(cl);
}

int lai_cl_bdsdc(const lai_opencl *cl, const lai_tree *tree, int right, const lai_matrix *numbers, const lai_tree_places *places,
                 const lai_matrix *s, const lai_matrix *room, const lai_matrix *z)
{
    const int n = s->columns;
    const int64_t leaves = numbers->offset + (int64_t)tree->levels * LAI_NUMBERS * n + (right ? (int64_t)LAI_LEAF * n : 0);
    const lai_matrix vectors = { numbers->buffer, leaves, n, n, LAI_LEAF + right };

    TRY(lai_cl_laset(cl, 0, 1, s));
    TRY(launch(cl, LAI_CL_LEAF_VECTORS, ((lai_groups){ tree->leaf_count, 1, 1 }), INT(right), INTEGERS(places->leaves),
               MATRIX(&vectors), MATRIX(s)));
    for (int level = tree->levels - 1; level >= 0; level--)
        if (tree->counts[level] > 0)
            TRY(merge_level(cl, tree, level, right, numbers, places, s, room, z));
    TRY(launch(cl, LAI_CL_PERMUTE, ((lai_groups){ pieces(n, ROWS), pieces(n, COLUMNS), 1 }), INT(n), INT(n),
               INTEGERS(places->order), MATRIX(s), MATRIX(room)));
    return lai_cl_lascl(cl, 0, 0, room, s);
}
