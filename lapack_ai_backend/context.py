"""Switching on and off: contexts, decorators, the whole process."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from types import TracebackType
from typing import Any

from lapack_ai_backend import activation, interception
from lapack_ai_backend.backend import Gated
from lapack_ai_backend.native import lib
from lapack_ai_backend.opencl import session
from lapack_ai_backend.options import Options, changed, environment_options
from lapack_ai_backend.uarray_adapter import SetBackendContext


class _Switch:
    """A context manager and decorator; subclasses say what entering and leaving mean.

    Objects hold no state of a particular entry, so one may be entered again, from
    several threads and tasks, and left anywhere.
    """

    def __enter__(self) -> Any:
        raise NotImplementedError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        raise NotImplementedError

    def _again(self) -> _Switch:
        """A fresh object for one call of a decorated function."""
        raise NotImplementedError

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorate: the body runs inside, also of async functions and of generators."""
        if inspect.isclass(function):
            raise TypeError(f"{function.__name__} is a class; decorate its methods")
        called = getattr(type(function), "__call__", None)  # noqa: B004  # the method itself: it may be async
        if inspect.iscoroutinefunction(called):
            return self._around_coroutine(function)
        if inspect.isasyncgenfunction(function):
            return self._around_async_generator(function)
        if inspect.iscoroutinefunction(function):
            return self._around_coroutine(function)
        if inspect.isgeneratorfunction(function):
            return self._around_generator(function)

        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return function(*args, **kwargs)

        return inside

    def _around_coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def inside(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return await function(*args, **kwargs)

        return inside

    def _around_generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        # Entered for each step and left before each yield: between steps the caller's settings rule.
        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            generator = function(*args, **kwargs)
            step: Callable[[], Any] = functools.partial(next, generator)
            try:
                while True:
                    try:
                        with self._again():
                            value = step()
                    except StopIteration as stop:
                        return stop.value
                    try:
                        sent = yield value
                        step = functools.partial(generator.send, sent)
                    except GeneratorExit:
                        raise
                    except BaseException as error:
                        step = functools.partial(generator.throw, error)
            finally:
                with self._again():
                    generator.close()

        return inside

    def _around_async_generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def inside(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            generator = function(*args, **kwargs)
            step: Callable[[], Any] = generator.__anext__
            try:
                while True:
                    try:
                        with self._again():
                            value = await step()
                    except StopAsyncIteration:
                        return
                    try:
                        sent = yield value
                        step = functools.partial(generator.asend, sent)
                    except GeneratorExit:
                        raise
                    except BaseException as error:
                        step = functools.partial(generator.athrow, error)
            finally:
                with self._again():
                    await generator.aclose()

        return inside


class BackendContext(_Switch):
    """What ``set_backend`` returns: the backend is on inside, in this context and its copies."""

    def __init__(self, given: Mapping[str, object], coerce: bool = False, only: bool = False) -> None:
        changed(Options(), given)  # bad options fail here, at the call that names them
        self._given = dict(given)
        self._uarray = (coerce, only)
        self._entered = threading.local()  # uarray's stack belongs to the thread

    def __enter__(self) -> BackendContext:
        interception.install()
        options = changed(activation.base_options(), self._given)
        activation.switch_on(self, options)
        entry = SetBackendContext(Gated, *self._uarray)
        entry.__enter__()
        self._stack.append(entry)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        activation.leave(self)
        if self._stack:  # empty where this thread has not entered it: nothing of ours on its stack
            # RuntimeError: tasks of one thread left in another order than they entered; uarray has
            # taken one entry off its stack all the same, and Gated asks the ContextVar.
            with contextlib.suppress(RuntimeError):
                self._stack.pop().__exit__(None, None, None)

    @property
    def _stack(self) -> list[Any]:
        stack: list[Any] = self._entered.__dict__.setdefault("stack", [])
        return stack

    def _again(self) -> BackendContext:
        return BackendContext(self._given, *self._uarray)

    def __reduce__(self) -> tuple[Any, ...]:
        return BackendContext, (self._given, *self._uarray)


class SkipContext(_Switch):
    """What ``skip_backend`` returns: stock behaviour inside."""

    def __enter__(self) -> SkipContext:
        activation.switch_off(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        activation.leave(self)

    def _again(self) -> SkipContext:
        return SkipContext()


class UarrayCache(dict[Any, Any]):
    """The module's ``__ua_cache__``: hands uarray's own set_backend and skip_backend our contexts.

    uarray looks here first, with ("set", coerce, only) or "skip", SciPy's copy with the
    thread's id before that. A fresh context each time also cures uarray's own reuse of one
    context object in several threads, which corrupts memory.
    """

    def __getitem__(self, key: tuple[Any, ...]) -> Any:
        if "skip" in key:
            return SkipContext()
        if "set" in key:
            return BackendContext({}, *key[-2:])
        raise KeyError(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Nothing is kept."""


def enable(**options: object) -> None:
    """Switch the backend on for the whole process: every thread and context that says nothing else.

    Parameters
    ----------
    **options
        As for ``set_backend``; what is not given comes from the environment or is the default.

    Raises
    ------
    OptionError
        For an unknown option, function, kernel or device; the text names the valid ones.
    """
    chosen = changed(environment_options(), options, "enable()")
    with interception.lock:
        interception.install()
        activation.switch_process(chosen)


def disable() -> None:
    """Switch off and put everything back: no interception is left in NumPy or SciPy.

    Contexts that are open go on with stock functions; the next ``set_backend`` or
    ``enable`` intercepts anew. A registration with uarray stays uarray's: it holds for
    ``lapack_ai.matmul``, and for ``scipy.linalg`` after the module is registered again.
    """
    with interception.lock:
        activation.switch_process(None)
        activation.PROCESS.update(known_to_uarray=False)
        interception.uninstall()
        lib.lai_release_workspace()
        session.release()


def is_enabled() -> bool:
    """Whether the backend is on for the whole process (``enable``); contexts do not count."""
    return activation.PROCESS.options is not None
