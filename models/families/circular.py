"""Layers over circles: splines whose ends meet, and turns."""

import math
from typing import Annotated, Literal

from pydantic import Field

from models.families.config import FamilyConfig, Index, PositiveFloat
from models.families.options import Bounds, CircleBounds, MinBin, MinSlope, NumBins
from models.transforms.circular import CircularShift, CircularSpline, SplineEnds
from models.transforms.elementwise import MIN_SCALE


class CircularSplineConfig(FamilyConfig):
    """Monotone rational-quadratic splines, of some features on circles."""

    kind: Literal["circular_spline"] = "circular_spline"
    num_bins: NumBins = 8
    bound: CircleBounds = (math.pi,)
    bounds: Bounds = "floor"
    circular: tuple[Index, ...] | None = Field(
        None,
        description="Which of the moving features are circular, from 0; left out, all. The others "
        "have the identity outside.",
    )
    ends: SplineEnds = Field(
        "tied",
        description="Slopes where a circle closes. tied: one for both sides; unit: 1 (zuko).",
    )
    half_turn: bool = Field(
        False,
        description="Circular features are turned by half a circle first, from anywhere on the "
        "line (zuko).",
    )
    min_bin: MinBin = MIN_SCALE
    min_slope: MinSlope = MIN_SCALE
    divisor: PositiveFloat = Field(1.0, description="Of raw widths and heights of bins.")


class CircularShiftLayer(FamilyConfig):
    """Circles are turned by a constant: y = x - shift, in [-bound, bound)."""

    kind: Literal["circular_shift"] = "circular_shift"
    chosen: tuple[Index, ...] = Field(description="Which features, from 0.")
    bound: CircleBounds = (math.pi,)
    shift: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = Field(
        (math.pi,),
        min_length=1,
        description="What is taken off, one number for all or one each.",
    )
    wraps: bool = Field(
        True,
        description="x may lie anywhere on the line; if not, the density outside the bound is 0.",
    )


def build_circular_spline(config: CircularSplineConfig, features: int) -> CircularSpline:
    """Build splines for that many features.

    Raises:
        ValueError: if the bounds or the circular features do not fit.
    """
    return CircularSpline(
        features,
        config.num_bins,
        config.bound,
        config.bounds,
        circular=config.circular,
        ends=config.ends,
        half_turn=config.half_turn,
        min_bin=config.min_bin,
        min_slope=config.min_slope,
        divisor=config.divisor,
    )


def build_circular_shift(layer: CircularShiftLayer, features: int) -> CircularShift:
    """Build a turn of some of D features.

    Raises:
        ValueError: if the features or the numbers do not fit.
    """
    return CircularShift(features, layer.chosen, layer.bound, layer.shift, wraps=layer.wraps)
