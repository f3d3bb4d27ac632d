"""Weights of a Glow, step by step, laid out as our family `glow` names them.

Sources differ in names and conventions, not in structure. Each describes itself with the classes
here; `lay_out` puts the parts where the transforms of `models.families.glow` expect them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.importers.report import ImportRefused
from models.importers.source import Fragment, numbered, prefixed
from models.importers.weights import Weights

# Beyond this, float32 decodes with errors that can be seen.
_ILL_CONDITIONED = 1e5


@dataclass(frozen=True, slots=True)
class Step:
    """One step of flow: actnorm, permutation, coupling (`conditioner.*`, `elementwise.*`)."""

    actnorm: Fragment
    permutation: Fragment
    coupling: Fragment


@dataclass(frozen=True, slots=True)
class Level:
    """The steps of one level, and the prior of what leaves the flow there.

    `prior` is the state of a `ScaledConv2d` where it looks at the kept half (`is_conv`), else of a
    `GaussianPrior`; empty for N(0, I).
    """

    steps: list[Step]
    prior: Fragment = field(default_factory=dict)
    is_conv: bool = False


def lay_out(levels: list[Level]) -> list[Fragment]:
    """State of every transform of a Glow behind its preprocessing, finest level first."""
    level, *deeper = levels
    layers: list[Fragment] = [{}]  # squeeze
    for step in level.steps:
        layers += [step.actnorm, step.permutation, step.coupling]
    if not deeper:
        return [*layers, level.prior]
    factor_out = prefixed("rest.transforms.", numbered(lay_out(deeper)))
    if level.is_conv:
        layers.append(prefixed("conditioner.", level.prior))
    else:
        factor_out |= prefixed("prior.", level.prior)
    return [*layers, factor_out]


def even_then_odd(rows: Tensor) -> Tensor:
    """(r0, r1, r2, r3, ...) -> (r0, r2, ..., r1, r3, ...): a cross split as two halves."""
    return torch.cat((rows[0::2], rows[1::2]))


def odd_then_even(rows: Tensor) -> Tensor:
    """(r0, r1, r2, r3, ...) -> (r1, r3, ..., r0, r2, ...)."""
    return torch.cat((rows[1::2], rows[0::2]))


def swap_halves(rows: Tensor) -> Tensor:
    """(a, b) -> (b, a)."""
    return torch.cat(rows.chunk(2)[::-1])


def as_it_is(rows: Tensor) -> Tensor:
    """Rows already in our order, shift before scale."""
    return rows


Rows = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class LUKeys:
    """How a source names the parts of W = P L (U + diag(sign exp(log_s)))."""

    permutation: str
    lower: str
    upper: str
    log_diagonal: str
    sign: str


def lu_conv(weights: Weights, keys: LUKeys, channels: int) -> Fragment:
    """A 1x1 convolution in LU form, as the state of an `LULinear`."""
    square = (channels, channels)
    matrix = weights.take(keys.permutation, *square)
    indices = matrix.argmax(1)
    eye = torch.eye(channels, dtype=torch.float64)
    if not torch.equal(eye[indices], matrix) or len(indices.unique()) < channels:
        weights.problem(
            keys.permutation,
            "expected a permutation matrix; without the one the factors were made with, the "
            "convolution cannot be recovered",
        )
        indices = torch.arange(channels)
    sign = weights.take(keys.sign, channels)
    if not torch.equal(sign.abs(), torch.ones_like(sign)):
        weights.problem(keys.sign, "expected signs, +1 and -1 (0: the convolution is singular)")
    return {
        "permutation.indices": indices,
        "lower": weights.take(keys.lower, *square).tril(-1),
        "upper": weights.take(keys.upper, *square).triu(1),
        "raw_diagonal": weights.take(keys.log_diagonal, channels),
        "sign": sign,
    }


def plain_conv(weights: Weights, key: str, *shape: int) -> Fragment:
    """A 1x1 convolution as it stands, as the state of a `PlainLinear`; must not be singular."""
    matrix = weights.take(key, *shape).reshape(shape[0], shape[0])
    if key in weights:
        check_invertible(weights, key, matrix)
    return {"weight": matrix}


def check_invertible(weights: Weights, key: str, matrix: Tensor) -> None:
    """Note a matrix that has no inverse as a problem, one that barely has one as a warning."""
    values = torch.linalg.svdvals(matrix)
    largest, smallest = float(values[0]), float(values[-1])
    if smallest <= largest * torch.finfo(torch.float32).eps / 16:
        weights.problem(
            key, f"singular (singular values {smallest:.2g} .. {largest:.2g}): it has no inverse"
        )
    elif largest > smallest * _ILL_CONDITIONED:
        weights.report.warning(
            key, f"condition number {largest / smallest:.2g}: decoding in float32 will be coarse"
        )


def multiplied_out(lu: Fragment) -> Fragment:
    """The plain form of a convolution in LU form, multiplied in float64."""
    eye = torch.eye(len(lu["sign"]), dtype=torch.float64)
    upper = lu["upper"] + (lu["sign"] * lu["raw_diagonal"].exp()).diag()
    return {"weight": ((lu["lower"] + eye) @ upper)[lu["permutation.indices"]]}


def check_flag(weights: Weights, key: str, *shape: int) -> None:
    """Take the flag of an actnorm; one that was never set from data is a problem.

    A flag that is missing is taken as set: the weights beside it say what the layer does.
    """
    if key not in weights:
        weights.report.mended(key, "missing; this actnorm is taken as initialised")
    elif not weights.take_integers(key, *shape).any():
        weights.problem(
            key,
            "this actnorm was never initialised: the source would set it from the first batch it "
            "sees, so the checkpoint does not fix a density; run one batch through and save again",
        )


def same_everywhere(name: str, values: list[int]) -> int:
    """A number that all levels must share.

    Raises:
        ImportRefused: if they do not.
    """
    if len(set(values)) != 1:
        raise ImportRefused(
            f"{name}: expected the same at every level, got {values}; the family glow has one for "
            "all"
        )
    return values[0]
