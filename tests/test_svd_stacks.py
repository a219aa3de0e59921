"""Stacks of small singular value decompositions, one-sided Jacobi rotations on an OpenCL device (PoCL here)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import hypothesis
import numpy as np
import pytest
import scipy.linalg as sl
from hypothesis import given
from hypothesis import strategies as st
from svd_cases import (
    ALARM,
    DEVICE,
    MATRICES,
    difference,
    is_sorted,
    matrix,
    orthogonality,
    ratios,
    stock_values,
)

import lapack_ai_backend as lapack_ai
from lapack_ai_backend import registry
from lapack_ai_backend.errors import Decline, DeviceError, KernelError
from lapack_ai_backend.interception import STOCK
from lapack_ai_backend.linalg import stacks, verification
from lapack_ai_backend.linalg.verification import StackVerification
from lapack_ai_backend.opencl import devices, lapack, memory
from lapack_ai_backend.opencl.session import open_session

Array = np.ndarray[Any, Any]

DTYPES = ("float32", "float64")
pytestmark = pytest.mark.skipif(
    np.lib.NumpyVersion(sl.__dict__["__name__"] and __import__("scipy").__version__) < "1.16.0",
    reason="SciPy takes no stacks",
)
