"""A loop over rows that can be run or recorded.

It is the one piece of control flow that depends on values and still has a form in a graph.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

Carry = tuple[Tensor, ...]
# (carried, given) -> carried on, of the same shapes and dtypes. The first tensor carried, bool
# (B, 1), says which rows go on.
Body = Callable[[Carry, Carry], Carry]
# (body, carried at first, given) -> carried at last.
Loop = Callable[[Body, Carry, Carry], Carry]
# (number of the turn (1,) int64, carried, given) -> carried on; nothing says which rows go on.
Turn = Callable[[Tensor, Carry, Carry], Carry]
# (turn, carried at first, given, how many, whether it ends early) -> carried at last.
CountedLoop = Callable[[Turn, Carry, Carry, int, bool], Carry]

# Rows worked on together: what they need stays in a core's cache.
ACTIVE_ROWS = 128
# How often the body is applied before rows that are done leave their places to others. Few rows
# cost what one costs: they stay until all are done.
STEPS_PER_COMPACTION = 2
FEW_ROWS = 16


def _run(body: Body, carry: Carry, given: Carry) -> Carry:
    while True:
        rows = carry[0][:, 0].nonzero()[:ACTIVE_ROWS, 0]
        if not len(rows):
            return carry
        active = tuple(tensor[rows] for tensor in carry)
        beside = tuple(tensor[rows] for tensor in given)
        for _ in range(STEPS_PER_COMPACTION):
            active = body(active, beside)
            if not active[0].any():
                break
        carry = tuple(
            tensor.index_copy(0, rows, part) for tensor, part in zip(carry, active, strict=True)
        )


# A context variable, since a module is traced as it is: no argument of it could name the loop.
_loop: ContextVar[Loop] = ContextVar("loop", default=_run)


def repeat_while_any(body: Body, carry: Carry, given: Carry = ()) -> Carry:
    """Apply `body` to rows until none goes on.

    The rows that go on are packed together, a limited number at a time. Between two packings some
    that do not go on stay: the body must leave them as they are, and use rows from nowhere else.

    Args:
        body: must come to an end for every row.
        carry: (B, ...) each; the first, bool (B, 1), says which rows go on.
        given: (B, ...) each: what the body needs of a row and does not change.
    """
    return _loop.get()(body, carry, given)


def _run_in_place(body: Body, carry: Carry, given: Carry) -> Carry:
    while bool(carry[0].any()):
        carry = body(carry, given)
    return carry


def repeat_in_place_while_any(body: Body, carry: Carry, given: Carry = ()) -> Carry:
    """As `repeat_while_any`, with all rows in their places until the last of them is done.

    Sums inside a matrix product may round differently in batches of other sizes: here each
    application of the body has the same size, which costs those of rows that are done. In a graph,
    where a row has the same bits in every batch, they leave it.
    """
    loop = _loop.get()
    return (_run_in_place if loop is _run else loop)(body, carry, given)


def _run_counted(turn: Turn, carry: Carry, given: Carry, times: int, ends_early: bool) -> Carry:
    for number in torch.arange(times, device=carry[0].device).split(1):
        if ends_early and not bool(carry[0].any()):
            break
        carry = turn(number, carry, given)
    return carry


_counted_loop: ContextVar[CountedLoop] = ContextVar("counted_loop", default=_run_counted)


def repeat(
    turn: Turn, carry: Carry, given: Carry, times: int, *, ends_early: bool = False
) -> Carry:
    """Take all rows through `turn` for 0 .. times - 1; in a graph it is there once.

    It is one loop, where `repeat_while_any` is two: it may stand inside another.

    Args:
        ends_early: whether it ends where no row goes on, as the first tensor carried says; `turn`
            must leave those as they are that do not.
    """
    if times == 0:  # a loop over one patch, say: neither kind of loop may see its turn
        return carry
    return _counted_loop.get()(turn, carry, given, times, ends_early)


def repeats_are_recorded() -> bool:
    """Whether `repeat` becomes part of a graph, at no cost of waiting for a device."""
    return _counted_loop.get() is not _run_counted


@contextmanager
def counting_by(loop: CountedLoop) -> Iterator[None]:
    """Let another function than Python's own loop `repeat`, inside the block."""
    token = _counted_loop.set(loop)
    try:
        yield
    finally:
        _counted_loop.reset(token)


# Whether rows must stay where they are in their batch, also when they are done.
_keeps_places: ContextVar[bool] = ContextVar("keeps_places", default=False)


def keeps_places() -> bool:
    """Whether a solve may not take rows out of its batch: it then goes through the loop here."""
    return _keeps_places.get()


@contextmanager
def keeping_places(loop: Loop) -> Iterator[None]:
    """Let every solve inside the block go through `loop`, with all rows of its batch."""
    token = _keeps_places.set(True)
    try:
        with looping_by(loop):
            yield
    finally:
        _keeps_places.reset(token)


@contextmanager
def looping_by(loop: Loop) -> Iterator[None]:
    """Let another function than Python's own loop do it, inside the block."""
    token = _loop.set(loop)
    try:
        yield
    finally:
        _loop.reset(token)
