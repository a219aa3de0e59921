"""OpenCL: devices now; programs, buffers and the SVD's kernels build on them."""
