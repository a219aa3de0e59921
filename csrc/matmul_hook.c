/* numpy.matmul, intercepted: every `A @ B` passes here.
 *
 * NumPy calls a ufunc in two steps, and each gives us one place:
 *   begin_call   the ufunc's process_core_dims_func: once a call, GIL held.
 *                Reads the ContextVar and leaves the verdict in a thread-local.
 *   loop_*       the inner loops, one a dtype, replaced by NumPy's own function for
 *                that; often without the GIL. Asks the policy, runs a kernel, or goes
 *                on to the stock loop.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_1_API_VERSION
#include <numpy/arrayobject.h>
#include <numpy/ufuncobject.h>

#include <fenv.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "native.h"

/* What begin_call found for the matmul call that this thread is in. */
typedef struct {
    const lai_table *table;
    lai_trace *trace;
    const npy_intp *core_dims;  /* of that call: their address tells it from products that it makes inside */
    int decided;                /* whether `call` holds the decision already */
} verdict;

/* A few words that every product reads, also where the backend is off: reached without a call into the
 * dynamic linker, which halves the cost there (asv Inactive: 37 -> 18 ns). glibc keeps room for that. */
#ifdef __GLIBC__
#define QUICKLY_REACHED __attribute__((tls_model("initial-exec")))
#else
#define QUICKLY_REACHED
#endif
static _Thread_local verdict here QUICKLY_REACHED;

/* What becomes of the call, where the backend or a trace is on. */
typedef struct {
    int64_t trace_index;
    lai_decision decision;
} outcome;

static _Thread_local outcome call;

static _Atomic int enabled;
static _Atomic(const lai_table *) process_table;
static PyObject *state_variable;
static PyUFuncObject *matmul;

/* ---- step one: the context ------------------------------------------------- */

/* The activation is a tuple that starts with two addresses: table (0: off, -1: as the process) and trace. */
static void read_activation(PyObject *activation)
{
    const intptr_t table = (intptr_t)PyLong_AsSsize_t(PyTuple_GET_ITEM(activation, 0));
    here.trace = (lai_trace *)PyLong_AsSsize_t(PyTuple_GET_ITEM(activation, 1));
    if (table != -1)
        here.table = (const lai_table *)table;
}

static int begin_call(PyUFuncObject *ufunc, npy_intp *core_dims)
{
    PyObject *activation = NULL;
    (void)ufunc;

    here.table = NULL;
    here.trace = NULL;
    here.core_dims = core_dims;
    here.decided = 0;
    if (!atomic_load_explicit(&enabled, memory_order_acquire))
        return 0;
    here.table = atomic_load_explicit(&process_table, memory_order_acquire);
    if (PyContextVar_Get(state_variable, NULL, &activation) < 0)
        return -1;
    if (activation == NULL)
        return 0;
    if (PyTuple_Check(activation))
        read_activation(activation);
    Py_DECREF(activation);
    if (here.trace) {
        /* Whatever happens next, the trace shows the call; the loop replaces this record. */
        call.decision = (lai_decision){
            .problem = {LAI_MATMUL, LAI_OTHER, core_dims[0], core_dims[1], core_dims[2], 0, 0, -1},
            .table = here.table, .kernel = LAI_STOCK, .rule = -1,
            .reason = here.table ? LAI_NO_LOOP : LAI_INACTIVE};
        call.trace_index = lai_append_to_trace(here.trace, &call.decision);
    }
    return 0;
}

/* Converting operands may run Python code that multiplies matrices itself; then the verdict is of that
 * inner product when the loop of the outer one runs, and the context has to be read again. */
static void begin_again(const npy_intp *core_dims)
{
    const PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *type, *value, *traceback;

    PyErr_Fetch(&type, &value, &traceback);
    if (begin_call(matmul, (npy_intp *)core_dims) < 0)
        PyErr_Clear();
    PyErr_Restore(type, value, traceback);
    PyGILState_Release(gil);
}

/* ---- step two: the loops ---------------------------------------------------- */

/* A stock loop with the data pointer that NumPy passes to it. */
typedef struct {
    lai_stock base;
    PyUFuncGenericFunction loop;
    void *data;
} stock_loop;

static void run_stock(const lai_stock *self, const lai_product *p)
{
    const stock_loop *stock = (const stock_loop *)self;
    char *args[3] = {(char *)p->a, (char *)p->b, p->c};
    const npy_intp dims[4] = {p->batch, p->m, p->k, p->n};
    const npy_intp steps[9] = {p->a_batch, p->b_batch, p->c_batch, p->a_row, p->a_column,
                               p->b_row, p->b_column, p->c_row, p->c_column};
    stock->loop(args, dims, steps, stock->data);
}

static lai_product describe(char **args, const npy_intp *dims, const npy_intp *steps)
{
    return (lai_product){
        .a = args[0], .b = args[1], .c = args[2],
        .batch = dims[0], .m = dims[1], .k = dims[2], .n = dims[3],
        .a_batch = steps[0], .b_batch = steps[1], .c_batch = steps[2],
        .a_row = steps[3], .a_column = steps[4],
        .b_row = steps[5], .b_column = steps[6],
        .c_row = steps[7], .c_column = steps[8]};
}

/* A @ A.T: the same data with swapped strides. */
static int is_symmetric(const lai_product *p)
{
    return p->a == p->b && p->m == p->n && p->a_row == p->b_column && p->a_column == p->b_row;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Runs the kernel that was decided for, or the stock loop, and says in the decision which it was. */
static void run_decided(lai_decision *d, const lai_product *p, const lai_stock *stock, lai_blocks *blocks)
{
    if (d->kernel != LAI_STOCK) {
        const int status = lai_run_product(d->kernel, d->problem.dtype, p, stock, blocks);
        if (status == LAI_DONE)
            return;
        d->kernel = LAI_STOCK;
        d->reason = status == LAI_NO_MEMORY ? LAI_MEMORY : LAI_KERNEL_DECLINED;
    }
    stock->run(stock, p);
    blocks->stock += p->batch;
}

/* NumPy may cut one call's batch into several loop calls; the first decides for all. */
static void route(const lai_product *p, int dtype, int type, int64_t itemsize, const lai_stock *stock)
{
    const verdict mine = here;  /* NumPy's loop for objects runs Python code, which may multiply matrices, too */
    const double start = mine.trace ? now() : 0.0;
    const int first = !mine.decided;
    int64_t trace_index = mine.trace ? call.trace_index : -1;
    lai_blocks blocks = {0, 0, 0};
    lai_decision d;

    if (first) {
        d = (lai_decision){
            .problem = {LAI_MATMUL, dtype, p->m, p->k, p->n, p->batch, is_symmetric(p), type}, .table = mine.table};
        lai_decide(&d);
    } else {
        d = call.decision;
        d.problem.batch += p->batch;
    }
    const int decided_for = d.kernel;
    run_decided(&d, p, stock, &blocks);
    if (mine.table)
        lai_count(&d, &blocks, first, first || d.kernel != decided_for,
                  itemsize * p->batch * (p->m * p->k + p->k * p->n + p->m * p->n));
    if (mine.trace) {
        d.blocks.alphatensor += blocks.alphatensor;
        d.blocks.direct += blocks.direct;
        d.blocks.stock += blocks.stock;
        d.seconds += now() - start;
        lai_update_trace(mine.trace, trace_index, &d);
    }
    here = mine;
    here.decided = 1;
    call.decision = d;
    call.trace_index = trace_index;
}

/* One loop a NumPy type; those of LAI_OTHER pass the call on to NumPy's and keep the record. */
#define LOOPS(X)                                                                         \
    X(NPY_BOOL, npy_bool, LAI_OTHER) X(NPY_OBJECT, PyObject *, LAI_OTHER)                 \
    X(NPY_BYTE, npy_byte, INTEGER(npy_byte)) X(NPY_UBYTE, npy_ubyte, INTEGER(npy_ubyte))  \
    X(NPY_SHORT, npy_short, INTEGER(npy_short)) X(NPY_USHORT, npy_ushort, INTEGER(npy_ushort)) \
    X(NPY_INT, npy_int, INTEGER(npy_int)) X(NPY_UINT, npy_uint, INTEGER(npy_uint))        \
    X(NPY_LONG, npy_long, INTEGER(npy_long)) X(NPY_ULONG, npy_ulong, INTEGER(npy_ulong))  \
    X(NPY_LONGLONG, npy_longlong, INTEGER(npy_longlong))                                 \
    X(NPY_ULONGLONG, npy_ulonglong, INTEGER(npy_ulonglong))                              \
    X(NPY_HALF, npy_half, LAI_OTHER)                                                     \
    X(NPY_FLOAT, npy_float, LAI_FLOAT32) X(NPY_DOUBLE, npy_double, LAI_FLOAT64)           \
    X(NPY_LONGDOUBLE, npy_longdouble, LAI_OTHER)                                         \
    X(NPY_CFLOAT, npy_cfloat, LAI_COMPLEX64) X(NPY_CDOUBLE, npy_cdouble, LAI_COMPLEX128)  \
    X(NPY_CLONGDOUBLE, npy_clongdouble, LAI_OTHER)

/* int, long and long long are separate loops of np.matmul; kernels know widths only. */
#define INTEGER(type) \
    (sizeof(type) == 8 ? LAI_INT64 : sizeof(type) == 4 ? LAI_INT32 : sizeof(type) == 2 ? LAI_INT16 : LAI_INT8)

static stock_loop stock_loops[NPY_NTYPES_LEGACY];

#define DEFINE_LOOP(number, type, dtype)                                                        \
    static void loop_##number(char **args, npy_intp const *dims, npy_intp const *steps, void *data) \
    {                                                                                            \
        if (here.core_dims != dims + 1)     /* NumPy hands both steps the same array */          \
            begin_again(dims + 1);                                                               \
        if (here.table == NULL && here.trace == NULL) {                                          \
            stock_loops[number].loop(args, dims, steps, data);                                   \
            return;                                                                              \
        }                                                                                        \
        const lai_product product = describe(args, dims, steps);                                 \
        route(&product, dtype, number, (int64_t)sizeof(type), &stock_loops[number].base);                \
    }
LOOPS(DEFINE_LOOP)

#define LOOP_ENTRY(number, type, dtype) {number, dtype, loop_##number},
static const struct {
    int number, dtype;
    PyUFuncGenericFunction loop;
} loops[] = {LOOPS(LOOP_ENTRY)};
enum { LOOP_COUNT = sizeof loops / sizeof loops[0] };

/* ---- self-check: overflow ------------------------------------------------------
 * 1e300 * 1e10 - 1e300 * 1e10 is Inf where the kernel fuses the second product into
 * the sum, NaN where it rounds it first. `direct` may keep such blocks only where the
 * stock loop does the same on this machine. */

int lai_overflow_matches(int dtype)
{
    for (int i = 0; i < LOOP_COUNT; i++)
        if (loops[i].dtype == dtype)
            return stock_loops[loops[i].number].base.overflow_matches;
    return 0;
}

enum pattern { FINITE, INFINITE, NOT_A_NUMBER };

static enum pattern pattern(double x, int complex_part)
{
    if (isfinite(x))
        return FINITE;
    /* Of complex results only finite or not is promised: BLAS multiplies by alpha = 1 + 0i. */
    return isnan(x) && !complex_part ? NOT_A_NUMBER : INFINITE;
}

static double element(const void *data, int i, int single)
{
    return single ? (double)((const float *)data)[i] : ((const double *)data)[i];
}

static int same_patterns(int dtype, const void *x, const void *y)
{
    const int is_complex = dtype == LAI_COMPLEX64 || dtype == LAI_COMPLEX128;
    const int single = dtype == LAI_FLOAT32 || dtype == LAI_COMPLEX64;

    for (int i = 0; i < 16; i++) {
        enum pattern px = FINITE, py = FINITE;
        for (int part = 0; part <= is_complex; part++) {
            const int j = i * (1 + is_complex) + part;
            const enum pattern qx = pattern(element(x, j, single), is_complex);
            const enum pattern qy = pattern(element(y, j, single), is_complex);
            px = qx > px ? qx : px;
            py = qy > py ? qy : py;
        }
        if (px != py)
            return 0;
    }
    return 1;
}

static void store(void *data, int i, int single, double value)
{
    if (single)
        ((float *)data)[i] = (float)value;
    else
        ((double *)data)[i] = value;
}

static int check_overflow_of(int dtype, int number)
{
    const int parts = dtype == LAI_COMPLEX64 || dtype == LAI_COMPLEX128 ? 2 : 1;
    const int single = dtype == LAI_FLOAT32 || dtype == LAI_COMPLEX64;
    const intptr_t item = parts * (single ? 4 : 8);
    const double big = single ? 0x1p120 : 0x1p1000;
    _Alignas(64) char a[256], b[256], ours[256], theirs[256];
    lai_blocks blocks = {0, 0, 0};

    for (int i = 0; i < 16 * parts; i++) {
        /* Rows of +big -big +big +big against growing columns: sums that overflow on the way and at the end. */
        const int entry = i / parts, imaginary = parts == 2 && i % 2;
        store(a, i, single, imaginary ? 1.0 : entry % 4 == 1 ? -big : big);
        store(b, i, single, imaginary ? 0.5 : (entry % 4 + 1) * (single ? 0x1p6 : 0x1p22));
    }
    lai_product product = {a, b, ours, 1, 4, 4, 4, 0, 4 * item, item, 0, 4 * item, item, 0, 4 * item, item};
    stock_loop trusting = stock_loops[number];
    trusting.base.overflow_matches = 1;
    if (lai_run_product(LAI_DIRECT, dtype, &product, &trusting.base, &blocks) != LAI_DONE)
        return 0;
    product.c = theirs;
    run_stock(&stock_loops[number].base, &product);
    return same_patterns(dtype, ours, theirs);
}

void lai_check_overflow(void)
{
    fenv_t environment;

    feholdexcept(&environment);     /* the checks raise flags that are nobody's */
    for (int i = 0; i < LOOP_COUNT; i++) {
        const int dtype = loops[i].dtype, number = loops[i].number;
        if (stock_loops[number].loop && dtype <= LAI_COMPLEX128)
            stock_loops[number].base.overflow_matches = check_overflow_of(dtype, number);
    }
    fesetenv(&environment);
}

/* ---- in and out --------------------------------------------------------------- */

/* Puts `loop` in the place of a type's loop; the loop that was there, NULL on failure. */
static PyUFuncGenericFunction replace_loop(int number, PyUFuncGenericFunction loop)
{
    int signature[3] = {number, number, number};
    PyUFuncGenericFunction previous = NULL;

    if (PyUFunc_ReplaceLoopBySignature(matmul, loop, signature, &previous) < 0)
        return NULL;
    return previous;
}

/* The stock loop and its data, as NumPy lists them; 0 where the type has none. */
static int find_stock(const PyUFuncObject *ufunc, int number, stock_loop *stock)
{
    for (int i = 0; i < ufunc->ntypes; i++) {
        const char *types = ufunc->types + 3 * i;
        if (types[0] == number && types[1] == number && types[2] == number) {
            stock->base = (lai_stock){run_stock, 0};
            stock->loop = ufunc->functions[i];
            stock->data = ufunc->data ? (void *)ufunc->data[i] : NULL;
            return 1;
        }
    }
    return 0;
}

static int replace_loops(void)
{
    for (int i = 0; i < LOOP_COUNT; i++)
        if (replace_loop(loops[i].number, loops[i].loop) == NULL)
            return 0;
    return 1;
}

static void restore_loops(void)
{
    for (int i = 0; i < LOOP_COUNT; i++)
        replace_loop(loops[i].number, stock_loops[loops[i].number].loop);
}

static int hook(PyUFuncObject *ufunc, PyObject *state)
{
    if (ufunc->core_signature == NULL || strcmp(ufunc->core_signature, "(n?,k),(k,m?)->(n?,m?)") != 0)
        return LAI_HOOK_SIGNATURE;
    if (ufunc->process_core_dims_func == begin_call)
        return LAI_HOOKED;
    if (ufunc->process_core_dims_func != NULL)
        return LAI_HOOK_OCCUPIED;
    for (int i = 0; i < LOOP_COUNT; i++)
        if (!find_stock(ufunc, loops[i].number, &stock_loops[loops[i].number]))
            return LAI_HOOK_LOOPS;
    matmul = ufunc;
    state_variable = state;
    if (!replace_loops()) {
        restore_loops();
        return LAI_HOOK_LOOPS;
    }
    lai_check_overflow();
    ufunc->process_core_dims_func = begin_call;
    atomic_store_explicit(&enabled, 1, memory_order_release);
    return LAI_HOOKED;
}

int lai_hook_matmul(uintptr_t ufunc, uintptr_t state)
{
    /* cffi calls without the GIL. */
    const PyGILState_STATE gil = PyGILState_Ensure();
    int status = LAI_HOOK_NO_NUMPY;

    if (_import_array() == 0 && _import_umath() == 0)
        status = hook((PyUFuncObject *)ufunc, (PyObject *)state);
    PyErr_Clear();      /* NumPy's account of a failed import: the status says it */
    PyGILState_Release(gil);
    return status;
}

void lai_unhook_matmul(void)
{
    const PyGILState_STATE gil = PyGILState_Ensure();

    atomic_store_explicit(&enabled, 0, memory_order_release);
    if (matmul && matmul->process_core_dims_func == begin_call) {
        matmul->process_core_dims_func = NULL;
        restore_loops();
    }
    PyGILState_Release(gil);
}

void lai_set_process_table(const lai_table *table)
{
    atomic_store_explicit(&process_table, table, memory_order_release);
}
