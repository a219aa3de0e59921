/* The secular equation of a merge in divide and conquer (csrc/lasda.inc): its roots, and what vectors need of them. */
#ifndef LAPACK_AI_SECULAR_H
#define LAPACK_AI_SECULAR_H

#include "native.h"

/* Vectors of k numbers of one precision; names are lasd8's where it has them. */
typedef struct {
    int k;                      /* 2 at least */
    const void *dsigma;         /* poles, ascending from 0 */
    void *z;                    /* weights; on exit those of which the computed roots are the exact ones */
    void *sigma;                /* roots: one behind each pole */
    void *difl, *difr;          /* sigma_j - dsigma_j, sigma_j - dsigma_{j+1} (the last one: 0), to high relative accuracy */
    void *norms;                /* of V's vectors */
    void *vf, *vl;              /* first and last row of V, which become those of the merged problem */
    void *work[3];
} lai_secular;

/* 0, or the number of a root to which the iteration does not converge. */
typedef int lai_solve_secular(lai_secular *equation);

lai_solve_secular lai_dsecular_baseline, lai_ssecular_baseline;
#if LAI_X86
lai_solve_secular lai_dsecular_avx2, lai_ssecular_avx2, lai_dsecular_avx512, lai_ssecular_avx512;
#endif

#endif
