"""Neural spline flows: couplings or autoregressive maps that bend with splines."""

import math
from typing import Literal

from models.families.chain import assemble
from models.families.config import PositiveFloat, PositiveInt
from models.families.layers import (
    AutoregressiveLayer,
    CouplingLayer,
    Layer,
    Mask,
    PointwiseLayer,
    SplineConfig,
)
from models.families.nets import NetConfig, ResNetConfig
from models.families.stack import Masks, Orders, StackConfig, make_masks, make_orders, stack
from models.flow import Flow
from models.transforms.elementwise import MIN_SCALE
from models.transforms.spline import SplineBounds


class NSFConfig(StackConfig):
    """Monotone rational-quadratic splines on [-bound, bound], the identity outside.

    Data should be standardised (`preprocessing`), so that they fall where the splines bend.

    Attributes:
        structure: couplings (RQ-NSF (C)) or autoregressive maps (RQ-NSF (AR)).
        num_bins, bound, bounds, min_bin, min_slope: of the splines, see `RationalQuadratic`.
        divide_by_sqrt_width: raw widths and heights are divided by the square root of the
            conditioner's last width (nflows' couplings).
        masks: of couplings, see `make_masks`.
        unconditional: the kept half of a coupling goes through splines of its own.
        order, passes: of autoregressive maps, see `make_orders`.
        conditioner: the network of a coupling, or masked, of an autoregressive map.

    Reference: Durkan et al. 2019 (arXiv 1906.04032).
    """

    structure: Literal["coupling", "autoregressive"] = "coupling"
    num_bins: PositiveInt = 8
    bound: PositiveFloat = 3.0
    bounds: SplineBounds = "floor"
    min_bin: PositiveFloat = MIN_SCALE
    min_slope: PositiveFloat = MIN_SCALE
    divide_by_sqrt_width: bool = False
    masks: Masks = "alternating"
    unconditional: bool = False
    order: Orders = "alternating"
    passes: PositiveInt | None = None
    conditioner: NetConfig = ResNetConfig()


def build_nsf(config: NSFConfig) -> Flow:
    """Build a neural spline flow.

    Raises:
        ValueError: if the preprocessing, a mask, an order or the bins do not fit.
    """
    maps: list[list[Layer]]
    if config.structure == "coupling":
        masks = make_masks(config.masks, config.features, config.num_layers)
        maps = [_coupling(config, mask) for mask in masks]
    else:
        orders = make_orders(config.order, config.features, config.num_layers, config.passes)
        maps = [
            [
                AutoregressiveLayer(
                    order=order,
                    elementwise=_spline(config, inside_net=True),
                    conditioner=config.conditioner,
                )
            ]
            for order in orders
        ]
    return assemble(config, stack(config, maps))


def _coupling(config: NSFConfig, mask: Mask) -> list[Layer]:
    layers: list[Layer] = [
        CouplingLayer(
            mask=mask,
            elementwise=_spline(config, inside_net=True),
            conditioner=config.conditioner,
        )
    ]
    if config.unconditional:
        kept = tuple(index for index, flag in enumerate(mask) if flag)
        layers.append(PointwiseLayer(chosen=kept, elementwise=_spline(config, inside_net=False)))
    return layers


def _spline(config: NSFConfig, *, inside_net: bool) -> SplineConfig:
    divides = inside_net and config.divide_by_sqrt_width
    return SplineConfig(
        num_bins=config.num_bins,
        bound=config.bound,
        bounds=config.bounds,
        min_bin=config.min_bin,
        min_slope=config.min_slope,
        divisor=math.sqrt(config.conditioner.widths[-1]) if divides else 1.0,
    )
