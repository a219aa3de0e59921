"""Whether the backend is on here: one ContextVar, and one value for the whole process.

A context's activations form a chain, newest first, without tokens: leaving in a
foreign Context, out of order or twice removes what is there and never raises.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, NamedTuple

from lapack_ai_backend.native import ffi, lib
from lapack_ai_backend.options import Options, environment_options
from lapack_ai_backend.policy import table_for

OFF, INHERIT = 0, -1  # in place of a table's address


class Activation(NamedTuple):
    """One entered context. csrc/matmul_hook.c reads the first two fields."""

    table: int  # address of the compiled policy, or OFF, or INHERIT (nothing is said of it in this context)
    trace: int  # address of the open trace, 0 without
    options: Options | None
    owner: Any  # the context manager that pushed it; a trace is kept alive by it
    outer: Activation | None
    given: dict[str, Any]  # what this entry itself sets of the first three; the rest is as outside
    quiet: bool  # off and not traced: the trampolines go straight to stock


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


def switch_process(options: Options | None) -> None:
    """Switch the whole process on with these options, or off: its Python side and its C side."""
    PROCESS.update(options=options)
    lib.lai_set_process_table(table_for(options).c_table if options else ffi.NULL)


def is_skipped() -> bool:
    """Whether the innermost switch here is skip_backend()."""
    here = ACTIVE.get()
    return here is not None and here.table == OFF


def effective_options() -> Options | None:
    """Options that rule here; None where the backend is off."""
    here = ACTIVE.get()
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
    return PROCESS.options or environment_options()


def switch_on(owner: object, options: Options) -> None:
    """Enter a context with these options."""
    ACTIVE.set(_inside(ACTIVE.get(), owner, {"table": table_for(options).address, "options": options}))


def switch_off(owner: object) -> None:
    """Enter a context where everything is stock."""
    ACTIVE.set(_inside(ACTIVE.get(), owner, {"table": OFF, "options": None}))


def attach(owner: object, trace: int) -> None:
    """Enter a context that records its calls in the trace at this address."""
    ACTIVE.set(_inside(ACTIVE.get(), owner, {"trace": trace}))


def leave(owner: object) -> None:
    """Remove the newest activation of `owner` from this Context's chain, if it is there."""
    ACTIVE.set(_without(ACTIVE.get(), owner))


def _inside(outer: Activation | None, owner: object, given: dict[str, Any]) -> Activation:
    table, trace, options = (outer.table, outer.trace, outer.options) if outer else (INHERIT, 0, None)
    fields = {"table": table, "trace": trace, "options": options} | given
    quiet = fields["table"] == OFF and not fields["trace"]
    return Activation(**fields, owner=owner, outer=outer, given=given, quiet=quiet)


def _without(here: Activation | None, owner: object) -> Activation | None:
    above = []
    found = here
    while found is not None and found.owner is not owner:
        above.append(found)
        found = found.outer
    if found is None:
        return here
    kept = found.outer
    for each in reversed(above):
        kept = _inside(kept, each.owner, each.given)
    return kept
