/* lai_parallel() is in the shared header: tests call it, too. */
#ifndef LAPACK_AI_THREADS_H
#define LAPACK_AI_THREADS_H

#include "native.h"

#endif
