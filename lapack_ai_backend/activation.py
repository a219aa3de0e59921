"""Whether the backend is on here: one ContextVar, and one value for the whole process.

A context's activations form a chain, newest first, without tokens: leaving in a
foreign Context, out of order or twice removes what is there and never raises.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, NamedTuple

from lapack_ai_backend.options import Options, environment_options
from lapack_ai_backend.policy import table_for

OFF, INHERIT = 0, -1  # in place of a table's address


class Activation(NamedTuple):
    """One entered context. csrc/matmul_hook.c reads the first two fields."""

    table: int  # address of the compiled policy, or OFF, or INHERIT (a trace alone changes no routing)
    trace: int  # address of the open trace, 0 without
    options: Options | None
    owner: Any  # the context manager that pushed it
    outer: Activation | None


ACTIVE: ContextVar[Activation | None] = ContextVar("lapack_ai_active", default=None)


class Process:
    """The state of the whole process, one object that the trampolines hold."""

    def __init__(self) -> None:
        self.options: Options | None = None  # what enable() asked for
        # uarray may hold the module (register_backend, set_global_backend): ask it even where no context is active
        self.known_to_uarray = False
        self.watched = False  # either of the two: what a trampoline tests

    def update(self, **state: Any) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self.watched = self.options is not None or self.known_to_uarray


PROCESS = Process()


def effective_options(activation: Activation | None = None) -> Options | None:
    """Options that rule here; None where the backend is off."""
    here = activation or ACTIVE.get()
    if here is None or here.table == INHERIT:
        return PROCESS.options
    return here.options if here.table != OFF else None


def base_options() -> Options:
    """What a new context starts from: the options in force here, else the environment's."""
    here = ACTIVE.get()
    while here is not None and here.options is None:
        here = here.outer
    if here is not None and here.options is not None:
        return here.options
    return PROCESS.options or environment_options()[0]


def push(owner: object, *, table: int | None = None, options: Options | None = None, trace: int | None = None) -> None:
    """Enter: what is not given stays as it is outside."""
    outer = ACTIVE.get()
    if options is not None:
        table = table_for(options).address
    if table is None:
        table, options = (outer.table, outer.options) if outer else (INHERIT, None)
    if trace is None:
        trace = outer.trace if outer else 0
    ACTIVE.set(Activation(table, trace, options, owner, outer))


def pop(owner: object) -> None:
    """Leave: remove the newest activation of `owner` from this Context's chain, if it is there."""
    ACTIVE.set(_without(ACTIVE.get(), owner))


def _without(here: Activation | None, owner: object) -> Activation | None:
    if here is None or here.owner is owner:
        return here.outer if here else None
    return here._replace(outer=_without(here.outer, owner))
