"""OpenCL: devices and their drivers, sessions, programs, memory, and LAPACK's routines on them."""
