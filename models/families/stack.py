"""What families that stack couplings or autoregressive maps over vectors have in common."""

import math
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Annotated, Literal

from pydantic import Field

from models.families.chain import VectorConfig
from models.families.config import PositiveInt, Repeats
from models.families.layers import (
    ActNormLayer,
    BatchNormLayer,
    GaussianLayer,
    Layer,
    LinearLayer,
    Mask,
    Order,
    PermuteLayer,
)
from models.transforms.coupling import alternating_mask, half_mask

Masks = Annotated[
    Literal["alternating", "half"] | Annotated[tuple[Mask, ...], Field(min_length=1)],
    Field(
        description="Which features a coupling keeps. alternating: every other one, and its "
        "complement, by turns; half: the first half, then the second; or a list of masks, one "
        "number a feature (1: kept), that take turns."
    ),
]
Orders = Annotated[
    Literal["ascending", "alternating"] | Annotated[tuple[Order, ...], Field(min_length=1)],
    Field(
        description="The order in which features see each other. ascending: 0, 1, ..., D - 1; "
        "alternating: that and its reverse by turns; or a list of orders that take turns."
    ),
]
Passes = Annotated[
    PositiveInt | None,
    Field(
        description="Places in the order, fewer than features: the slow direction then takes so "
        "many passes of the network instead of D."
    ),
]


class StackConfig(VectorConfig):
    """`num_layers` times: mixing, then the family's own map, then a normalisation."""

    num_layers: Repeats = Field(
        5, description="How many maps, each with its mixing and normalisation."
    )
    actnorm: ActNormLayer | None = Field(None, description="An actnorm before every map.")
    permutation: Literal["none", "reverse", "shuffle"] = Field(
        "none",
        description="Of the features before every map; shuffle is drawn once and saved.",
    )
    linear: LinearLayer | None = Field(
        None, description="An invertible matrix behind the permutation."
    )
    batch_norm: BatchNormLayer | None = Field(None, description="A batch norm behind every map.")
    final_mixing: bool = Field(
        False, description="Permutation and linear once more, behind the last map."
    )
    base: Literal["normal", "learned", "conditional"] = Field(
        "normal",
        description="N(0, I), or a Gaussian with trained means and deviations, one a feature; "
        "those of conditional depend on the context.",
    )


def stack(config: StackConfig, maps: Sequence[Sequence[Layer]]) -> list[Layer]:
    """Put the mixing, the normalisation and the base around the family's maps."""
    layers: list[Layer] = []
    for inner in maps:
        if config.actnorm:
            layers.append(config.actnorm)
        layers += _mixing(config)
        layers += inner
        if config.batch_norm:
            layers.append(config.batch_norm)
    if config.final_mixing:
        layers += _mixing(config)
    if config.base != "normal":
        layers.append(GaussianLayer(conditional=config.base == "conditional"))
    return layers


def check_base_takes_context(config: StackConfig) -> None:
    """Refuse a context that would be ignored: for families whose maps take none.

    Raises:
        ValueError: if the flow is conditional and its base is not.
    """
    if config.context_size and config.base != "conditional":
        raise ValueError(
            "the maps of this family take no context, and the base was left unconditional: give "
            "base=conditional, or take another family, such as realnvp, maf or nsf"
        )


def make_masks(masks: Masks, features: int, count: int) -> list[Mask]:
    """One mask a coupling, 1 = kept.

    "alternating": 0, 1, 0, 1, ... and its complement by turns; "half": the first half of the
    features is kept, then the second; given masks are used in turn.

    Raises:
        ValueError: of a single feature, which leaves a coupling nothing to keep.
    """
    if features == 1:
        raise ValueError(
            "couplings keep some columns and move the others, so they take two or more, got one: "
            "take family maf or ffjord, or nsf with structure=autoregressive, or give the flow "
            "another column"
        )
    turns: tuple[Mask, ...]
    match masks:
        case "alternating":
            turns = tuple(_flags(alternating_mask(features, parity)) for parity in (0, 1))
        case "half":
            turns = tuple(_flags(half_mask(features, keep_first=first)) for first in (True, False))
        case _:
            turns = masks
    return list(islice(cycle(turns), count))


def make_orders(
    orders: Orders, features: int, count: int, passes: int | None = None
) -> list[Order]:
    """One order a map.

    "ascending": 0, 1, ..., D - 1; "alternating": that and its reverse by turns; given orders are
    used in turn. With `passes` P, neighbours in the order share one of P places, and decode takes
    P passes of the network instead of D.
    """
    ascending = tuple(range(features))
    turns: tuple[Order, ...]
    match orders:
        case "ascending":
            turns = (ascending,)
        case "alternating":
            turns = (ascending, ascending[::-1])
        case _:
            turns = orders
    group = 1 if passes is None else math.ceil(features / passes)
    turns = tuple(tuple(place // group for place in order) for order in turns)
    return list(islice(cycle(turns), count))


def _mixing(config: StackConfig) -> list[Layer]:
    layers: list[Layer] = []
    if config.permutation != "none":
        layers.append(PermuteLayer(indices=config.permutation))
    if config.linear:
        layers.append(config.linear)
    return layers


def _flags(mask: Sequence[int]) -> Mask:
    return tuple(1 if kept else 0 for kept in mask)
