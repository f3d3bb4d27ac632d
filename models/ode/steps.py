"""Runge-Kutta steps: the method's table, which steps are kept and how long the next ones are."""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

# Dormand & Prince 1980, RK5(4)7M: nodes, stages, and the difference of the two results. The last
# stage is at the new point with the weights of the fifth-order result, so it starts the next step.
NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
STEP_ERROR = (
    35 / 384 - 5179 / 57600,
    0.0,
    500 / 1113 - 7571 / 16695,
    125 / 192 - 393 / 640,
    -2187 / 6784 + 92097 / 339200,
    11 / 84 - 187 / 2100,
    -1 / 40,
)
_ORDER = 5
EVALUATIONS_PER_STEP = len(NODES)

FIRST_STEP = 2.0**-3
_SAFETY = 0.9
# A step is multiplied by 2^n, n in this range.
_MOST_SHRINKING, _MOST_GROWTH = -4, 2
# Below this step, positions would no longer be exact in the dtype of the state.
_SMALLEST_STEP = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}
# Tolerances below a few units of rounding would make steps out of noise.
_ROUNDING_UNITS = 4


def step_factors() -> list[float]:
    """What a step may be multiplied by, the largest first."""
    return [2.0**n for n in range(_MOST_GROWTH, _MOST_SHRINKING - 1, -1)]


def error_limits() -> list[float]:
    """The largest error after which a step is multiplied by each factor but the last.

    It is multiplied by the largest factor that leaves the error of the next, which goes with its
    fifth power, below 1 with some to spare.
    """
    factors = step_factors()[:-1]
    return [(_SAFETY / factor) ** _ORDER if factor != 1 else 1.0 for factor in factors]


class StepLimits(NamedTuple):
    """What bounds steps in a dtype.

    rtol, atol: the tolerances, no smaller than rounding. smallest: below this step, positions would
    no longer be exact. largest: finite number.
    """

    rtol: float
    atol: float
    smallest: float
    largest: float


class StepRule:
    """Which steps are kept, and how long the next ones are.

    Args:
        rtol, atol: the tolerances, see `SolverSettings`.
        like: a tensor with the dtype and device of the state, float32 or float64.

    Attributes:
        nodes: of the method, where the state is.

    Raises:
        ValueError: if the state has another dtype.
    """

    def __init__(self, rtol: float, atol: float, *, like: Tensor) -> None:
        self.nodes = like.new_tensor(NODES)
        limits = self.limits(rtol, atol, like.dtype)
        self._rtol, self._atol, self._smallest_step, self._largest = limits
        factors = step_factors()
        boundaries = error_limits()
        drops = [[after - before] for before, after in pairwise(factors)]
        self._limits, self._drops = like.new_tensor(boundaries), like.new_tensor(drops)
        self._growth = factors[0]
        growths = factors[: factors.index(1.0)][::-1]
        self._shares = 1 / like.new_tensor(growths)
        self._rises = like.new_tensor([[growth / 2] for growth in growths])

    @staticmethod
    def limits(rtol: float, atol: float, dtype: torch.dtype) -> StepLimits:
        """What bounds the steps of states of a dtype.

        Raises:
            ValueError: if it is not float32 or float64.
        """
        if dtype not in _SMALLEST_STEP:
            raise ValueError(f"state: expected float32 or float64, got {dtype}")
        facts = torch.finfo(dtype)
        least = _ROUNDING_UNITS * facts.eps
        return StepLimits(max(rtol, least), max(atol, least), _SMALLEST_STEP[dtype], facts.max)

    def error(self, difference: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """The error of a step relative to the tolerance, in the max norm of the row.

        Shape: all (B, M) -> (B, 1); infinite where anything is not finite. Kept where <= 1.
        """
        size = torch.maximum(before.abs(), after.abs())
        error = difference.abs() / (self._atol + self._rtol * size)
        return torch.where(error <= self._largest, error, torch.inf).amax(1, keepdim=True)

    def next_step(self, position: Tensor, step: Tensor, error: Tensor) -> Tensor:
        """The step times a power of two; a larger one only at a multiple of itself.

        Sums of powers of two, all exact: only exact steps reach the end.

        Shape: all (B, 1); position is the new one, error that of the step just tried.
        """
        factor = self._growth + (error > self._limits).to(error.dtype) @ self._drops
        multiples = position / step * self._shares
        aligned = (multiples == multiples.floor()).to(error.dtype)
        return step * torch.minimum(factor, 1 + aligned @ self._rises)

    def is_too_small(self, step: Tensor) -> Tensor:
        """Whether positions would no longer be exact."""
        return step < self._smallest_step


class StepRules:
    """The step rules of one solver, one for each dtype and device, made once.

    Their numbers are uploaded when they are made, and that cannot be part of a captured graph.
    """

    def __init__(self, rtol: float, atol: float) -> None:
        self._tolerances = (rtol, atol)
        self._made: dict[tuple[torch.dtype, torch.device], StepRule] = {}

    def of(self, like: Tensor) -> StepRule:
        """The rule for states with the dtype and device of `like`."""
        key = (like.dtype, like.device)
        if key not in self._made:
            # Outside inference mode, so that every later call may use it.
            with torch.inference_mode(mode=False):
                self._made[key] = StepRule(*self._tolerances, like=like.new_zeros(0))
        return self._made[key]


def all_finite(values: Tensor) -> Tensor:
    """Whether a row has finite values only.   (B, M) -> (B, 1)."""
    is_finite = values.abs() <= torch.finfo(values.dtype).max
    return (~is_finite).to(values.dtype).amax(1, keepdim=True) == 0
