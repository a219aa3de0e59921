"""np.matmul as it lies in memory: its fields and its table of loops."""

from __future__ import annotations

import ctypes

import numpy as np

WORD = ctypes.sizeof(ctypes.c_size_t)
FUNCTIONS = 4  # word of PyUFuncObject that points to the loops: after the object's head (2) and four ints (2)


def fields(ufunc: np.ufunc = np.matmul) -> list[int]:
    """Every word of the ufunc object but its reference count."""
    count = type(ufunc).__basicsize__ // WORD
    return list((ctypes.c_size_t * count).from_address(id(ufunc)))[1:]


def loops(ufunc: np.ufunc = np.matmul) -> list[int]:
    """Addresses of the inner loops, one a type signature."""
    table = (ctypes.c_size_t * type(ufunc).__basicsize__).from_address(id(ufunc))[FUNCTIONS]
    return list((ctypes.c_size_t * ufunc.ntypes).from_address(table))
