"""Neural spline flows: couplings or autoregressive maps that bend with splines."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from models.families.about import About, Example
from models.families.chain import assemble
from models.families.circles import (
    check_circles,
    closed,
    half_turn,
    seeing_angles,
    uniform_base,
    with_support,
)
from models.families.config import Index
from models.families.costs import COSTS
from models.families.layers import (
    AutoregressiveLayer,
    CouplingLayer,
    DecodingOption,
    Layer,
    Mask,
    Order,
    PointwiseLayer,
    SplineConfig,
)
from models.families.nets import NetConfig, ResNetConfig
from models.families.options import Bound, Bounds, MinBin, MinSlope, NumBins
from models.families.stack import (
    Masks,
    Orders,
    Passes,
    StackConfig,
    make_masks,
    make_orders,
    stack,
)
from models.flow import Flow
from models.transforms.elementwise import MIN_SCALE

NSF = About(
    what="couplings or autoregressive maps that bend with splines",
    data="tables of two columns or more",
    when="realnvp is too stiff: several modes, sharp edges; its layers cost more",
    cost=COSTS["nsf"],
    example=Example(data="checkerboard", event_shape=(2,), arguments={"num_layers": 6}),
)


class NSFConfig(StackConfig):
    """Monotone rational-quadratic splines on [-bound, bound], the identity outside.

    Data should be standardised (`preprocessing`), so that they fall where the splines bend. `masks`
    and `unconditional` are for couplings, `order`, `passes` and `decoding` for autoregressive maps.

    Reference: Durkan et al. 2019 (arXiv 1906.04032); of circular features Rezende et al. 2020
    (arXiv 2002.02428).
    """

    structure: Literal["coupling", "autoregressive"] = Field(
        "coupling",
        description="Couplings, RQ-NSF (C); or autoregressive maps, RQ-NSF (AR), which bend more "
        "and take D passes to sample.",
    )
    num_bins: NumBins = 8
    bound: Bound = 3.0
    bounds: Bounds = "floor"
    min_bin: MinBin = MIN_SCALE
    min_slope: MinSlope = MIN_SCALE
    divide_by_sqrt_width: bool = Field(
        False,
        description="Divide raw widths and heights of bins by the square root of the "
        "conditioner's last width (nflows' couplings).",
    )
    masks: Masks = "alternating"
    unconditional: bool = Field(
        False, description="The kept half of a coupling goes through splines of its own."
    )
    order: Orders = "alternating"
    passes: Passes = None
    decoding: DecodingOption = "sequential"
    conditioner: NetConfig = Field(
        ResNetConfig(),
        description="The network of a coupling, or, masked, of an autoregressive map.",
    )
    circular: tuple[Index, ...] = Field(
        (),
        description="Features that are angles in radians, in [-pi, pi], from 0: their splines "
        "close, and pi is -pi.",
    )

    @model_validator(mode="after")
    def _decoding_has_a_use(self) -> Self:
        if self.structure == "coupling" and self.decoding != "sequential":
            raise ValueError(
                f"decoding: {self.decoding} is for structure=autoregressive; couplings take one "
                "pass in either direction: leave it out"
            )
        return self


def build_nsf(config: NSFConfig) -> Flow:
    """Build a neural spline flow.

    Raises:
        ValueError: if the preprocessing, a mask, an order or the bins do not fit.
    """
    check_circles(config, config.circular)
    maps: list[list[Layer]]
    if config.structure == "coupling":
        masks = make_masks(config.masks, config.features, config.num_layers)
        maps = [_coupling(config, mask) for mask in masks]
    else:
        orders = make_orders(config.order, config.features, config.num_layers, config.passes)
        maps = [_autoregressive(config, order) for order in orders]
    turned = [[*layers, *half_turn(config.circular)] for layers in maps]
    flow = assemble(config, [*stack(config, turned), *uniform_base(config.circular)])
    return with_support(flow, config.circular, len(config.preprocessing))


def _coupling(config: NSFConfig, mask: Mask) -> list[Layer]:
    kept, moved = (
        tuple(index for index, flag in enumerate(mask) if flag == wanted) for wanted in (1, 0)
    )
    layers: list[Layer] = [
        CouplingLayer(
            mask=mask,
            elementwise=closed(_spline(config, inside_net=True), config.circular, moved),
            conditioner=seeing_angles(config.conditioner, config.circular, kept),
        )
    ]
    if config.unconditional:
        own = closed(_spline(config, inside_net=False), config.circular, kept)
        layers.append(PointwiseLayer(chosen=kept, elementwise=own))
    return layers


def _autoregressive(config: NSFConfig, order: Order) -> list[Layer]:
    features = range(config.features)
    layer = AutoregressiveLayer(
        order=order,
        decoding=config.decoding,
        elementwise=closed(_spline(config, inside_net=True), config.circular, features),
        conditioner=seeing_angles(config.conditioner, config.circular, features),
    )
    return [layer]


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
