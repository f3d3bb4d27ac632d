"""Where `models.transforms.ode` of 0.1.0 lay: it goes on until 0.3.0.

What was asked of all calls inside a `with` block is an argument of each call now, a `SolveCall`.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

from models.ode import call as _call
from models.ode import transform as _home
from models.ode.call import SolveCall, SolveReport

warnings.warn(
    "models.transforms.ode goes with pushforward 0.3.0: write models.ode.transform",
    DeprecationWarning,
    stacklevel=2,
)

_current: ContextVar[SolveCall | None] = ContextVar("solve_call", default=None)


@contextmanager
def values_only() -> Iterator[None]:
    """Leave the log-dets out of every solve inside; write `SolveCall(wants_log_det=False)`."""
    outer = _current.get() or SolveCall()
    with _calling(SolveCall(wants_log_det=False, reports=outer.reports, costs=outer.costs)):
        yield


@contextmanager
def solve_reports() -> Iterator[list[SolveReport]]:
    """Collect a report from every solve in the block; write `SolveCall` and its `reports`."""
    outer = _current.get() or SolveCall()
    call = SolveCall(wants_log_det=outer.wants_log_det)
    with _calling(call):
        yield call.reports


@contextmanager
def _calling(call: SolveCall) -> Iterator[None]:
    token = _current.set(call)
    try:
        yield
    finally:
        _current.reset(token)


def _in_block(solve: Callable[..., Any]) -> Callable[..., Any]:
    """Let a call that names no `SolveCall` be part of the block's."""

    @wraps(solve)
    def solved(self: Any, value: Any, context: Any = None, *, call: SolveCall | None = None) -> Any:
        return solve(self, value, context, call=call or _current.get())

    return solved


for _name in ("encode", "decode"):
    _solve = getattr(_home.ODETransform, _name)
    setattr(_home.ODETransform, _name, _in_block(getattr(_solve, "__wrapped__", _solve)))


def __getattr__(name: str) -> Any:
    return getattr(_call if hasattr(_call, name) else _home, name)
