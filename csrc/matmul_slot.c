/* ndarray's operator @, intercepted: products of two small arrays end here.
 *
 * np.matmul spends most of a microsecond before its loop runs, many times what a 4 x 4 product takes. So the
 * operator's own function is replaced by one that makes the result and runs the kernel, where the operands leave
 * nothing to interpret and the policy names a kernel for single blocks. Every other call goes on to NumPy's function
 * with the operands as they came: then np.matmul decides, counts and records as if nothing were here.
 */
#define NO_IMPORT_ARRAY
#include "matmul_hook.h"

#include <fenv.h>
#include <stdatomic.h>
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

/* Where the largest kernel for single blocks ends; larger operands need not wait for the policy's answer. */
enum { MOST = 16 };

static binaryfunc stock;        /* NumPy's own */
static PyObject *matmul;
static _Atomic int enabled;

/* ---- floating-point flags: np.matmul clears them before its loop and reports those that it finds afterwards --------- */

enum { REPORTED = FE_DIVBYZERO | FE_OVERFLOW | FE_UNDERFLOW | FE_INVALID };

/* Kernels compute in vector registers, whose flags a processor with SSE reads in a few cycles. */
static int raised(void)
{
#if defined(__SSE2__)
    return (int)_mm_getcsr() & REPORTED;        /* <fenv.h> numbers the flags as the register does */
#else
    return fetestexcept(REPORTED);
#endif
}

static void clear_flags(void)
{
    if (raised())
        feclearexcept(REPORTED);
}

/* ---- what is taken ------------------------------------------------------------------------------------------------- */

static int dtype_of(int type)
{
    switch (type) {
#define CASE(number, ctype, dtype) case number: return dtype;
    LAI_NUMPY_TYPES(CASE)
    default: return LAI_OTHER;
    }
}

static int is_plain(PyArrayObject *x)
{
    return PyArray_ISALIGNED(x) && PyArray_ISNOTSWAPPED(x);
}

/* Describes the product of two arrays as np.matmul's loop would see it; 0 where it is none of ours by dtype or sizes.
 * A vector is a row on the left and a column on the right; NumPy gives axes of one element no stride. */
static int describe(PyArrayObject *x, PyArrayObject *y, lai_problem *problem, lai_product *p)
{
    const int x_axes = PyArray_NDIM(x), y_axes = PyArray_NDIM(y), type = PyArray_TYPE(x);

    if (x_axes < 1 || x_axes > 2 || y_axes < 1 || y_axes > 2 || x_axes + y_axes == 2 || PyArray_TYPE(y) != type)
        return 0;
    const npy_intp *x_dims = PyArray_DIMS(x), *y_dims = PyArray_DIMS(y);
    const npy_intp m = x_axes == 2 ? x_dims[0] : 1, k = x_dims[x_axes - 1], n = y_axes == 2 ? y_dims[1] : 1;
    if (m < 1 || m > MOST || k < 1 || k > MOST || n < 1 || n > MOST || y_dims[0] != k || !is_plain(x) || !is_plain(y))
        return 0;
    const int dtype = dtype_of(type);
    if (dtype == LAI_OTHER)
        return 0;
    const npy_intp *x_strides = PyArray_STRIDES(x), *y_strides = PyArray_STRIDES(y), item = PyArray_ITEMSIZE(x);
    *p = (lai_product){
        PyArray_BYTES(x), PyArray_BYTES(y), NULL, 1, m, k, n,
        0, m > 1 ? x_strides[0] : 0, k > 1 ? x_strides[x_axes - 1] : 0,
        0, k > 1 ? y_strides[0] : 0, n > 1 ? y_strides[1] : 0,
        0, n * item, item};
    const int symmetric = lai_is_symmetric(p->a, p->b, m, n, p->a_row, p->a_column, p->b_row, p->b_column);
    *problem = (lai_problem){LAI_MATMUL, dtype, m, k, n, 1, symmetric, type};
    return 1;
}

/* ---- computing ----------------------------------------------------------------------------------------------------- */

/* In place of the stock loop: a kernel that wants it for its block must not have the call. */
typedef struct {
    lai_stock base;
    int wanted;
} refusal;

static void refuse(const lai_stock *self, const lai_product *product)
{
    (void)product;
    ((refusal *)self)->wanted = 1;
}

/* 1 when the kernel computed the product as np.matmul would have, without anything to report. */
static int run(const lai_decision *d, const lai_product *p, lai_blocks *blocks)
{
    refusal instead = {{refuse, lai_overflow_matches(d->problem.dtype)}, 0};

    clear_flags();
    return lai_run_product(d->kernel, d->problem.dtype, p, &instead.base, blocks) == LAI_DONE && !instead.wanted
        && !raised();
}

/* Wants the GIL, which guards the answers. */
static void decide(lai_decision *d)
{
    static lai_answer answers[16];
    const lai_problem *p = &d->problem;

    lai_decide_once(d, &answers[(p->m + 3 * p->k + 5 * p->n + 7 * p->dtype) % 16]);
}

/* An array for the result: of x's dtype, as np.matmul's. */
static PyArrayObject *make_result(PyArrayObject *x, PyArrayObject *y, const lai_product *p)
{
    npy_intp dims[2];
    int axes = 0;

    if (PyArray_NDIM(x) == 2)
        dims[axes++] = p->m;
    if (PyArray_NDIM(y) == 2)
        dims[axes++] = p->n;
    PyArray_Descr *dtype = PyArray_DESCR(x);
    Py_INCREF(dtype);
    return (PyArrayObject *)PyArray_NewFromDescr(&PyArray_Type, dtype, axes, dims, NULL, NULL, 0, NULL);
}

/* The product, counted; NULL where a kernel should not or did not serve it, or, with an exception, where memory is short. */
static PyObject *compute(PyArrayObject *x, PyArrayObject *y, lai_decision *d, lai_product *p)
{
    lai_blocks blocks = {0, 0, 0};

    decide(d);
    if (d->kernel != LAI_DIRECT && d->kernel != LAI_ALPHATENSOR49)
        return NULL;
    PyArrayObject *result = make_result(x, y, p);
    if (result == NULL)
        return NULL;
    p->c = PyArray_BYTES(result);
    if (!run(d, p, &blocks)) {
        Py_DECREF(result);
        return NULL;
    }
    lai_count(d, &blocks, 1, 1, p->c_column * (p->m * p->k + p->k * p->n + p->m * p->n));
    return (PyObject *)result;
}

/* ---- the operator -------------------------------------------------------------------------------------------------- */

static PyObject *multiply(PyObject *x, PyObject *y);

/* NumPy's function calls np.matmul, unless y's type has another function than NumPy's here and wants to answer itself.
 * Ours in its place must not raise that question, and without it the way is shorter, too. */
static PyObject *pass_on(PyObject *x, PyObject *y)
{
    const PyNumberMethods *operators = Py_TYPE(y)->tp_as_number;

    if (operators && operators->nb_matrix_multiply == multiply)
        return PyObject_Vectorcall(matmul, (PyObject *[]){x, y}, 2, NULL);
    return stock(x, y);
}

static PyObject *multiply(PyObject *x, PyObject *y)
{
    PyArrayObject *a = (PyArrayObject *)x, *b = (PyArrayObject *)y;
    lai_product product;
    lai_decision decision;      /* filled in as far as it is read: clearing it whole takes 10 ns */
    lai_context context;

    if (!PyArray_CheckExact(x) || !PyArray_CheckExact(y) || !describe(a, b, &decision.problem, &product)
        || !atomic_load_explicit(&enabled, memory_order_acquire))
        return pass_on(x, y);
    if (lai_read_context(&context) < 0)
        return NULL;
    if (context.table && !context.trace) {      /* a trace records what np.matmul does */
        decision.table = context.table;
        PyObject *result = compute(a, b, &decision, &product);
        if (result || PyErr_Occurred())
            return result;
    }
    lai_pass_context(&context);
    PyObject *result = pass_on(x, y);
    lai_pass_context(NULL);
    return result;
}

/* ---- in and out ---------------------------------------------------------------------------------------------------- */

/* What NumPy put there: ndarray.__matmul__ calls it, whatever is in the slot. */
static binaryfunc own_operator(void)
{
    PyObject *method = PyDict_GetItemString(PyArray_Type.tp_dict, "__matmul__");

    return method && Py_IS_TYPE(method, &PyWrapperDescr_Type) ? ((PyWrapperDescrObject *)method)->d_wrapped : NULL;
}

void lai_hook_operator(PyObject *ufunc)
{
    PyNumberMethods *operators = PyArray_Type.tp_as_number;
    const binaryfunc own = own_operator();

    if (own == NULL || operators->nb_matrix_multiply != own)
        return;         /* somebody else's: np.matmul is as far as we go */
    matmul = ufunc;
    stock = own;
    operators->nb_matrix_multiply = multiply;
    atomic_store_explicit(&enabled, 1, memory_order_release);
}

void lai_unhook_operator(void)
{
    atomic_store_explicit(&enabled, 0, memory_order_release);
    if (stock && PyArray_Type.tp_as_number->nb_matrix_multiply == multiply)
        PyArray_Type.tp_as_number->nb_matrix_multiply = stock;
}
