"""np.matmul and ndarray's operators as they lie in memory."""

from __future__ import annotations

import ctypes

import numpy as np

WORD = ctypes.sizeof(ctypes.c_size_t)
FUNCTIONS = 4  # word of PyUFuncObject that points to the loops: after the object's head (2) and four ints (2)
AS_NUMBER = 12  # word of PyTypeObject that points to the type's operators
OPERATORS = 36  # words of PyNumberMethods
MATMUL = 34  # the one of these for @


def fields(ufunc: np.ufunc = np.matmul) -> list[int]:
    """Every word of the ufunc object but its reference count."""
    count = type(ufunc).__basicsize__ // WORD
    return list((ctypes.c_size_t * count).from_address(id(ufunc)))[1:]


def loops(ufunc: np.ufunc = np.matmul) -> list[int]:
    """Addresses of the inner loops, one a type signature."""
    table = (ctypes.c_size_t * type(ufunc).__basicsize__).from_address(id(ufunc))[FUNCTIONS]
    return list((ctypes.c_size_t * ufunc.ntypes).from_address(table))


def operators(kind: type = np.ndarray) -> ctypes.Array[ctypes.c_size_t]:
    """The operators of a type, 0 where it has none; what is assigned here changes the type."""
    table = (ctypes.c_size_t * (AS_NUMBER + 1)).from_address(id(kind))[AS_NUMBER]
    return (ctypes.c_size_t * OPERATORS).from_address(table)
