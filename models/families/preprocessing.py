"""The `preprocessing` argument that every family takes: the first transforms of its flow.

A list such as `[{"kind": "dequantise"}, {"kind": "shift_scale", "scale": 0.00390625}]`.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from models.families.config import FamilyConfig, PositiveFloat
from models.flow import Facts, Support
from models.transforms.inverse_softplus import InverseSoftplus
from models.transforms.preprocess import (
    PIXEL_BITS,
    Dequantise,
    Logit,
    ReduceBits,
    ShiftScale,
    Standardise,
)
from models.transforms.transform import Transform

FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]


class StandardiseStep(FamilyConfig):
    """(x - mean) / std."""

    kind: Literal["standardise"]
    mean: tuple[FiniteFloat, ...] = Field(
        description="One number a feature or channel, or one for all."
    )
    std: tuple[PositiveFloat, ...] = Field(
        description="One number a feature or channel, or one for all."
    )


class ReduceBitsStep(FamilyConfig):
    """Pixels 0..255 floored to n bits; they stay on the scale 0..255."""

    kind: Literal["reduce_bits"]
    bits: int = Field(ge=1, le=PIXEL_BITS, description="How many of 8 are kept.")


class DequantiseStep(FamilyConfig):
    """Uniform noise over a pixel's bin while training, the bin's midpoint otherwise."""

    kind: Literal["dequantise"]
    levels: int = Field(
        2**PIXEL_BITS,
        ge=2,
        le=2**PIXEL_BITS,
        description="Pixels are the integers 0 .. levels - 1.",
    )


class DequantiseColumnsStep(FamilyConfig):
    """Uniform noise of one unit on columns of whole numbers while training, else their midpoint."""

    kind: Literal["dequantise_columns"]
    columns: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        min_length=1,
        description="Indices of the features or channels that are whole numbers, ascending.",
    )


class ShiftScaleStep(FamilyConfig):
    """x scale + shift."""

    kind: Literal["shift_scale"]
    shift: FiniteFloat = Field(0.0, description="Added last.")
    scale: FiniteFloat = Field(1.0, description="Multiplies x; not zero.")


class LogitStep(FamilyConfig):
    """logit(alpha + (1 - 2 alpha) x), for x in [0, 1]."""

    kind: Literal["logit"]
    alpha: float = Field(
        0.05, ge=0, lt=0.5, description="Keeps x away from the ends, where the logit is infinite."
    )


class InverseSoftplusStep(FamilyConfig):
    """log(exp(k x) - 1) / k on features or channels that are positive."""

    kind: Literal["inverse_softplus"]
    columns: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        min_length=1,
        description="Indices of the features or channels that are positive, ascending.",
    )
    sharpness: tuple[PositiveFloat, ...] = Field(
        (1.0,), description="k, one for all of these or one each."
    )


Step = Annotated[
    StandardiseStep
    | ReduceBitsStep
    | DequantiseStep
    | DequantiseColumnsStep
    | ShiftScaleStep
    | LogitStep
    | InverseSoftplusStep,
    Field(discriminator="kind"),
]
Preprocessing = Annotated[
    tuple[Step, ...],
    Field(
        description="The first transforms, on x as users have it. Training standardises tables "
        "and scales pixels where it is left out."
    ),
]

# Pixels on the scale [-1/2, 1/2) (Kingma & Dhariwal 2018), or through the logit (Dinh et al. 2017,
# section 4.1).
PixelScale = Literal["centred", "logit", "unit"]
PIXEL_ALPHA = 0.05


def pixel_steps(num_levels: int, scale: PixelScale) -> list[dict[str, Any]]:
    """The `preprocessing` argument for pixels 0 .. num_levels - 1, noise and scale."""
    unit = {"kind": "shift_scale", "scale": 1 / num_levels}
    scales: dict[PixelScale, list[dict[str, Any]]] = {
        "centred": [{**unit, "shift": -0.5}],
        "unit": [unit],
        "logit": [unit, {"kind": "logit", "alpha": PIXEL_ALPHA}],
    }
    return [{"kind": "dequantise", "levels": num_levels}, *scales[scale]]


def build_preprocessing(
    steps: Preprocessing, event_shape: Sequence[int]
) -> tuple[list[Transform], Facts]:
    """Build the transforms of a `preprocessing` argument.

    Returns:
        The transforms, and what they say about the data: pixels where they are dequantised
        (`num_levels`), columns of whole numbers (`discrete`), and where the density can be other
        than zero (`support`).

    Raises:
        ValueError: if the steps come in an order that has no meaning, or a size does not fit.
    """
    transforms: list[Transform] = []
    num_levels: int | None = None
    discrete: tuple[int, ...] = ()
    support: Support | None = None
    notes: dict[str, Any] = {}
    for index, step in enumerate(steps):
        transform = _build_step(step, steps[:index], event_shape)
        if isinstance(step, ReduceBitsStep):
            notes["pixel_bits"] = step.bits
        elif isinstance(step, DequantiseStep):
            num_levels = step.levels
            notes["dequantisation"] = f"midpoints of bins of width {transform.width:g}"
        elif isinstance(step, DequantiseColumnsStep):
            discrete = step.columns
        elif isinstance(transform, Logit):
            support = pull_back((transform.low, transform.high), transforms, event_shape)
        transforms.append(transform)
    return transforms, Facts(num_levels=num_levels, discrete=discrete, support=support, notes=notes)


def _build_step(step: Step, before: Preprocessing, event_shape: Sequence[int]) -> Transform:
    match step:
        case StandardiseStep(mean=mean, std=std):
            if len(mean) not in (1, event_shape[0]):
                raise ValueError(
                    f"standardise: expected 1 or {event_shape[0]} means, got {len(mean)}"
                )
            return Standardise(mean, std)
        case ReduceBitsStep(bits=bits):
            if before:
                raise ValueError("reduce_bits: it acts on pixels, put it first")
            return ReduceBits(bits)
        case DequantiseStep():
            reduced = [other.bits for other in before if isinstance(other, ReduceBitsStep)]
            if len(before) > len(reduced):
                raise ValueError("dequantise: put it first, or directly after reduce_bits")
            if reduced and step.levels != 2**PIXEL_BITS:
                raise ValueError(
                    f"dequantise: expected levels = {2**PIXEL_BITS} behind reduce_bits, got "
                    f"{step.levels}"
                )
            return Dequantise(2.0 ** (PIXEL_BITS - reduced[0]) if reduced else 1.0)
        case DequantiseColumnsStep(columns=columns):
            return _dequantise_columns(columns, before, event_shape)
        case ShiftScaleStep(shift=shift, scale=scale):
            return ShiftScale(shift, scale)
        case LogitStep(alpha=alpha):
            if any(isinstance(other, LogitStep) for other in before):
                raise ValueError("logit: expected it once, got it twice")
            return Logit(alpha)
        case InverseSoftplusStep(columns=columns, sharpness=sharpness):
            return InverseSoftplus(event_shape[0], columns, sharpness)


def _dequantise_columns(
    columns: Sequence[int], before: Preprocessing, event_shape: Sequence[int]
) -> Transform:
    if before:
        raise ValueError("dequantise_columns: it acts on x as users have it, put it first")
    features = event_shape[0]
    if list(columns) != sorted(set(columns)) or columns[-1] >= features:
        raise ValueError(
            f"dequantise_columns: expected ascending indices below {features}, got {list(columns)}"
        )
    return Dequantise([float(index in columns) for index in range(features)])


def pull_back(
    interval: tuple[float, float], before: Sequence[Transform], event_shape: Sequence[int]
) -> Support:
    """Find the data that reach an interval; all maps before it are monotone."""
    ends = torch.tensor(interval, dtype=torch.float64)
    values = ends.view(2, *[1] * len(event_shape)).expand(2, *event_shape)
    for transform in reversed(before):
        values, _ = transform.decode(values)
    return Support(float(values.min()), float(values.max()))
