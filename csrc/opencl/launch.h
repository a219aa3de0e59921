/* How the files of csrc/opencl enqueue kernels. */
#ifndef LAPACK_AI_OPENCL_LAUNCH_H
#define LAPACK_AI_OPENCL_LAUNCH_H

#include "native.h"

/* OpenCL's own status codes; its headers are not needed to build. */
enum { CL_SUCCESS = 0, CL_INVALID_VALUE = -30, CL_INVALID_BUFFER_SIZE = -61 };

/* ---- launches ------------------------------------------------------------------ */

typedef struct {
    size_t size;
    const void *value;
} lai_argument;

/* Arguments as cl/common/definitions.cl declares them; a scalar lives as long as the block around it. */
#define INT(x)      { sizeof(int), &(const int){ x } }
#define LONG(x)     { sizeof(int64_t), &(const int64_t){ x } }
#define VECTOR(x)   { sizeof(void *), &(x)->buffer }, { sizeof(int64_t), &(x)->offset }
#define MATRIX(a)   VECTOR(a), { sizeof(int64_t), &(a)->ld }
#define LOCAL(size) { size, NULL }      /* local memory, of so many bytes */

typedef struct {
    int64_t x, y, z;
} lai_groups;

/* Enqueue one kernel: so many work-groups, of the size that the kernel requires. */
#define launch(cl, kernel, groups, ...)                                             \
    lai_cl_launch(cl, kernel, groups, (const lai_argument[]){ __VA_ARGS__ },        \
                  sizeof((const lai_argument[]){ __VA_ARGS__ }) / sizeof(lai_argument))

int lai_cl_launch(const lai_opencl *cl, enum lai_cl_kernel kernel, lai_groups groups,
                  const lai_argument *arguments, size_t count);

/* The same for any size of work-groups, and for cl->gemm_large, whose number is LAI_CL_KERNELS. */
int lai_cl_enqueue(const lai_opencl *cl, int kernel, const size_t *local, lai_groups groups,
                   const lai_argument *arguments, size_t count);

/* Let the device begin with what is enqueued. */
int lai_cl_flush(const lai_opencl *cl);

/* Stop at the first call that fails. */
#define TRY(call)               \
    do {                        \
        int status_ = (call);   \
        if (status_)            \
            return status_;     \
    } while (0)

/* ---- sizes, matrices, workspaces -------------------------------------------------- */

/* Enough work-groups to occupy a large device; sums are split into parts until there are so many. */
enum { LAI_MANY_GROUPS = 512 };

static inline int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Pieces of this size that cover n. */
static inline int64_t pieces(int64_t n, int64_t size)
{
    return (n + size - 1) / size;
}

/* Reals in a number of a dtype. */
static inline int components(int dtype)
{
    return dtype == LAI_COMPLEX64 || dtype == LAI_COMPLEX128 ? 2 : 1;
}

/* A matrix as one of reals, a number's parts below each other. */
static inline lai_matrix as_reals(int dtype, const lai_matrix *a)
{
    const int reals = components(dtype);
    return (lai_matrix){ a->buffer, reals * a->offset, reals * a->ld, reals * a->rows, a->columns };
}

/* Rows and columns of A from (i, j) on. */
static inline lai_matrix part(const lai_matrix *a, int i, int j, int rows, int columns)
{
    return (lai_matrix){ a->buffer, a->offset + i + j * a->ld, a->ld, rows, columns };
}

/* A workspace is handed out from its start. To learn its size, hand out from one without a buffer. */
typedef struct {
    void *buffer;
    int64_t next;
} lai_workspace;

static inline lai_matrix take(lai_workspace *work, int64_t rows, int64_t columns)
{
    const lai_matrix a = { work->buffer, work->next, most(rows, 1), (int)rows, (int)columns };
    work->next += rows * columns;
    return a;
}

/* CL_SUCCESS where `work` holds as many elements as are needed. */
static inline int suffices(const lai_matrix *work, int64_t needed)
{
    return (int64_t)work->rows * work->columns >= needed ? CL_SUCCESS : CL_INVALID_BUFFER_SIZE;
}

/* ---- products of blocks ----------------------------------------------------------- */

/* C_z = A_z B_z', where A_z and B_z are the z-th `width` columns of A and B, and C_z lies z * stride behind C. */
int lai_cl_gemm_blocks(const lai_opencl *cl, int width, const lai_matrix *a, const lai_matrix *b,
                       const lai_matrix *c, int64_t stride, const lai_matrix *work);

/* Its workspace. */
int64_t lai_cl_gemm_blocks_work(int dtype, int m, int n, int k);

#endif
