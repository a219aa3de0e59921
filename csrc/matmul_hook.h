/* Products are intercepted in two places: in np.matmul, where every one of them passes (matmul_hook.c), and before
 * it in ndarray's operator @, where those of small arrays end (matmul_slot.c). This is what the two share. */
#ifndef LAPACK_AI_MATMUL_HOOK_H
#define LAPACK_AI_MATMUL_HOOK_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_1_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL lai_array_api    /* one table of NumPy's functions for both files */
#include <numpy/arrayobject.h>

#include <string.h>

#include "native.h"

/* What the context says of products: whose rules (NULL: off), and the trace that is open (NULL: none). */
typedef struct {
    const lai_table *table;
    lai_trace *trace;
} lai_context;

/* Wants the GIL. 0, or -1 with an exception set. */
int lai_read_context(lai_context *context);

/* The next product of this thread that reaches np.matmul need not read the context again. Not valid any longer than
 * the call from which it is given: NULL takes it back. */
void lai_pass_context(const lai_context *context);

/* A @ A.T, m x k by k x n: the same data with swapped strides. */
static inline int lai_is_symmetric(const char *a, const char *b, npy_intp m, npy_intp n,
                                   npy_intp a_row, npy_intp a_column, npy_intp b_row, npy_intp b_column)
{
    return a == b && m == n && a_row == b_column && a_column == b_row;
}

/* The policy's answer to a problem. */
typedef struct {
    lai_problem problem;
    const lai_table *table;
    int kernel, rule, reason, isa;
} lai_answer;

/* Asks the policy, unless it gave this answer before: tables never change, programs repeat a few problems, and the
 * question takes 8 to 13 ns, with a tuned table more. Answers on large problems depend on the numbers of threads, too. */
static inline void lai_decide_once(lai_decision *d, lai_answer *answer)
{
    const double work = (double)d->problem.m * (double)d->problem.k * (double)d->problem.n;
    const int isa = lai_current_isa();

    if (work >= 0x1p20 || answer->isa != isa || answer->table != d->table || memcmp(&answer->problem, &d->problem, sizeof d->problem) != 0) {
        lai_decide(d);
        *answer = (lai_answer){d->problem, d->table, d->kernel, d->rule, d->reason, isa};
    }
    d->kernel = answer->kernel;
    d->rule = answer->rule;
    d->reason = answer->reason;
}

/* NumPy's types: number, C type, dtype of the kernels; those of LAI_OTHER have none. */
#define LAI_NUMPY_TYPES(X)                                                                             \
    X(NPY_BOOL, npy_bool, LAI_OTHER) X(NPY_OBJECT, PyObject *, LAI_OTHER)                              \
    X(NPY_BYTE, npy_byte, LAI_INTEGER_OF(npy_byte)) X(NPY_UBYTE, npy_ubyte, LAI_INTEGER_OF(npy_ubyte)) \
    X(NPY_SHORT, npy_short, LAI_INTEGER_OF(npy_short))                                                 \
    X(NPY_USHORT, npy_ushort, LAI_INTEGER_OF(npy_ushort))                                              \
    X(NPY_INT, npy_int, LAI_INTEGER_OF(npy_int)) X(NPY_UINT, npy_uint, LAI_INTEGER_OF(npy_uint))       \
    X(NPY_LONG, npy_long, LAI_INTEGER_OF(npy_long)) X(NPY_ULONG, npy_ulong, LAI_INTEGER_OF(npy_ulong)) \
    X(NPY_LONGLONG, npy_longlong, LAI_INTEGER_OF(npy_longlong))                                        \
    X(NPY_ULONGLONG, npy_ulonglong, LAI_INTEGER_OF(npy_ulonglong))                                     \
    X(NPY_HALF, npy_half, LAI_OTHER)                                                                   \
    X(NPY_FLOAT, npy_float, LAI_FLOAT32) X(NPY_DOUBLE, npy_double, LAI_FLOAT64)                        \
    X(NPY_LONGDOUBLE, npy_longdouble, LAI_OTHER)                                                       \
    X(NPY_CFLOAT, npy_cfloat, LAI_COMPLEX64) X(NPY_CDOUBLE, npy_cdouble, LAI_COMPLEX128)               \
    X(NPY_CLONGDOUBLE, npy_clongdouble, LAI_OTHER)

/* int, long and long long are separate types; kernels know widths only. */
#define LAI_INTEGER_OF(type) \
    (sizeof(type) == 8 ? LAI_INT64 : sizeof(type) == 4 ? LAI_INT32 : sizeof(type) == 2 ? LAI_INT16 : LAI_INT8)

/* Put our function into ndarray's @ if NumPy's own is there; take it out again. With the GIL. */
void lai_hook_operator(PyObject *ufunc);
void lai_unhook_operator(void);

#endif
