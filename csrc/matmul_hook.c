/* numpy.matmul, intercepted: every `A @ B` passes here.
 *
 * NumPy calls a ufunc in two steps, and each gives us one place:
 *   begin_call   the ufunc's process_core_dims_func: once a call, GIL held.
 *                Reads the ContextVar and leaves the verdict in a thread-local.
 *   loop_*       the inner loops, one a dtype, replaced by NumPy's own function for
 *                that; often without the GIL. Asks the policy, runs a kernel, or goes
 *                on to the stock loop.
 */
#include "matmul_hook.h"
#include <numpy/ufuncobject.h>

#include <fenv.h>
#include <math.h>
#include <stdatomic.h>
#include <time.h>

/* What is known of the matmul call that this thread is in. */
typedef struct {
    lai_context context;
    const npy_intp *core_dims;  /* of that call: their address tells it from products that it makes inside */
    int decided;                /* whether a loop has run; then its decision and the matrices done so far: */
    int kernel, rule, reason;
    npy_intp batch;
} verdict;

/* A few words that every product reads, also where the backend is off: reached without a call into the
 * dynamic linker, which halves the cost there (asv Inactive: 37 -> 18 ns). glibc keeps room for that. */
#ifdef __GLIBC__
#define QUICKLY_REACHED __attribute__((tls_model("initial-exec")))
#else
#define QUICKLY_REACHED
#endif
static _Thread_local verdict here QUICKLY_REACHED;

static _Thread_local lai_answer last_answer QUICKLY_REACHED;

/* What the operator read just before it called np.matmul. */
static _Thread_local struct {
    lai_context context;
    int fresh;
} passed QUICKLY_REACHED;

/* The call's place in the trace, where one is open, and what stands there. */
typedef struct {
    int64_t index;
    lai_decision decision;
} record;

static _Thread_local record recorded;

static _Atomic int enabled;
static _Atomic(const lai_table *) process_table;
static PyObject *state_variable;
static PyUFuncObject *matmul;

/* ---- step one: the context ------------------------------------------------- */

/* The activation is a tuple that starts with two addresses: table (0: off, -1: as the process) and trace. */
static void read_activation(PyObject *activation, lai_context *context)
{
    const intptr_t table = (intptr_t)PyLong_AsSsize_t(PyTuple_GET_ITEM(activation, 0));
    context->trace = (lai_trace *)PyLong_AsSsize_t(PyTuple_GET_ITEM(activation, 1));
    if (table != -1)
        context->table = (const lai_table *)table;
}

int lai_read_context(lai_context *context)
{
    PyObject *activation = NULL;

    *context = (lai_context){NULL, NULL};
    if (!atomic_load_explicit(&enabled, memory_order_acquire))
        return 0;
    context->table = atomic_load_explicit(&process_table, memory_order_acquire);
    if (PyContextVar_Get(state_variable, NULL, &activation) < 0)
        return -1;
    if (activation == NULL)
        return 0;
    if (PyTuple_Check(activation))
        read_activation(activation, context);
    Py_DECREF(activation);
    return 0;
}

void lai_pass_context(const lai_context *context)
{
    passed.fresh = context != NULL;
    if (context)
        passed.context = *context;
}

/* Whatever happens next, the trace shows the call; the loop replaces this record. */
static void begin_record(const npy_intp *core_dims)
{
    recorded.decision = (lai_decision){
        .problem = {LAI_MATMUL, LAI_OTHER, core_dims[0], core_dims[1], core_dims[2], 0, 0, -1},
        .table = here.context.table, .kernel = LAI_STOCK, .rule = -1,
        .reason = here.context.table ? LAI_NO_LOOP : LAI_INACTIVE};
    recorded.index = lai_append_to_trace(here.context.trace, &recorded.decision);
}

static int begin_call(PyUFuncObject *ufunc, npy_intp *core_dims)
{
    (void)ufunc;

    here.core_dims = core_dims;
    here.decided = 0;
    if (passed.fresh) {
        here.context = passed.context;
        passed.fresh = 0;
    } else if (lai_read_context(&here.context) < 0) {
        return -1;
    }
    if (here.context.trace)
        begin_record(core_dims);
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

/* What the policy asks, without describing the whole product: most calls stay stock. */
static lai_problem problem_of(char **args, const npy_intp *dims, const npy_intp *steps, int dtype, int type)
{
    const int symmetric = lai_is_symmetric(args[0], args[1], dims[1], dims[3], steps[3], steps[4], steps[5], steps[6]);

    return (lai_problem){LAI_MATMUL, dtype, dims[1], dims[2], dims[3], dims[0], symmetric, type};
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* 1 when the device has done it; else the failure is counted, and the decision is what the other rows say. */
static int run_on_device(lai_decision *d, const lai_product *p)
{
    fenv_t environment;

    feholdexcept(&environment);     /* flags that Python raises are nobody's; what is not finite, the device leaves to others */
    int reason = lai_device_multiply(d->table, d->problem.dtype, p);
    fesetenv(&environment);
    if (reason == LAI_ROUTED)
        return 1;
    if (reason < 0) {
        PyErr_SetInterrupt();       /* the program hears of it when the product is there */
        reason = LAI_KERNEL_DECLINED;
    }
    const lai_decision failed = {.problem = d->problem, .table = d->table, .kernel = LAI_STOCK, .rule = -1, .reason = reason};
    lai_decide_without(d, LAI_OPENCL_GEMM);
    if (d->kernel == LAI_STOCK)
        d->reason = reason;         /* the caller counts it */
    else
        lai_count(&failed, &failed.blocks, 0, 1, 0);
    return 0;
}

/* Runs the kernel that was decided for; 0 where it did not do it, and the decision is for stock. */
static int run_kernel(lai_decision *d, char **args, const npy_intp *dims, const npy_intp *steps,
                      const lai_stock *stock, lai_blocks *blocks)
{
    const lai_product p = describe(args, dims, steps);

    if (d->kernel == LAI_OPENCL_GEMM && run_on_device(d, &p))
        return 1;
    if (d->kernel == LAI_STOCK)
        return 0;
    const int status = lai_run_product(d->kernel, d->problem.dtype, &p, stock, blocks);
    if (status == LAI_DONE)
        return 1;
    d->kernel = LAI_STOCK;
    d->reason = status == LAI_NO_MEMORY ? LAI_MEMORY : LAI_KERNEL_DECLINED;
    return 0;
}

/* The decision as the trace shall show it, blocks and time of the call's earlier pieces included. */
static void update_record(lai_trace *trace, const record *before, lai_decision d, const lai_blocks *blocks, double start)
{
    d.blocks = before->decision.blocks;
    d.blocks.alphatensor += blocks->alphatensor;
    d.blocks.direct += blocks->direct;
    d.blocks.stock += blocks->stock;
    d.seconds = before->decision.seconds + now() - start;
    lai_update_trace(trace, before->index, &d);
    recorded = (record){before->index, d};
}

/* NumPy may cut one call's batch into several loop calls; the first decides for all. */
static void route(char **args, const npy_intp *dims, const npy_intp *steps, const stock_loop *stock,
                  int dtype, int type, int64_t itemsize)
{
    const verdict mine = here;  /* NumPy's loop for objects runs Python code, which may multiply matrices, too */
    const lai_context *context = &mine.context;
    const double start = context->trace ? now() : 0.0;
    const int first = !mine.decided;
    lai_blocks blocks = {0, 0, 0};
    record before;
    lai_decision d;             /* filled in as far as it is read: clearing it whole takes 10 ns */

    if (context->trace)
        before = recorded;
    d.problem = problem_of(args, dims, steps, dtype, type);
    d.table = context->table;
    if (first) {
        lai_decide_once(&d, &last_answer);
    } else {
        d.problem.batch += mine.batch;
        d.kernel = mine.kernel;
        d.rule = mine.rule;
        d.reason = mine.reason;
    }
    const int decided_for = d.kernel;
    if (d.kernel == LAI_STOCK || !run_kernel(&d, args, dims, steps, &stock->base, &blocks)) {
        stock->loop(args, dims, steps, stock->data);
        blocks.stock += dims[0];
    }
    if (context->table)
        lai_count(&d, &blocks, first, first || d.kernel != decided_for,
                  itemsize * dims[0] * (dims[1] * dims[2] + dims[2] * dims[3] + dims[1] * dims[3]));
    if (context->trace)
        update_record(context->trace, &before, d, &blocks, start);
    here = (verdict){mine.context, mine.core_dims, 1, d.kernel, d.rule, d.reason, d.problem.batch};
}

/* One loop a NumPy type; those of LAI_OTHER pass the call on to NumPy's and keep the record. */
static stock_loop stock_loops[NPY_NTYPES_LEGACY];

#define DEFINE_LOOP(number, type, dtype)                                                        \
    static void loop_##number(char **args, npy_intp const *dims, npy_intp const *steps, void *data) \
    {                                                                                            \
        if (here.core_dims != dims + 1)     /* NumPy hands both steps the same array */          \
            begin_again(dims + 1);                                                               \
        if (here.context.table == NULL && here.context.trace == NULL) {                                          \
            stock_loops[number].loop(args, dims, steps, data);                                   \
            return;                                                                              \
        }                                                                                        \
        route(args, dims, steps, &stock_loops[number], dtype, number, (int64_t)sizeof(type));     \
    }
LAI_NUMPY_TYPES(DEFINE_LOOP)

#define LOOP_ENTRY(number, type, dtype) {number, dtype, loop_##number},
static const struct {
    int number, dtype;
    PyUFuncGenericFunction loop;
} loops[] = {LAI_NUMPY_TYPES(LOOP_ENTRY)};
enum { LOOP_COUNT = sizeof loops / sizeof loops[0] };

/* ---- self-check: overflow ------------------------------------------------------
 * 1e300 * 1e10 - 1e300 * 1e10 is Inf where the kernel fuses the second product into
 * the sum, NaN where it rounds it first. `direct` may keep such blocks only where the
 * stock loop does the same on this machine. */

int lai_overflow_matches(int dtype)
{
    static const int types[] = {
        [LAI_FLOAT32] = NPY_FLOAT, [LAI_FLOAT64] = NPY_DOUBLE, [LAI_COMPLEX64] = NPY_CFLOAT, [LAI_COMPLEX128] = NPY_CDOUBLE};

    return dtype <= LAI_COMPLEX128 && stock_loops[types[dtype]].base.overflow_matches;
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
    lai_hook_operator((PyObject *)ufunc);
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
    lai_unhook_operator();
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
