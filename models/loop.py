"""A loop over tensors that can be run or recorded.

It is the one piece of control flow that depends on values and still has a form in a graph.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

Carry = tuple[Tensor, ...]
# What is carried -> what is carried on, of the same shapes and dtypes. The first tensor, bool
# (B, 1), says which rows go on.
Body = Callable[[Carry], Carry]
# (body, carried at first, most iterations) -> carried at last.
Loop = Callable[[Body, Carry, int], Carry]


def _run(body: Body, carry: Carry, most: int) -> Carry:
    for _ in range(most):
        carry = body(carry)
        if not carry[0].any():
            break
    return carry


_loop: ContextVar[Loop] = ContextVar("loop", default=_run)


def repeat_while_any(body: Body, carry: Carry, most: int) -> Carry:
    """Apply `body` once and then as long as any row goes on, at most `most` times in all.

    Rows that do not go on stay in the batch: the body must leave them as they are.
    """
    return _loop.get()(body, carry, most)


@contextmanager
def looping_by(loop: Loop) -> Iterator[None]:
    """Let another function than Python's own loop do it, inside the block."""
    token = _loop.set(loop)
    try:
        yield
    finally:
        _loop.reset(token)
