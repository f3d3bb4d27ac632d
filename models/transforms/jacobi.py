"""Autoregressive maps inverted by fixed-point (Jacobi) iteration, with an exact stop.

All features are computed at once from a guess of them all, x <- f^-1(y; net(x)), until nothing
changes. After k passes the features of the first k orders are final, whatever the guess: so it ends
after as many passes as there are orders at the latest, and its bits are those of decoding feature
by feature. Each row stops by itself.

Reference: Song et al. 2021, Accelerating Feedforward Computation via Parallel Nonlinear Equation
Solving, algorithm 1 (arXiv 2002.03629).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from models.ode.call import SolveCall, SolveReport
from models.ode.while_loop import Carry, repeat, repeat_in_place_while_any

# How the direction that takes many passes is computed; see `MaskedAutoregressive`.
Decoding = Literal["sequential", "passes", "jacobi"]

# (x, y, context) -> f^-1(y; net(x, context)), and its log-slopes (B, D), None where they are 0.
Pass = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor | None]]

# Guesses further out count as none: inside a network they could overflow.
_FAR = 1e6


class Solved(NamedTuple):
    """x (B, D), its log-slopes (B, D) or None, and the passes of each row (B,)."""

    x: Tensor
    log_slopes: Tensor | None
    passes: Tensor


@dataclass(frozen=True, slots=True)
class Inversion:
    """The inverse of an autoregressive map, by whole passes of its network.

    Args:
        step: one pass: a feature of it depends on those of smaller order alone.
        order: (D,), of each feature, 0 .. P - 1.
        guesses: whether later features are guessed and a row ends where nothing changes; else
            they are 0, and every row takes P passes.
        is_inside: whether it is solved inside another loop.
    """

    step: Pass
    order: Tensor
    guesses: bool
    is_inside: bool = False

    def solve(self, y: Tensor, context: Tensor | None, orders: int) -> Solved:
        """Invert for y (B, D), with P = `orders`."""
        x, log_slopes = self.step(torch.zeros_like(y), y, context)
        ones = torch.ones_like(y[:, :1])
        if orders == 1:
            return Solved(x, log_slopes, ones[:, 0])
        plain = torch.zeros_like(ones) if self.guesses else ones
        slopes = () if log_slopes is None else (log_slopes,)
        first = (torch.ones_like(ones, dtype=torch.bool), ones, x, ones, plain, *slopes)

        def body(carry: Carry, given: Carry) -> Carry:
            return self._pass(carry, given, orders)

        given = (y,) if context is None else (y, context)
        if self.is_inside:
            # One pass more than orders: of all that may overflow the first is taken again.
            turns = orders + 1
            carry = repeat(lambda _, *of: body(*of), first, given, turns, ends_early=True)
        else:
            carry = repeat_in_place_while_any(body, first, given)
        _, passes, x, _, _, *found = carry
        return Solved(x, found[0] if found else None, passes[:, 0])

    def _pass(self, carry: Carry, given: Carry, orders: int) -> Carry:
        """One pass over the rows that go on; the others are left as they are.

        `final` counts the orders that are final. A pass in which one of these, or the next, is no
        finite number is taken again without guesses (`plain`), and so are all that follow: a weight
        of 0 keeps out what is finite alone.
        """
        active, passes, x, final, plain, *slopes = carry
        y, *context = given
        order = self.order.to(y.dtype)
        is_plain = plain > 0
        is_guessed = (x.abs() <= _FAR) & ~is_plain
        is_final = order < final
        guess = torch.where(is_final | is_guessed, x, 0.0)
        found, new_slopes = self.step(guess, y, next(iter(context), None))
        is_spoilt = _any((order <= final) & ~(found.abs() < torch.inf)) & ~is_plain
        goes_on = final + 1 < orders
        if self.guesses:
            goes_on = goes_on & _any(~(found == guess))
        taken = active & ~is_spoilt
        moves = taken & ~is_final
        new = () if new_slopes is None else (torch.where(moves, new_slopes, slopes[0]),)
        return (
            active & (goes_on | is_spoilt),
            torch.where(active, passes + 1, passes),
            torch.where(moves, found, x),
            torch.where(taken, final + 1, final),
            torch.where(active & is_spoilt, 1.0, plain),
            *new,
        )


def _any(flags: Tensor) -> Tensor:
    """Whether any feature of a row is flagged: (B, D) -> (B, 1)."""
    return flags.to(torch.float32).amax(1, keepdim=True) > 0


def report_passes(call: SolveCall | None, passes: Tensor) -> None:
    """Say how many passes of a network each row took, (B,); it is always solved."""
    if call is not None:
        zero = torch.zeros_like(passes)
        call.reports.append(SolveReport(zero.long(), passes.long(), zero))


def with_implicit_gradient(step: Pass, x: Tensor, y: Tensor, context: Tensor | None) -> Tensor:
    """The fixed point x of a pass, with the derivatives of the implicit function x(y, parameters).

    One pass is kept for them, not one a feature. Backwards, (I - J^T) u = g is solved by the same
    iteration, u <- g + J^T u: J is triangular, so it ends. They can be taken once: second
    derivatives would be wrong.
    """
    guess = x.detach().requires_grad_()
    found, _ = step(guess, y, context)
    root = found.clone()

    def solve(gradient: Tensor) -> Tensor:
        total = gradient
        for _ in range(guess.shape[1]):
            (carried,) = torch.autograd.grad(found, guess, total, retain_graph=True)
            last, total = total, gradient + carried
            if torch.equal(last, total):
                break
        return total

    root.register_hook(solve)
    return root
