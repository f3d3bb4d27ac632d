"""Inverses of monotone scalar functions that have no formula: one solver for all of them.

Every element is solved by itself and stops by itself, at a point that depends on it alone: it has
the same bits in any batch.
"""

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from models.ode.while_loop import Carry, repeat_while_any
from models.transforms.elementwise import Elementwise

# (x (B, ...), given) -> f(x) and df/dx > 0, element by element.
Function = Callable[[Tensor, Carry], tuple[Tensor, Tensor]]

# Two neighbouring numbers in float64 differ by this share at most; nothing lies between them.
_NEIGHBOURS = 2.0**-52
# Roots nearer to zero than this are as good as zero.
_NEAR_ZERO = 1e-30
# Beyond this the function is taken not to reach the target.
_FAR = 1e30
# Ends of a bracket that has none yet.
_OPEN = 1e300
# Newton steps before only halving is trusted: it ends for certain.
_NEWTON_STEPS = 40.0


def solve_increasing(function: Function, target: Tensor, given: Carry = ()) -> Tensor:
    """Find x with f(x) = target for an increasing f, element by element.

    The bracket grows from 0 until it holds the root; then Newton's steps, or the middle of the
    bracket where a step leaves it, until no number lies between its ends. All in float64.

    Args:
        function: f and its slope, from x and what is given of the same rows.
        target: (B, C).
        given: (B, ...) each: parameters of f.

    Returns:
        (B, C), float64; NaN where f does not reach the target within 1e30. Derivatives with respect
        to target and parameters are those of the implicit function.

    Reference: Press et al. 2007, Numerical Recipes, section 9.4 (rtsafe).
    """
    wide = target.double()
    with torch.no_grad():
        root = _solve(function, wide.detach(), tuple(part.detach() for part in given))
    # One more step, which autograd sees: dx/dy = 1 / f'(x), and likewise of the parameters.
    value, slope = function(root, given)
    return root - (value - wide) / slope.detach()


def _solve(function: Function, target: Tensor, given: Carry) -> Tensor:
    start = torch.zeros_like(target)
    high = torch.full_like(target, _OPEN)
    flags = torch.ones_like(target[:, :1], dtype=torch.bool)
    count = torch.zeros_like(target[:, :1])

    def body(carried: Carry, beside: Carry) -> Carry:
        _, steps, x, low, high, stands = carried
        wanted, parameters = beside[0], beside[1:]
        value, slope = function(x, parameters)
        error = value - wanted
        new_low, new_high = torch.where(error <= 0, x, low), torch.where(error >= 0, x, high)
        chosen = _next(x, error / slope, new_low, new_high, steps)
        ends = _ends(error, new_low, new_high, chosen)
        held = stands > 0
        chosen = torch.where(held | (error == 0), x, chosen)
        low, high = torch.where(held, low, new_low), torch.where(held, high, new_high)
        stands = (held | ends).to(wanted.dtype)
        goes_on = (1 - stands).amax(1, keepdim=True) > 0
        return goes_on, steps + 1, chosen, low, high, stands

    first = (flags, count, start, -high, high, torch.zeros_like(target))
    _, _, x, *_ = repeat_while_any(body, first, (target, *given))
    return torch.where(x.abs() < _FAR, x, torch.nan)


def _next(x: Tensor, step: Tensor, low: Tensor, high: Tensor, steps: Tensor) -> Tensor:
    """Where to look next: Newton's point inside the bracket, its middle, or further out."""
    newton = x - step
    is_inside = (newton > low) & (newton < high) & (steps < _NEWTON_STEPS)
    is_open = (low <= -_OPEN) | (high >= _OPEN)
    stride = x.abs().clamp(min=1.0)
    outward = torch.where(high >= _OPEN, x + stride, x - stride)
    middle = torch.where(is_open, outward, 0.5 * (low + high))
    # While the bracket is open a step goes out no further than twice the distance.
    near = is_inside & (~is_open | ((newton - x).abs() <= stride))
    return torch.where(near, newton, middle)


def _ends(error: Tensor, low: Tensor, high: Tensor, chosen: Tensor) -> Tensor:
    width = high - low
    is_narrow = width <= _NEIGHBOURS * torch.maximum(low.abs(), high.abs()) + _NEAR_ZERO
    is_lost = chosen.abs() >= _FAR
    is_number = (error <= 0) | (error > 0)
    return is_narrow | is_lost | (error == 0) | ~is_number


class Monotone(Elementwise):
    """An increasing scalar map that has a formula in one direction."""

    @abstractmethod
    def value_and_slope(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """x (...), params (..., num_params) -> y and dy/dx > 0 (...)."""

    def encode(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = self.value_and_slope(x, params)
        return value, slope.log()

    def decode(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        def function(x: Tensor, given: Carry) -> tuple[Tensor, Tensor]:
            return self.value_and_slope(x, given[0])

        wide = params.double().expand(*y.shape, -1)
        x = solve_increasing(function, y, (wide,))
        _, slope = self.value_and_slope(x, wide)
        return x.to(y.dtype), -slope.log().to(y.dtype)
