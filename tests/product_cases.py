"""Stacks of products for tests: Hypothesis draws shape, dtype, scale, layout and seed; never elements."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

REAL = ("float32", "float64")
COMPLEX = ("complex64", "complex128")
INTEGERS = ("int32", "int64", "uint32", "uint64")
NARROW = ("int8", "int16", "uint8", "uint16")
LAYOUTS = ("contiguous", "transposed", "strided", "reversed", "broadcast", "fortran")
KINDS = ("dense", "sparse", "rigid", "graded", "integral")

Array = np.ndarray[Any, Any]


class Case(NamedTuple):
    """Two stacks of matrices."""

    a: Array
    b: Array


def laid_out(values: Array, layout: str) -> Array:
    """The same values (for "broadcast": the first matrix everywhere) behind other strides."""
    if layout == "transposed":
        return np.ascontiguousarray(values.swapaxes(-1, -2)).swapaxes(-1, -2)
    if layout == "strided":
        room = np.zeros((*values.shape[:-2], 2 * values.shape[-2], 3 * values.shape[-1]), values.dtype)
        view = room[..., ::2, ::3]
        view[...] = values
        return view
    if layout == "reversed":
        return np.ascontiguousarray(values[..., ::-1, ::-1])[..., ::-1, ::-1]
    if layout == "broadcast":
        return np.broadcast_to(values[:1], values.shape)
    if layout == "fortran":
        return np.asfortranarray(values)
    return np.ascontiguousarray(values)


def filled(shape: tuple[int, ...], dtype: str, kind: str, exponent: int, seed: int) -> Array:
    """Values of one kind, times 2**exponent."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    values = rng.uniform(0.5, 2.0, shape) * rng.choice([-1.0, 1.0], shape)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * rng.uniform(0.5, 2.0, shape)
    if kind == "sparse":
        values[rng.uniform(size=shape) < 0.3] = 0
    elif kind == "rigid":  # last row 0 ... 0 1, as in robotics and graphics
        values[..., -1, :] = 0
        values[..., -1, -1] = 1
    elif kind == "graded":
        values = values * 2.0 ** -rng.integers(0, 60 if dtype in ("float64", "complex128") else 15, shape)
    elif kind == "integral":
        values = rng.integers(-50, 50, shape).astype(values.dtype)
    return (values * 2.0**exponent).astype(dtype)


@st.composite
def cases(
    draw: st.DrawFn, dtypes: tuple[str, ...], sizes: st.SearchStrategy[int], most: int = 40, square: bool = True
) -> Case:
    """A case of any kind, scale and layout; results neither overflow nor underflow."""
    dtype, n = draw(st.sampled_from(dtypes)), draw(sizes)
    k, m = (n, n) if square else (draw(sizes), draw(sizes))
    batch, seed = draw(st.integers(1, most)), draw(st.integers(0, 2**32 - 1))
    double = dtype in ("float64", "complex128")
    exponents = st.integers(-300, 300) if double else st.integers(-30, 30)
    operands = []
    for i, shape in enumerate([(batch, m, k), (batch, k, n)]):
        values = filled(shape, dtype, draw(st.sampled_from(KINDS)), draw(exponents), seed + i)
        operands.append(laid_out(values, draw(st.sampled_from(LAYOUTS))))
    return Case(*operands)


def reference(a: Array, b: Array) -> Array:
    """The product in extended precision (integers: NumPy's own, which wraps)."""
    if a.dtype.kind in "iu":
        return np.matmul(a, b)
    wide = np.clongdouble if a.dtype.kind == "c" else np.longdouble
    return np.matmul(a.astype(wide), b.astype(wide))


def _magnitude(x: Array) -> Array:
    return np.abs(x).astype(np.longdouble)


def _largest_ratio(error: Array, bound: Array) -> float:
    safe = np.where(bound > 0, bound, 1)
    return float(np.max(np.where(bound > 0, error / safe, np.where(error > 0, np.inf, 0)), initial=0))


def componentwise_ratio(c: Array, a: Array, b: Array) -> float:
    """max |C - Ĉ| / (k eps |A| |B|), entry by entry, k the inner size."""
    exact = reference(a, b)
    bound = a.shape[-1] * np.finfo(c.dtype).eps * np.matmul(_magnitude(a), _magnitude(b))
    return _largest_ratio(_magnitude(c - exact), bound)


def normwise_ratio(c: Array, a: Array, b: Array) -> float:
    """max over the stack of max|C - Ĉ| / (k eps max|A| max|B|), k the inner size."""
    exact = reference(a, b)
    error = np.max(_magnitude(c - exact), axis=(-2, -1))
    scale = np.max(_magnitude(a), axis=(-2, -1)) * np.max(_magnitude(b), axis=(-2, -1))
    bound = a.shape[-1] * np.finfo(c.dtype).eps * scale
    return _largest_ratio(error, bound)
