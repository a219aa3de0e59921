/* OpenCL without its headers or library: the few functions needed, from the loader that pyopencl uses.
 *
 * A second loader in the process would know nothing of pyopencl's objects. pyopencl's extension module
 * is linked with its loader (wheels bundle one), and dlsym() searches what a library is linked with. */
#include <dlfcn.h>
#include <string.h>

#include "opencl/launch.h"

static int32_t (*set_kernel_arg)(void *kernel, uint32_t index, size_t size, const void *value);
static int32_t (*enqueue_nd_range)(void *queue, void *kernel, uint32_t dimensions, const size_t *offset,
                                   const size_t *global, const size_t *local,
                                   uint32_t waits, const void *const *events, void **event);
static int32_t (*flush)(void *queue);

int lai_opencl_load(const char *library)
{
    void *const handle = dlopen(library, RTLD_NOLOAD | RTLD_LAZY);
    if (handle == NULL)
        return -1;
    *(void **)&set_kernel_arg = dlsym(handle, "clSetKernelArg");
    *(void **)&enqueue_nd_range = dlsym(handle, "clEnqueueNDRangeKernel");
    *(void **)&flush = dlsym(handle, "clFlush");
    return set_kernel_arg != NULL && enqueue_nd_range != NULL && flush != NULL ? 0 : -1;
}

/* As reqd_work_group_size says in cl/; gemm's are in lai_opencl. */
static const size_t work_group_sizes[LAI_CL_KERNELS][3] = {
    [LAI_CL_MAX_ABS] = { 256, 1, 1 },
    [LAI_CL_LASCL] = { 32, 8, 1 },
    [LAI_CL_LASCL_TRANSPOSED] = { 32, 8, 1 },
    [LAI_CL_LASET] = { 32, 8, 1 },
    [LAI_CL_LACPY_UPPER] = { 32, 8, 1 },
    [LAI_CL_LACP2] = { 32, 8, 1 },
    [LAI_CL_GEMM_SUM] = { 256, 1, 1 },
    [LAI_CL_REAL_FORM] = { 256, 1, 1 },
    [LAI_CL_PANEL_COLUMN] = { 64, 4, 1 },
    [LAI_CL_PANEL_LEFT] = { 32, 8, 1 },
    [LAI_CL_PANEL_ROW] = { 64, 4, 1 },
    [LAI_CL_PANEL_RIGHT] = { 256, 1, 1 },
    [LAI_CL_SWEEP_COLUMN] = { 256, 1, 1 },
    [LAI_CL_SWEEP_2] = { 256, 1, 1 },
    [LAI_CL_SWEEP_4] = { 256, 1, 1 },
    [LAI_CL_SWEEP_8] = { 256, 1, 1 },
    [LAI_CL_SWEEP_16] = { 256, 1, 1 },
    [LAI_CL_SWEEP_32] = { 256, 1, 1 },
    [LAI_CL_SWEEP_PANEL_2] = { 256, 1, 1 },
    [LAI_CL_SWEEP_PANEL_4] = { 256, 1, 1 },
    [LAI_CL_SWEEP_PANEL_8] = { 256, 1, 1 },
    [LAI_CL_SWEEP_PANEL_16] = { 256, 1, 1 },
    [LAI_CL_SWEEP_PANEL_32] = { 256, 1, 1 },
    [LAI_CL_MULTISECTION] = { 8, 32, 1 },
    [LAI_CL_LEAF_VECTORS] = { 32, 8, 1 },
    [LAI_CL_MERGE_ROTATE] = { 64, 1, 1 },
    [LAI_CL_MERGE_GATHER] = { 32, 8, 1 },
    [LAI_CL_MERGE_SECULAR] = { 64, 1, 1 },
    [LAI_CL_MERGE_KEEP] = { 32, 8, 1 },
    [LAI_CL_PERMUTE] = { 32, 8, 1 },
    [LAI_CL_UNIT_LOWER] = { 32, 8, 1 },
    [LAI_CL_GRAM] = { 16, 16, 1 },
    [LAI_CL_LARFT] = { 128, 1, 1 },
    [LAI_CL_POTRF] = { 256, 1, 1 },
    [LAI_CL_TRSM] = { 256, 1, 1 },
    [LAI_CL_DISTANCE_TO_IDENTITY] = { 256, 1, 1 },
    [LAI_CL_GESVJ] = { 64, 1, 1 },
    [LAI_CL_GESVJ_LARGE] = { 256, 1, 1 },
    [LAI_CL_COMPLETE_BASIS] = { 64, 1, 1 },
};

void lai_cl_forget_arguments(const lai_opencl *cl)
{
    for (int i = 0; i <= LAI_CL_KERNELS; i++)
        cl->kept[i].known = 0;
}

/* Gives a kernel the arguments that it has not. */
static int set_arguments(void *kernel, lai_kept_arguments *kept, const lai_argument *arguments, int count)
{
    for (int i = 0; i < count; i++) {
        uint64_t value = 0;
        if (arguments[i].value == NULL)
            value = arguments[i].size;
        else
            memcpy(&value, arguments[i].value, arguments[i].size);
        if (i < kept->known && kept->values[i] == value)
            continue;
        kept->values[i] = value;
        const int status = set_kernel_arg(kernel, (uint32_t)i, arguments[i].size, arguments[i].value);
        if (status != CL_SUCCESS) {
            kept->known = 0;
            return status;
        }
    }
    kept->known = count;
    return CL_SUCCESS;
}

int lai_cl_enqueue(const lai_opencl *cl, int kernel, const size_t *local, lai_groups groups,
                   const lai_argument *arguments, size_t count)
{
    void *const handle = kernel == LAI_CL_KERNELS ? cl->gemm_large : cl->kernels[kernel];
    const size_t global[3] = { groups.x * local[0], groups.y * local[1], groups.z * local[2] };
    if (global[0] == 0 || global[1] == 0 || global[2] == 0)
        return CL_SUCCESS;
    if (count > LAI_CL_ARGUMENTS)
        return CL_INVALID_VALUE;
    TRY(set_arguments(handle, &cl->kept[kernel], arguments, (int)count));
    return enqueue_nd_range(cl->queue, handle, 3, NULL, global, local, 0, NULL, NULL);
}

int lai_cl_launch(const lai_opencl *cl, enum lai_cl_kernel kernel, lai_groups groups,
                  const lai_argument *arguments, size_t count)
{
    return lai_cl_enqueue(cl, (int)kernel, work_group_sizes[kernel], groups, arguments, count);
}

int lai_cl_flush(const lai_opencl *cl)
{
    return flush(cl->queue);
}
