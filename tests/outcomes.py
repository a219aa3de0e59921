"""What a call did, as far as its caller can tell: result to the bit, error, warnings with their places."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lapack_ai_backend.interception import FILE_NAME


class Outcome(NamedTuple):
    """Comparable: two calls that gave the same have equal outcomes."""

    result: Any
    error: Any
    warnings: Any


def described(value: Any) -> Any:
    """A value as comparable parts: type, dtype, layout, bits."""
    if isinstance(value, np.ma.MaskedArray):
        return type(value), described(value.filled(0)), described(np.ma.getmaskarray(value))
    if isinstance(value, np.ndarray):
        # Bits of a long double include padding that nobody sets.
        bits = value.tolist() if value.dtype.char in "OgG" else np.asarray(value).tobytes()
        flags = value.flags.c_contiguous, value.flags.f_contiguous, value.flags.writeable, value.flags.aligned
        return type(value), value.dtype.str, value.shape, value.strides, flags, repr(bits)
    if isinstance(value, np.generic):
        return type(value), repr(value.tobytes())
    if isinstance(value, (tuple, list)):
        return type(value), tuple(described(each) for each in value)
    return type(value), repr(value)


def _frames(error: BaseException) -> list[tuple[str, int | None]]:
    """Files and lines that a traceback shows, ours among them left out."""
    frames = traceback.extract_tb(error.__traceback__)
    return [(frame.filename, frame.lineno) for frame in frames if frame.filename != FILE_NAME]


def outcome(call: Callable[[], Any]) -> Outcome:
    """Make a call and say what came of it."""
    result = error = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = described(call())
        except Exception as raised:
            error = type(raised), str(raised), _frames(raised)
    told = tuple((each.category, str(each.message), each.filename, each.lineno) for each in caught)
    return Outcome(result, error, told)
