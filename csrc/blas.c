/* How many threads NumPy's BLAS uses. */
#define _GNU_SOURCE     /* dl_iterate_phdr, RTLD_NOLOAD */
#include <stdatomic.h>
#include <stddef.h>

#include "native.h"

#ifdef __linux__
#include <dlfcn.h>
#include <link.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

typedef int get_threads(void);

/* The extension module that calls BLAS: its path, from the list of what is loaded. */
static int is_numpy(struct dl_phdr_info *object, size_t size, void *path)
{
    (void)size;
    if (!strstr(object->dlpi_name, "/_multiarray_umath."))
        return 0;
    snprintf(path, PATH_MAX, "%s", object->dlpi_name);
    return 1;
}

/* A search from there goes on in the libraries that it is linked with, not in those of other packages. */
static get_threads *find(const char *path)
{
    static const char *const names[] = {
        "scipy_openblas_get_num_threads64_", "scipy_openblas_get_num_threads", "openblas_get_num_threads64_",
        "openblas_get_num_threads", "MKL_Get_Max_Threads", "bli_thread_get_num_threads"};
    get_threads *found = NULL;
    void *numpy = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);

    for (size_t i = 0; numpy && !found && i < sizeof names / sizeof names[0]; i++)
        *(void **)&found = dlsym(numpy, names[i]);
    if (numpy)
        dlclose(numpy);         /* Python holds it, for ever */
    return found;
}

int lai_blas_threads(void)
{
    static _Atomic(get_threads *) known;
    static atomic_int searched;
    char path[PATH_MAX];

    if (!atomic_load_explicit(&searched, memory_order_acquire) && dl_iterate_phdr(is_numpy, path)) {
        atomic_store(&known, find(path));
        atomic_store(&searched, 1);
    }
    get_threads *const threads = atomic_load_explicit(&known, memory_order_relaxed);
    const int count = threads ? threads() : 0;
    return count > 0 ? count : 0;
}
#else
int lai_blas_threads(void)
{
    return 0;
}
#endif
