"""Singular values of a bidiagonal matrix on the host, and what its singular vectors follow from on a device.

LAPACK's divide and conquer in compact form, by csrc/lasda.c, csrc/secular.inc and routines of LAPACK that SciPy
carries. SciPy offers them to Cython only; their capsules hold their addresses.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np

from lapack_ai_backend.native import ffi, lib

Array = np.ndarray[Any, Any]

LETTERS = {"float32": "s", "float64": "d"}

MEMBERS = int(ffi.sizeof("lai_merge")) // 4

MAX_ORDER = 2**20  # a tree's places are 32-bit

PRODUCT = np.dtype([("a", "i8"), ("b", "i8"), ("c", "i8"), ("m", "i4"), ("n", "i4"), ("k", "i4"), ("unused", "i4")])


class Tree:
    """The compact form of a bidiagonal matrix's divide and conquer, `lai_tree` of csrc/include/lapack_ai.h.

    Attributes
    ----------
    numbers : ndarray
        Columns of n: those of all levels, then the leaves' U and VT.
    integers : ndarray of int32
        Permutations, nodes, leaves and the order of the singular values, at `places`.
    """

    def __init__(self, n: int, dtype: Any) -> None:
        self.n, self.levels, self.most = n, _levels(n), _most(n)
        self.numbers = np.zeros(numbers_shape(n)[::-1], dtype)  # by rows: a level's array of n is a row here
        self.integers = np.zeros(integers_size(n), np.int32)
        self._counts = np.zeros(max(self.levels, 1), np.intc)
        lengths = [self.levels * lib.LAI_INDICES * n, self.levels * self.most * MEMBERS, 3 * n, n]
        self.places = [0, *np.cumsum(lengths)[:-1].tolist()]
        of_levels = self.levels * lib.LAI_NUMBERS
        self.native = ffi.new(
            "lai_tree *",
            {
                "levels": self.levels,
                "most": self.most,
                "counts": ffi.cast("int *", self._counts.ctypes.data),
                "merges": ffi.cast("lai_merge *", self._part(1).ctypes.data),
                "leaves": ffi.cast("lai_leaf *", self._part(2).ctypes.data),
                "numbers": ffi.cast("void *", self.numbers.ctypes.data),
                "indices": ffi.cast("int *", self.integers.ctypes.data),
                "leaf_u": ffi.cast("void *", self.numbers[of_levels:].ctypes.data),
                "leaf_vt": ffi.cast("void *", self.numbers[of_levels + lib.LAI_LEAF :].ctypes.data),
            },
        )

    def _part(self, which: int) -> Array:
        return self.integers[self.places[which] :]

    def sort(self, s: Array) -> Array:
        """The singular values in descending order, which the vectors then have, too."""
        order = np.argsort(-s, kind="stable")
        self._part(3)[:] = order
        return np.asarray(s[order])

    def products(self, ld_s: tuple[int, int]) -> Array:
        """The merges' products by level, left and right, node; `ld_s`: of their left and right results."""
        found = np.zeros((max(self.levels, 1), 2, self.most), PRODUCT)
        merges = self._part(1)[: self.levels * self.most * MEMBERS].reshape(self.levels, self.most, MEMBERS)
        first, k = merges[..., 0].astype(np.int64), merges[..., 4]
        for right in (0, 1) if self.levels else ():
            table = found[:, right]
            table["a"] = table["b"] = first * (1 + self.n)
            table["c"] = first * (1 + ld_s[right])
            table["m"], table["n"], table["k"] = merges[..., 2 + right], k, k
        return found


def _levels(n: int) -> int:
    return int(lib.lai_lasda_levels(n))


def _most(n: int) -> int:
    """Nodes of a level at most: none has less than 25 rows, since levels end where all nodes are leaves."""
    return n // 20 + 1


def numbers_shape(n: int) -> tuple[int, int]:
    """Sizes of a tree's `numbers`, as columns."""
    return n, _levels(n) * int(lib.LAI_NUMBERS) + 2 * int(lib.LAI_LEAF) + 1


def integers_size(n: int) -> int:
    """Length of a tree's `integers`."""
    return _levels(n) * (int(lib.LAI_INDICES) * n + _most(n) * MEMBERS) + 4 * n


def products_bytes(n: int) -> int:
    """Size of a tree's `products`."""
    return int(max(_levels(n), 1) * 2 * _most(n) * PRODUCT.itemsize)


def lasda(d: Array, e: Array) -> tuple[Array, Tree]:
    """SVD of the upper bidiagonal matrix of diagonal `d` and superdiagonal `e`: the values, descending, and their tree.

    Raises
    ------
    RuntimeError
        Where LAPACK's iteration does not converge.
    MemoryError
        Where the host has none for its workspace.
    """
    n, dtype = len(d), d.dtype
    s, superdiagonal = d.copy(), np.zeros(n, dtype)  # both are overwritten
    superdiagonal[: n - 1] = e
    tree = Tree(n, dtype)
    pointers = [
        ffi.cast("double *" if dtype == np.float64 else "float *", each.ctypes.data) for each in (s, superdiagonal)
    ]
    info = getattr(lib, f"lai_{LETTERS[dtype.name]}lasda")(_lapack(LETTERS[dtype.name]), n, *pointers, tree.native)
    if info == -1:
        raise MemoryError("no memory for a divide and conquer")
    if info:
        raise RuntimeError(f"divide and conquer did not converge: info = {info}")
    return tree.sort(s), tree


@functools.cache
def _lapack(letter: str) -> Any:
    """The routines of one precision."""
    names = ("lasdq", "lasd7", "lamrg")
    return ffi.new("lai_lapack *", {name: ffi.cast("void *", _address(letter + name)) for name in names})


def _address(name: str) -> int:
    from scipy.linalg import cython_lapack

    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    capsule = cython_lapack.__pyx_capi__[name]
    return int(api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule)))
