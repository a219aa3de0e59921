/* The pool on which kernels share their work. */
#ifndef LAPACK_AI_THREADS_H
#define LAPACK_AI_THREADS_H

/* run(context, part) for every part in 0 .. parts - 1, by this thread and those of the pool, in any order; returns
 * when all are done. Parts must not wait for each other: where the pool is taken, or cannot be had, the caller runs
 * them all. Floating-point settings are the caller's in every part, and flags that a part raises are
 * raised in the caller. More parts than lai_num_threads() balance the load. */
void lai_parallel(int parts, void (*run)(void *context, int part), void *context);

#endif
