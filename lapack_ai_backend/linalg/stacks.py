"""The decompositions of a stack of small real matrices, many by one launch: one-sided Jacobi rotations, `lapack.gesvj`.

At most ``LAPACK_BATCH_SIZE_LIMIT`` matrices are on the device at a time. What becomes of a matrix does not depend on
those beside it. Wide matrices come as their transposes: read by columns what is there by rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lapack_ai_backend.environment import PROCESS_VARIABLES, from_environment
from lapack_ai_backend.errors import DeviceError
from lapack_ai_backend.linalg.verification import StackVerification
from lapack_ai_backend.opencl import lapack, memory, transfer
from lapack_ai_backend.opencl.lapack import Matrix
from lapack_ai_backend.opencl.session import Session

Array = np.ndarray[Any, Any]

MOST = 64  # rows and columns


@dataclass(frozen=True)
class Plan:
    """What the decompositions of a batch of matrices need, m x n with m >= n, or n x m where `wide`."""

    m: int
    n: int
    dtype: str
    wide: bool
    vectors: bool
    left: int  # columns of U, of the m x n matrices
    batch: int  # matrices on the device at a time

    def shapes(self) -> dict[str, tuple[int, int]]:
        """The arrays on the device, a column for each matrix; of V the caller sees U where `wide`."""
        m, n = self.m, self.n
        sizes = {"a": m * n, "s": n, "info": 2} | ({"u": m * self.left, "v": n * n} if self.vectors else {})
        work = lapack.gesvj_work(self.dtype, m, n, self.vectors, self.batch) // self.batch
        return {name: (size, self.batch) for name, size in (sizes | ({"work": work} if work else {})).items()}

    def device_bytes(self) -> list[int]:
        """Sizes of their buffers."""
        return [math.prod(shape) * self._itemsize for shape in self.shapes().values()]

    @property
    def most_bytes(self) -> int:
        """Of the largest transfer."""
        return max(self.m * max(self.n, self.left), 1) * self.batch * self._itemsize

    def host_bytes(self, count: int) -> int:
        """The results of `count` matrices, a copy of them in order, and what the check of a batch takes."""
        results = self.n + (self.m * self.left + self.n * self.n if self.vectors else 0)
        return (count * (results + self.m * self.n) + self.batch * (2 * self.m * self.n + 16 * self.m)) * self._itemsize

    def results(self, count: int) -> tuple[Array, Array, Array]:
        """Room for U, S and Vh as the caller sees them; of values alone U and Vh are empty."""
        m, n, left = self.m, self.n, self.left
        u, v = ((left, m) if self.wide else (m, left)), (n, n)
        shapes = ((v, u) if self.wide else (u, v)) if self.vectors else ((0, 0), (0, 0))
        return (
            np.empty((count, *shapes[0]), self.dtype),
            np.empty((count, n), self.dtype),
            np.empty((count, *shapes[1]), self.dtype),
        )

    @property
    def _itemsize(self) -> int:
        return np.dtype(self.dtype).itemsize


def serves(a: Array) -> bool:
    """Whether an array is a stack that this module takes."""
    return a.ndim > 2 and a.dtype.name in ("float32", "float64") and max(a.shape[-2:]) <= MOST


def plan(rows: int, columns: int, dtype: str, count: int, *, vectors: bool, full: bool) -> Plan:
    """The plan for `count` rows x columns matrices."""
    limit, _ = from_environment(PROCESS_VARIABLES["batch_size_limit"])
    m, n = max(rows, columns), min(rows, columns)
    return Plan(m, n, dtype, rows < columns, vectors, m if full else n, min(count, int(limit)))


class Workspace:
    """The arrays of a plan on a device; one batch after the other uses them."""

    def __init__(self, session: Session, plan: Plan) -> None:
        self.session, self.plan = session, plan
        self._arrays = {name: lapack.allocate(session, plan.dtype, *shape) for name, shape in plan.shapes().items()}

    def __getitem__(self, name: str) -> Matrix:
        return self._arrays[name]

    def decompose(self, count: int) -> None:
        """U, S and V of the first `count` matrices."""
        plan, found = self.plan, self._arrays.get
        a = self["a"]._replace(columns=count)
        shape = plan.m, plan.n, plan.left
        lapack.gesvj(self.session, shape, plan.wide, a, found("u"), found("v"), self["s"], self["info"], found("work"))

    def fetch(self, u: Array, s: Array, vh: Array) -> Array:
        """Fill what `Plan.results` gave, or part of it, S being that of the scaled matrices; `lapack.gesvj`'s info."""
        info = np.empty((len(s), 2), s.dtype)
        targets = {"info": info, "s": s}
        if self.plan.vectors:
            targets |= {"u": vh, "v": u} if self.plan.wide else {"u": u, "v": vh}
        for name, target in targets.items():
            transfer.read(self.session, self[name].buffer, target)
        return info


def decompose(session: Session, a: Array, *, vectors: bool, full: bool, check_finite: bool, verify: str) -> Any:
    """U, S, Vh of every matrix, checked, U and Vh None without vectors; ``NotImplemented`` leaves all to stock."""
    rows, columns = a.shape[-2:]
    stack = a.shape[:-2]
    count = math.prod(stack)
    chosen = plan(rows, columns, a.dtype.name, count, vectors=vectors, full=full)
    pinned = transfer.pinned_bytes(session, chosen.most_bytes)
    memory.check(session, chosen.device_bytes(), chosen.host_bytes(count) + pinned)
    work, matrices = Workspace(session, chosen), a.reshape(count, rows, columns)
    u, s, vh = chosen.results(count)
    for start in range(0, count, chosen.batch):
        here = slice(start, start + chosen.batch)
        part = np.ascontiguousarray(matrices[here], chosen.dtype)
        unreadable = _batch(work, part, u[here], s[here], vh[here], verify)
        if unreadable.any():
            if check_finite or np.isnan(part[unreadable]).any():
                return NotImplemented  # stock's errors
            for each in (u, s, vh):
                each[here][unreadable] = np.nan  # LAPACK may iterate for ever on Inf
    shaped = [each.reshape(*stack, *each.shape[1:]) for each in (u, s, vh)]
    return tuple(shaped) if vectors else (None, shaped[1], None)


def _batch(work: Workspace, a: Array, u: Array, s: Array, vh: Array, verify: str) -> Array:
    """Fill `u`, `s`, `vh` with the decompositions of `a`, checked; which matrices are not finite, and have none."""
    transfer.write(work.session, a, work["a"].buffer)
    work.decompose(len(a))
    info = work.fetch(u, s, vh)
    exponents, rank = info[:, 0].astype(int), info[:, 1]
    finite = rank != lapack.NOT_FINITE
    if (rank == lapack.NOT_CONVERGED).any():
        raise DeviceError("Jacobi rotations of a small matrix did not converge")
    if verify != "off" and finite.any():
        every = finite.all()  # then nothing is copied
        checks = StackVerification(*((a, exponents) if every else (a[finite], exponents[finite])))
        checked = (u, s, vh) if every else (u[finite], s[finite], vh[finite])
        if work.plan.vectors:
            checks.probe(*checked)
        else:
            checks.values(checked[1])
            checks.sample(checked[1])
        if verify == "always":
            checks.reference(checked[1], *((checked[0], checked[2]) if work.plan.vectors else ()))
    np.ldexp(s, -exponents[:, None], out=s)
    return np.asarray(~finite)
