"""OpenCL: devices and their drivers, sessions, programs, memory, transfers, and LAPACK's routines on them."""
