/* Which instruction set the kernels run at. */
#include <stdatomic.h>

#include "products/products.h"

static atomic_int current = -1;         /* -1: nobody asked yet */

int lai_best_isa(void)
{
#if LAI_X86
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return LAI_BASELINE;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd"))
        return LAI_AVX512;
    return LAI_AVX2;
#else
    return LAI_BASELINE;
#endif
}

int lai_current_isa(void)
{
    int isa = atomic_load_explicit(&current, memory_order_relaxed);
    if (isa >= 0)
        return isa;
    int unset = -1;
    isa = lai_best_isa();
    /* Another thread may have chosen meanwhile: its choice stands. */
    return atomic_compare_exchange_strong(&current, &unset, isa) ? isa : unset;
}

int lai_use_isa(int isa)
{
    if (isa < LAI_BASELINE || isa > lai_best_isa())
        return -1;
    atomic_store(&current, isa);
    return 0;
}

static int cpu_has_vnni(void)
{
#if LAI_X86
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512ifma") && __builtin_cpu_supports("avx512vnni");
#else
    return 0;
#endif
}

static atomic_int vnni = -1;            /* -1: nobody asked yet */

int lai_has_vnni(void)
{
    int has = atomic_load_explicit(&vnni, memory_order_relaxed);
    if (has >= 0)
        return has;
    int unset = -1;
    has = cpu_has_vnni();
    return atomic_compare_exchange_strong(&vnni, &unset, has) ? has : unset;
}

int lai_use_vnni(int on)
{
    if (on && !cpu_has_vnni())
        return -1;
    atomic_store(&vnni, on != 0);
    return 0;
}
