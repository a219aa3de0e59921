/* The native part's whole interface.
 *
 * Every C file includes this header and cffi reads the same text, so it holds
 * declarations only: no macros, no includes (csrc/native.h adds what C needs).
 *
 * Three things live here:
 *   products   kernels for stacks of matrix products, C[i] = A[i] B[i]
 *   policy     the compiled rules: which kernel serves which problem
 *   matmul     the hook in numpy.matmul that asks the policy and runs the kernel
 */

/* ---- dtypes, instruction sets ------------------------------------------- */

/* Unsigned integers share the signed kernels: products wrap modulo 2^w alike. */
enum lai_dtype {
    LAI_FLOAT32, LAI_FLOAT64, LAI_COMPLEX64, LAI_COMPLEX128, LAI_INT8, LAI_INT16, LAI_INT32, LAI_INT64,
    LAI_OTHER,              /* any dtype that no kernel claims */
    LAI_DTYPES
};

enum lai_isa { LAI_BASELINE, LAI_AVX2, LAI_AVX512, LAI_ISAS };

int lai_best_isa(void);         /* the highest level this CPU has (AVX2 means AVX2 and FMA) */
int lai_current_isa(void);      /* the level the kernels run at */
int lai_use_isa(int isa);       /* set it (tests, LAPACK_AI_ISA); returns 0, or -1 when this CPU lacks it */

/* Whether kernels at LAI_AVX512 may use IFMA and VNNI, which not every such CPU has. */
int lai_has_vnni(void);
int lai_use_vnni(int on);       /* set it (tests); returns 0, or -1 when this CPU lacks one of them */

/* ---- threads ---------------------------------------------------------------- */

/* How many threads a kernel may use that the calling thread runs: at most lai_use_threads(), at most the CPUs
 * that this thread may run on, at most those that the container pays for. At least 1. */
int lai_num_threads(void);

/* Set the limit (0: none but the machine's); returns the one before. */
int lai_use_threads(int limit);

/* CPUs that the container pays for (its cgroups' quota), rounded up; 0: no limit. Read once a process,
 * and again where `root` names another root of the file system (tests; NULL: what was read). */
int lai_cgroup_cpus(const char *root);

/* Bytes that this process can still take: of the machine's memory, and of every control group around it; INT64_MAX:
 * nothing tells. `root`: "", or another root of the file system (tests). */
int64_t lai_available_memory(const char *root);

/* run(context, part) for every part in 0 .. parts - 1, by this thread and those of the pool, in any order; returns
 * when all are done. Parts must not wait for each other: where the pool is taken, or cannot be had, the caller runs
 * them all. They must not count (lai_count): the end of a thread that did takes a lock, and forks end the workers.
 * Floating-point settings are the caller's in every part, and flags that a part raises are raised in the caller.
 * More parts than lai_num_threads() balance the load. */
void lai_parallel(int parts, void (*run)(void *context, int part), void *context);

/* Threads that NumPy's BLAS uses for a product now; 0: unknown. */
int lai_blas_threads(void);

/* ---- checks ------------------------------------------------------------------ */

/* y = A x, or y = A^T x, for `sides` vectors one behind the other. A is m x n by columns, of LAI_FLOAT32 or LAI_FLOAT64; x, y and
 * sums are in double precision. */
void lai_gemv(int dtype, int transposed, int64_t m, int64_t n, const void *a, int64_t ld, int sides,
              const double *x, double *y);

/* Of `count` numbers of LAI_FLOAT32 or LAI_FLOAT64, in double precision. */
double lai_sum_of_squares(int dtype, int64_t count, const void *a);

/* ---- products ------------------------------------------------------------ */

/* A stack of products as numpy.matmul's inner loop describes it: C[i] is m x n,
 * A[i] m x k, B[i] k x n; strides in bytes, any sign, zero when broadcast.
 * C overlaps neither A nor B (NumPy copies first). Data is aligned and native. */
typedef struct {
    const char *a, *b;
    char *c;
    intptr_t batch, m, k, n;
    intptr_t a_batch, a_row, a_column;
    intptr_t b_batch, b_row, b_column;
    intptr_t c_batch, c_row, c_column;
} lai_product;

/* The stock loop behind a call, for what a kernel must not do itself.
 * overflow_matches: a self-check found that `direct` and the stock loop agree
 * on blocks that overflow; where it is 0 such blocks belong to run(). */
typedef struct lai_stock {
    void (*run)(const struct lai_stock *self, const lai_product *product);
    int overflow_matches;
} lai_stock;

/* How many blocks each path computed: matrices of a stack; of LAI_GEMM_ALPHA tiles of 4 x 4. */
typedef struct {
    int64_t alphatensor, direct, stock;
} lai_blocks;

enum lai_status { LAI_DONE, LAI_NO_MEMORY, LAI_DECLINED };

/* Kernels of products. Whole product in, status out; anything but LAI_DONE
 * means that nothing was written and the caller must run the stock loop. */
enum lai_kernel {
    LAI_STOCK,              /* not a kernel: NumPy's or SciPy's own code */
    LAI_DIRECT,             /* n x n stacks, n <= 8, textbook sums with FMA */
    LAI_ALPHATENSOR49,      /* 4 x 4 stacks by 49 products, guarded block by block */
    LAI_INTEGER,            /* 2-D integer products, blocked, exact modulo 2^w */
    LAI_ALPHATENSOR49_BLOCKED, /* large 2-D float and complex products, cut in 4 x 4 blocks */
    LAI_GEMM_ALPHA,         /* 2-D float products by fortran/{d,s}gemm_alpha.f90 */
    LAI_OPENCL_GEMM,        /* large 2-D float products, on a device: not by lai_run_product */
    LAI_PRODUCT_KERNELS,    /* kernels of other functions are numbered from here */
    LAI_OPENCL_SVD = LAI_PRODUCT_KERNELS
};

/* Run one kernel at the current instruction set.
 * LAI_DECLINED when it has no code for this dtype or these sizes. */
int lai_run_product(int kernel, int dtype, const lai_product *product,
                    const lai_stock *stock, lai_blocks *blocks);

/* LAI_ALPHATENSOR49_BLOCKED keeps its workspace for the next product. More than the limit is never taken: such products
 * are stock's (LAI_NO_MEMORY). */
void lai_limit_workspace(size_t bytes);
void lai_release_workspace(void);
size_t lai_kept_workspace(void);

/* While on, kernels find no memory for their workspace (tests). */
void lai_fail_allocations(int on);

/* ---- fortran/ ------------------------------------------------------------- */

/* DGEMM's interface (column-major, arguments by reference). */
void lai_dgemm_alpha(const char *transa, const char *transb, const int *m, const int *n, const int *k,
                     const double *alpha, const double *a, const int *lda,
                     const double *b, const int *ldb, const double *beta, double *c, const int *ldc);
void lai_sgemm_alpha(const char *transa, const char *transb, const int *m, const int *n, const int *k,
                     const float *alpha, const float *a, const int *lda,
                     const float *b, const int *ldb, const float *beta, float *c, const int *ldc);

/* In place of XERBLA, which stops the process: the first illegal argument of
 * this thread's last Fortran call (1-based), 0 when there was none. Reading clears it. */
int lai_argument_error(void);

/* ---- policy --------------------------------------------------------------- */

enum lai_limits { LAI_MATMUL = 0, LAI_MAX_FUNCTIONS = 128, LAI_MAX_KERNELS = 32 };

/* Why a row did not match, or what became of a call. Texts: lapack_ai_backend/reasons.py. */
enum lai_reason {
    LAI_ROUTED,             /* a kernel ran, or would run */
    LAI_INACTIVE,           /* the backend is off in this context */
    LAI_NO_RULE,            /* no rule names this function */
    LAI_DISABLED,           /* option disable names this function */
    LAI_DTYPE,
    LAI_SHAPE,              /* not square, where the row wants square */
    LAI_SIZE,
    LAI_BATCH,
    LAI_SYMMETRIC,          /* A @ A.T: BLAS keeps it symmetric and halves the work */
    LAI_DEVICE,             /* the row wants a device that is not there: asked last, yet other rows may tell more */
    LAI_ISA,                /* the row wants a higher instruction set */
    LAI_THREADS,            /* the row wants as many threads as NumPy's BLAS uses */
    LAI_ACCURACY,           /* option accuracy excludes the kernel */
    LAI_FORCED,             /* option force names another kernel, or stock */
    LAI_INPUT,              /* scipy.linalg: the arguments are not plain arrays that a kernel takes */
    LAI_NO_LOOP,            /* matmul: no loop ran (an empty result) */
    LAI_MEMORY,             /* the kernel ran short of memory: stock ran */
    LAI_KERNEL_DECLINED,    /* the kernel refused this data: stock ran */
    LAI_KERNEL_FAILED,      /* the kernel raised: stock ran */
    LAI_WRONG_RESULT,       /* the kernel's result failed verification: stock ran */
    LAI_BROKEN,             /* the kernel failed repeatedly and is switched off */
    LAI_NOT_INTERCEPTED,    /* explain only: this NumPy or SciPy is not as we know it */
    LAI_TUNED,              /* a row says stock: it was measured to be the fastest here */
    LAI_REASONS
};

/* What the policy looks at. Not a product: m x n, k = 0. */
typedef struct {
    int function, dtype;
    int64_t m, k, n, batch;
    int symmetric;
    int numpy_type;         /* NumPy's own type number, for the record; -1: unknown */
} lai_problem;

/* One rule, compiled. Rows are sorted by function and dtype, in the order of the rules; first match wins.
 * A rule stands once for each of its dtypes: a product tests the rows of its own, a tuned table has dozens. */
typedef struct {
    int function, kernel, rule;     /* the kernel may be LAI_STOCK */
    int blocked;            /* a lai_reason other than LAI_ROUTED: options took this row out */
    uint32_t dtypes;        /* bit d: enum lai_dtype d */
    int square;             /* m = k = n (or m = n) wanted */
    int symmetric;          /* may serve A @ A.T */
    int64_t min_dim, max_dim;       /* limits of each of m, k, n */
    int64_t min_work;               /* least m k n (or m n) */
    int64_t min_batch, max_batch;
    int min_isa;            /* enum lai_isa */
    int as_blas;            /* wants lai_num_threads() not below lai_blas_threads(), and min_work for each */
    int on_device;          /* wants a device that serves */
} lai_row;

/* Immutable once made, and never freed: a loop may still read it after its context has ended. */
typedef struct {
    const lai_row *rows;
    int first[1153];        /* rows of function f and dtype d: from first[LAI_DTYPES f + d] to before the next one */
    int off[128];           /* functions without rules by an option: its lai_reason; else LAI_ROUTED */
} lai_table;

typedef struct {
    lai_problem problem;
    const lai_table *table; /* whose rule, NULL when inactive */
    int kernel, rule, reason;
    lai_blocks blocks;
    double seconds;
} lai_decision;

/* LAI_ROUTED when the row serves the problem, else the first column that excludes it. */
int lai_match_row(const lai_row *row, const lai_problem *problem);

/* The one policy: fills kernel, rule and reason of the decision from its problem and table. */
void lai_decide(lai_decision *decision);

/* The same as if the table had no row of this kernel, which has just failed. */
void lai_decide_without(lai_decision *decision, int kernel);

/* ---- devices ---------------------------------------------------------------- */

/* What only Python can tell and do; both take the GIL. `serves`: LAI_ROUTED where there is a device, by the table's options,
 * on which the kernel runs, else why not. `multiply`: LAI_ROUTED when the product is done, -1 when a signal interrupted it, else
 * why not; then C holds anything. */
typedef struct {
    int (*serves)(const lai_table *table, int kernel, int dtype);
    int (*multiply)(const lai_table *table, int dtype, const lai_product *product);
} lai_device_functions;

void lai_use_device_functions(const lai_device_functions *functions);   /* they are copied, once a process */
int lai_device_serves(const lai_table *table, int kernel, int dtype);   /* LAI_DEVICE before that */
int lai_device_multiply(const lai_table *table, int dtype, const lai_product *product);

/* ---- observation: counters of the process, traces of a context -------------- */

typedef struct {
    int64_t calls, bytes;
    lai_blocks blocks;
} lai_counter;

/* NumPy may run one call in several pieces: `blocks` are this piece's, `calls` is 1 for the first and 0 for the others;
 * `tell` is 1 where the decision's reason, if it is one against a kernel, is to be counted. */
void lai_count(const lai_decision *decision, const lai_blocks *blocks, int calls, int tell, int64_t bytes);
void lai_read_counter(int function, int kernel, lai_counter *counter);
int64_t lai_read_fallbacks(int function, int reason);
void lai_reset_counters(void);

/* A closed trace takes no more decisions; it may be freed once no activation holds its address. */
typedef struct lai_trace lai_trace;
lai_trace *lai_open_trace(void);                /* NULL: no memory */
void lai_close_trace(lai_trace *trace);
void lai_free_trace(lai_trace *trace);
int64_t lai_append_to_trace(lai_trace *trace, const lai_decision *decision);    /* its index, or -1 */
void lai_update_trace(lai_trace *trace, int64_t index, const lai_decision *decision);
int64_t lai_trace_length(lai_trace *trace);
int lai_read_trace(lai_trace *trace, int64_t index, lai_decision *decision);

/* ---- numpy.matmul ------------------------------------------------------------ */

enum lai_hook_status {
    LAI_HOOKED,
    LAI_HOOK_NO_NUMPY,      /* NumPy's C API did not load */
    LAI_HOOK_SIGNATURE,     /* np.matmul's signature is not (n?,k),(k,m?)->(n?,m?) */
    LAI_HOOK_OCCUPIED,      /* somebody else uses process_core_dims_func */
    LAI_HOOK_LOOPS          /* a loop of np.matmul could not be replaced */
};

/* Put our loops and hook into the ufunc, whose address is given; `state` is the address
 * of the ContextVar that holds the activation. Both must outlive the process. */
int lai_hook_matmul(uintptr_t ufunc, uintptr_t state);
void lai_unhook_matmul(void);
void lai_set_process_table(const lai_table *table);     /* for contexts that set nothing; NULL: off */
int lai_overflow_matches(int dtype);                    /* the self-check's verdict */
void lai_check_overflow(void);                          /* run it again (another instruction set) */

/* ---- divide and conquer for bidiagonal matrices ------------------------------- */

/* LAPACK's routines of one precision, addresses of what SciPy carries. */
typedef struct {
    void *lasdq, *lasd7, *lamrg;
} lai_lapack;

enum { LAI_LEAF = 25 };         /* rows of a leaf at most */

/* What a merge leaves, by level: arrays of n, of which a node has its rows' part (LAPACK's lasda names them). The rotations' sines
 * and cosines are two each: of columns that deflation found alike, and of V's first and last column. */
enum lai_numbers {
    LAI_Z, LAI_DSIGMA, LAI_SIGMA, LAI_DIFL, LAI_DIFR, LAI_NORMS, LAI_ROTATIONS, LAI_LAST = LAI_ROTATIONS + 2,
    LAI_NUMBERS = LAI_LAST + 2
};
enum lai_indices { LAI_PERM, LAI_ROTATED, LAI_INDICES = LAI_ROTATED + 2 };

typedef struct {
    int first, size, size_v;    /* U is size x size, V size_v x size_v */
} lai_leaf;

typedef struct {
    int first, left, size, size_v;      /* rows; `left` of them are the left half's, then comes the one between */
    int k, rotations;
} lai_merge;

typedef struct {
    int levels, most;           /* nodes of a level at most; level 0 is the root's */
    int leaf_count;
    int *counts;                /* nodes of each level */
    lai_merge *merges;          /* levels x most */
    lai_leaf *leaves;           /* n at most */
    void *numbers;              /* levels x LAI_NUMBERS x n */
    int *indices;               /* levels x LAI_INDICES x n; from 1 on */
    void *leaf_u, *leaf_vt;     /* n x LAI_LEAF and n x (LAI_LEAF + 1), by columns; a leaf has its rows */
} lai_tree;

int lai_lasda_levels(int n);

/* Singular values of the upper bidiagonal matrix of d (n) and e (n, the last one 0), in d, in no order; e is overwritten. The tree's
 * sizes and arrays are the caller's, its counts 0. 0, LAPACK's info, or -1 for no memory. */
int lai_dlasda(const lai_lapack *lapack, int n, double *d, double *e, lai_tree *tree);
int lai_slasda(const lai_lapack *lapack, int n, float *d, float *e, lai_tree *tree);

/* ---- OpenCL ------------------------------------------------------------------
 *
 * LAPACK on an OpenCL device: each function enqueues its kernels (cl/) on an in-order queue and
 * returns at once, with CL_SUCCESS (0) or the status of the first OpenCL call that failed; nothing
 * is enqueued after that one. pyopencl makes the objects, C only enqueues: a reduction takes
 * thousands of launches. Kernel arguments belong to the kernel object: one call at a time.
 *
 * Matrices are of the dtype of their lai_opencl, but for those that are called real. ' is the conjugate transpose, ^T the
 * transpose.
 * A flag `transpose` is 0, 1 for the transpose, 2 for the conjugate transpose; of real matrices 1 and 2 are the same.
 */

/* The kernel's name in cl/ is the enumerator's end in lower case: LAI_CL_GEMM_SUM is gemm_sum. */
enum lai_cl_kernel {
    LAI_CL_MAX_ABS, LAI_CL_LASCL, LAI_CL_LASCL_TRANSPOSED, LAI_CL_LASET, LAI_CL_LACPY_UPPER, LAI_CL_LACP2,
    LAI_CL_GEMM, LAI_CL_GEMM_SUM, LAI_CL_REAL_FORM,
    LAI_CL_PANEL_COLUMN, LAI_CL_PANEL_LEFT, LAI_CL_PANEL_ROW, LAI_CL_PANEL_RIGHT,
    LAI_CL_SWEEP_COLUMN, LAI_CL_SWEEP_2, LAI_CL_SWEEP_4, LAI_CL_SWEEP_8, LAI_CL_SWEEP_16, LAI_CL_SWEEP_32,
    LAI_CL_SWEEP_PANEL_2, LAI_CL_SWEEP_PANEL_4, LAI_CL_SWEEP_PANEL_8, LAI_CL_SWEEP_PANEL_16, LAI_CL_SWEEP_PANEL_32,
    LAI_CL_MULTISECTION,
    LAI_CL_LEAF_VECTORS, LAI_CL_MERGE_ROTATE, LAI_CL_MERGE_GATHER, LAI_CL_MERGE_SECULAR, LAI_CL_MERGE_KEEP, LAI_CL_PERMUTE,
    LAI_CL_UNIT_LOWER, LAI_CL_GRAM, LAI_CL_LARFT,
    LAI_CL_POTRF, LAI_CL_TRSM, LAI_CL_DISTANCE_TO_IDENTITY,
    LAI_CL_GESVJ, LAI_CL_GESVJ_LARGE, LAI_CL_COMPLETE_BASIS,
    LAI_CL_KERNELS
};

/* How a kernel of products divides them. */
typedef struct {
    int rows, columns;                  /* of C that a work-group computes, 128 at most */
    int items;                          /* of a work-group */
    int groups;                         /* work-groups that the device runs at a time */
} lai_gemm_tile;

/* What a kernel was given last. Kernels keep their arguments, of which few change from launch to launch; to set them all takes
 * as long as the launch. */
enum { LAI_CL_ARGUMENTS = 48 };
typedef struct {
    int known;                          /* so many of them */
    uint64_t values[LAI_CL_ARGUMENTS];
} lai_kept_arguments;

/* One device and one dtype. Handles are pyopencl's int_ptr; it keeps the objects alive. Kernels of products and of
 * bidiagonal matrices are those of the real dtype. */
typedef struct {
    int dtype;                          /* enum lai_dtype: a float or complex one */
    void *queue;                        /* cl_command_queue, in order */
    void *kernels[LAI_CL_KERNELS];      /* cl_kernel */
    void *gemm_large;                   /* another gemm, faster for large products; NULL where there is none */
    lai_gemm_tile gemm_tile[2];         /* of LAI_CL_GEMM and of gemm_large, in reals */
    lai_kept_arguments *kept;           /* of `kernels`, then of gemm_large */
    int waiting_groups;                 /* that may wait for each other, in LAI_CL_SWEEP_PANEL_2 and the like; 0: the program has none */
} lai_opencl;

/* Column-major: element (i, j) is at offset + i + j ld. A vector is a matrix of one column. */
typedef struct {
    void *buffer;                       /* cl_mem */
    int64_t offset, ld;                 /* in elements */
    int rows, columns;
} lai_matrix;

/* Find OpenCL in the loader that this library (pyopencl's extension module) is linked with, which
 * it has mapped already. 0, or -1 where there is none. Once a process, before anything below. */
int lai_opencl_load(const char *library);

/* Before every function below: a buffer that was freed since, and a new one, may have the same handle. */
void lai_cl_forget_arguments(const lai_opencl *cl);

/* Elements of the workspace of the functions of the same name. */
int64_t lai_cl_max_abs_work(void);
int64_t lai_cl_gemm_work(int dtype, int transb, int m, int n, int k);
int64_t lai_cl_gebrd_work(int dtype, int m, int n);
int64_t lai_cl_geqrf_work(int dtype, int m, int n);
int64_t lai_cl_cholqr_work(int dtype, int m, int n);
int64_t lai_cl_ormqr_work(int dtype, int m, int n, int k);
int64_t lai_cl_gesvj_work(int dtype, int m, int n, int vectors, int count);

/* result (1 x 1, real) = max |A|, of real and imaginary parts; Inf where A holds a NaN or an Inf. */
int lai_cl_max_abs(const lai_opencl *cl, const lai_matrix *a, const lai_matrix *result, const lai_matrix *work);

/* B = 2^exponent op(A). */
int lai_cl_lascl(const lai_opencl *cl, int transpose, int exponent, const lai_matrix *a, const lai_matrix *b);

/* A = alpha off the diagonal, beta on it. */
int lai_cl_laset(const lai_opencl *cl, int alpha, int beta, const lai_matrix *a);

/* B = the upper triangle or trapezoid of A, zero below. */
int lai_cl_lacpy_upper(const lai_opencl *cl, const lai_matrix *a, const lai_matrix *b);

/* B = A, which is real. */
int lai_cl_lacp2(const lai_opencl *cl, const lai_matrix *a, const lai_matrix *b);

/* C = alpha op(A) op(B) + beta C; beta = 0 does not read C. */
int lai_cl_gemm(const lai_opencl *cl, int transa, int transb, int alpha, const lai_matrix *a, const lai_matrix *b,
                int beta, const lai_matrix *c, const lai_matrix *work);

/* One of many products: its sizes, and how many elements its operands lie behind the first ones of A, B and C. */
typedef struct {
    int64_t a, b, c;
    int m, n, k, unused;
} lai_gemm_row;

/* Many products by one launch, C = alpha op(A) op(B) + beta C for each row, `first` and later ones, of a table
 * of lai_gemm_row on the device. A, B and C give buffers, leading dimensions and what all rows have in common of the
 * offsets; m and n are the largest ones of the rows. No result may be an operand or overlap another one. Real. */
int lai_cl_gemm_batch(const lai_opencl *cl, int transa, int transb, int alpha, const lai_matrix *a,
                      const lai_matrix *b, int beta, const lai_matrix *c, void *table, int64_t first, int products,
                      int m, int n);

/* A (m x n, m >= n) = Q B P^T with B real and upper bidiagonal: diagonal d (n), superdiagonal e (n - 1), both real.
 * max |A| is in [1/2, 1), or A = 0. Q = H_1 ... H_n: reflector i is in column i of A, its 1 at row i
 * (implied, as everything above). P = G_1 ... G_{n-1}: reflector i is in column i of p (n x n), its 1
 * at row i + 1. */
int lai_cl_gebrd(const lai_opencl *cl, const lai_matrix *a, const lai_matrix *p, const lai_matrix *d,
                 const lai_matrix *e, const lai_matrix *tauq, const lai_matrix *taup, const lai_matrix *work);

/* A (m x n) = Q R. R is A's upper triangle, Q = H_1 ... H_k, k = min(m, n), is below as in gebrd. Same scaling. */
int lai_cl_geqrf(const lai_opencl *cl, const lai_matrix *a, const lai_matrix *tau, const lai_matrix *work);

/* A (m x n, m >= n, left alone) = Q R, both explicit; gram is n x n. The sum of `distance` is the square of how far
 * the columns of a first Q were from orthonormal; it is real: unless its root is well below 1 (NaN is not), Q and R are of no
 * use. */
int lai_cl_cholqr(const lai_opencl *cl, const lai_matrix *a, const lai_matrix *q, const lai_matrix *r,
                  const lai_matrix *gram, const lai_matrix *distance, const lai_matrix *work);

/* C (m x n) = Q C, or Q' C with `transpose` 2; Q = H_1 ... H_k has its reflectors in the columns of v (m x k). */
int lai_cl_ormqr(const lai_opencl *cl, int transpose, const lai_matrix *v, const lai_matrix *tau,
                 const lai_matrix *c, const lai_matrix *work);

/* s (n) = the singular values, all real, in descending order up to rounding, of the upper bidiagonal matrix of d and e. */
int lai_cl_bdsvx(const lai_opencl *cl, const lai_matrix *d, const lai_matrix *e, const lai_matrix *s);

/* Left (V: right) singular vectors, all real, of the bidiagonal matrix of a tree, whose order `order` gives (n integers on the device), in
 * s (n x n). Of the tree the counts, merges and leaf_count are read; the rest is on the device: numbers (levels x LAI_NUMBERS x n,
 * then leaf_u, leaf_vt) and, in `integers`, indices, merges, leaves, order, each from the given place on, and `products` of the merges (lai_gemm_row).
 * room and z are n x n. */
typedef struct {
    void *integers, *products;
    int64_t indices, merges, leaves, order;
} lai_tree_places;
int lai_cl_bdsdc(const lai_opencl *cl, const lai_tree *tree, int right, const lai_matrix *numbers, const lai_tree_places *places,
                 const lai_matrix *s, const lai_matrix *room, const lai_matrix *z);

/* A = U S V^T for each of many real matrices, m x n with 64 >= m >= n, by one-sided Jacobi rotations. A column of a,
 * u, v, s and info is what belongs to one matrix, without gaps: A; U (m x left); V; the values, descending, of A 2^e,
 * whose largest entry is in [1/2, 1); e and the rank, or in its place one of the following, and then the rest is
 * undefined. A and U are by rows and V by columns; where `wide` is set, A and U are by columns and V by rows. u
 * without rows: the values alone, v is not used either. */
enum { LAI_GESVJ_NOT_CONVERGED = -1, LAI_GESVJ_NOT_FINITE = -2 };
int lai_cl_gesvj(const lai_opencl *cl, int m, int n, int left, int wide, const lai_matrix *a, const lai_matrix *u,
                 const lai_matrix *v, const lai_matrix *s, const lai_matrix *info, const lai_matrix *work);
