"""Reason codes of decisions and their texts; the numbers are ``enum lai_reason`` of csrc/include/lapack_ai.h."""

from __future__ import annotations

from lapack_ai_backend.native import lib

TEXTS = {
    "routed": "a rule names this kernel for the problem",
    "inactive": "the backend is not active in this context",
    "no_rule": "no rule names this function",
    "disabled": "option disable names this function",
    "dtype": "no kernel is routed for this dtype",
    "shape": "the kernels for this function want square matrices of one size",
    "size": "the matrices are outside the sizes that a rule routes",
    "batch": "the stack is outside the lengths that a rule routes",
    "symmetric": "A @ A.T stays where its result is exactly symmetric",
    "isa": "the kernel pays at a higher instruction set only",
    "threads": "the kernel may use fewer threads than NumPy's BLAS does",
    "accuracy": "option accuracy excludes the kernel's error class",
    "device": "no usable device for the kernel",
    "forced": "option force names another kernel, or stock",
    "input": "no kernel takes these arguments (wanted: plain arrays, SciPy's default driver, no axis)",
    "no_loop": "no loop ran: the result is empty, or the call raised",
    "memory": "not enough memory for the kernel; stock ran",
    "kernel_declined": "the kernel refused this data or layout; stock ran",
    "kernel_failed": "the kernel failed; stock ran",
    "wrong_result": "the kernel's result failed its verification; stock ran",
    "broken": "the kernel failed repeatedly and is switched off for this process",
    "not_intercepted": "the function is not intercepted",
    "tuned": "no kernel was measured to be faster than stock on this machine",
}

NUMBERS = {code: getattr(lib, f"LAI_{code.upper()}") for code in TEXTS}
CODES = {number: code for code, number in NUMBERS.items()}
