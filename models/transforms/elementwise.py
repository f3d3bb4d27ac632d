"""Scalar maps applied element by element, with parameters that a conditioner computes.

Couplings and autoregressive maps differ in *what* their parameters may depend on; what is done to
each element is here. Parameters come with a trailing axis: x (...) and params (..., num_params).
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.row_sum import event_sum
from models.transforms.softplus import softplus

ScaleFunction = Literal[
    "exp",
    "sigmoid",
    "bounded_sigmoid",
    "floored_sigmoid",
    "floored_softplus",
    "soft_clamp",
    "tanh",
    "atan",
]
AffineForm = Literal["scale_then_shift", "shift_then_scale", "unshift_then_unscale"]

# Below this scale an element would be crushed: nflows' floor, and zuko's bound on |log scale|.
MIN_SCALE = 1e-3
# Glow's offset: scales start near sigmoid(2) = 0.88, so that deep stacks begin near the identity.
SIGMOID_OFFSET = 2.0


class Elementwise(nn.Module, ABC):
    """A monotone scalar map y = f(x; params), applied to every element."""

    num_params: int

    @abstractmethod
    def encode(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """x (...), params (..., num_params) -> y (...), log|dy/dx| (...)."""

    @abstractmethod
    def decode(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """y (...), params (..., num_params) -> x (...), log|dx/dy| (...)."""

    def first_params(self) -> list[float]:
        """The parameters of an element before training."""
        return [0.0] * self.num_params

    def only(self, features: Sequence[int]) -> Self:
        """The map of some of the features alone, where features have weights of their own."""
        return self


class Additive(Elementwise):
    """y = x + t.

    Reference: Dinh et al. 2014, NICE, eq. 9 (arXiv 1410.8516).
    """

    num_params = 1

    def encode(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return x + params[..., 0], torch.zeros_like(x)

    def decode(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return y - params[..., 0], torch.zeros_like(y)


def _soft_clamp(raw: Tensor) -> Tensor:
    return raw / (1 + (raw / math.log(MIN_SCALE)).abs())


LOG_SCALES: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": lambda raw: raw,
    "sigmoid": lambda raw: F.logsigmoid(raw + SIGMOID_OFFSET),
    "bounded_sigmoid": F.logsigmoid,
    "floored_sigmoid": lambda raw: torch.log(torch.sigmoid(raw + SIGMOID_OFFSET) + MIN_SCALE),
    "floored_softplus": lambda raw: torch.log(softplus(raw) + MIN_SCALE),
    "soft_clamp": _soft_clamp,
    "tanh": torch.tanh,
    "atan": torch.atan,
}
# Functions with a bound, which a learned weight multiplies.
_WEIGHTED = ("tanh", "atan")


def centre(log_scale: Tensor) -> Tensor:
    """Take the mean over an event away: what is scaled so keeps its volume.   (B, ...) -> same.

    Reference: Sorrenson et al. 2020, GIN, section 4.1 (arXiv 2001.04872).
    """
    return log_scale - event_sum(log_scale, keepdim=True) / math.prod(log_scale.shape[1:])


class Affine(Elementwise):
    """y = x s + t and its variants, with log s = g(a) for the conditioner's raw output a.

    The parameters are (t, a), in this order. `scale` names g:

    - exp: a (RealNVP without its bound, MAF)
    - tanh: w tanh(a), with a learned w per element (RealNVP)
    - atan: w atan(a), the same with longer tails (FrEIA)
    - sigmoid: log sigmoid(a + 2) (Glow)
    - bounded_sigmoid: log(k sigmoid(a)), with k the `scale_factor` (Jet)
    - floored_sigmoid: log(sigmoid(a + 2) + 1e-3) (nflows' couplings)
    - floored_softplus: log(softplus(a) + 1e-3) (nflows' autoregressive maps)
    - soft_clamp: a / (1 + |a / log 1e-3|), so |log s| < 6.9 (zuko)

    `form` says how shift and scale meet in the direction data to latents:

    - scale_then_shift: y = x s + t (RealNVP eq. 7)
    - shift_then_scale: y = (x + t) s (Glow's code)
    - unshift_then_unscale: y = (x - t) / s (MAF eq. 4: the map is written from latents to data)

    Args:
        weight_shape: for tanh and atan the shape of the learned w, broadcast against x.
        scale_factor: for bounded_sigmoid, k.
        centred: take the mean of log s over the event away, see `centre`. All elements then see all
            parameters: for couplings, not for autoregressive maps.

    Reference: Dinh et al. 2017, RealNVP (arXiv 1605.08803); Kingma & Dhariwal 2018, Glow, table 1
    (arXiv 1807.03039); Papamakarios et al. 2017, MAF (arXiv 1705.07057).
    """

    num_params = 2

    def __init__(
        self,
        scale: ScaleFunction = "exp",
        form: AffineForm = "scale_then_shift",
        *,
        weight_shape: tuple[int, ...] = (),
        scale_factor: float = 2.0,
        centred: bool = False,
    ) -> None:
        super().__init__()
        if scale not in LOG_SCALES:
            raise ValueError(f"scale: expected one of {', '.join(LOG_SCALES)}, got {scale!r}")
        if form not in get_args(AffineForm):
            raise ValueError(f"form: expected one of {get_args(AffineForm)}, got {form!r}")
        self.scale = scale
        self.form = form
        self.centred = centred
        self.log_factor = math.log(scale_factor) if scale == "bounded_sigmoid" else 0.0
        has_weight = scale in _WEIGHTED
        self.scale_weight = nn.Parameter(torch.ones(weight_shape)) if has_weight else None

    def encode(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = self._shift_and_log_scale(params)
        if self.form == "scale_then_shift":
            return x * log_scale.exp() + shift, log_scale
        if self.form == "shift_then_scale":
            return (x + shift) * log_scale.exp(), log_scale
        return (x - shift) * (-log_scale).exp(), -log_scale

    def decode(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = self._shift_and_log_scale(params)
        if self.form == "scale_then_shift":
            return (y - shift) * (-log_scale).exp(), -log_scale
        if self.form == "shift_then_scale":
            return y * (-log_scale).exp() - shift, -log_scale
        return y * log_scale.exp() + shift, log_scale

    def only(self, features: Sequence[int]) -> Self:
        if self.scale_weight is None:
            return self
        part = copy.deepcopy(self)
        kept = self.scale_weight.detach()[list(features)]
        part.scale_weight = nn.Parameter(kept, requires_grad=self.scale_weight.requires_grad)
        return part

    def _shift_and_log_scale(self, params: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = params.unbind(-1)
        log_scale: Tensor = LOG_SCALES[self.scale](raw)
        if self.scale_weight is not None:
            log_scale = log_scale * self.scale_weight
        if self.log_factor:
            log_scale = log_scale + self.log_factor
        return shift, centre(log_scale) if self.centred else log_scale


def unpack_params(raw: Tensor, num_params: int) -> Tensor:
    """Give a conditioner's output its trailing parameter axis.

    Axis 1 of `raw` holds num_params blocks of C, so for an affine map the first half is t and the
    second a.   raw (B, num_params * C, ...) -> params (B, C, ..., num_params).
    """
    channels = raw.shape[1] // num_params
    params: Tensor = raw.unflatten(1, (num_params, channels)).movedim(1, -1)
    return params
