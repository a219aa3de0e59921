"""uarray, as SciPy has it: the installed package, else SciPy's own copy.

The only module that imports it. SciPy plans to drop uarray one day; then this
file changes and nothing else. The standalone package is an extra and not a
dependency, because merely installing it switches ``scipy.fft`` over to it.
"""

from __future__ import annotations

import sys

try:
    from scipy._lib import uarray
except ImportError:  # a SciPy that has dropped its copy
    import uarray

BackendNotImplementedError = uarray.BackendNotImplementedError
Dispatchable = uarray.Dispatchable
generate_multimethod = uarray.generate_multimethod
# Not re-exported by SciPy's copy; both define set_backend beside it.
SetBackendContext = sys.modules[uarray.set_backend.__module__]._SetBackendContext
version = getattr(uarray, "__version__", "SciPy's own copy")
