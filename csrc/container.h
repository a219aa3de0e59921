/* lai_available_memory() is in the shared header: Python asks, too. */
#ifndef LAPACK_AI_CONTAINER_H
#define LAPACK_AI_CONTAINER_H

#include "native.h"

/* CPUs that the control groups of this process pay for, rounded up; 0: no limit. */
int lai_read_cgroup_cpus(const char *root);

#endif
