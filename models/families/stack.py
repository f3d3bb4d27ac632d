"""What families that stack couplings or autoregressive maps over vectors have in common."""

import math
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Annotated, Literal

from pydantic import Field

from models.families.chain import VectorConfig
from models.families.config import Repeats
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

Masks = Literal["alternating", "half"] | Annotated[tuple[Mask, ...], Field(min_length=1)]
Orders = Literal["ascending", "alternating"] | Annotated[tuple[Order, ...], Field(min_length=1)]


class StackConfig(VectorConfig):
    """`num_layers` times: mixing, then the family's own map, then a normalisation.

    Attributes:
        actnorm: an `ActNorm` before every map.
        permutation: of the features before every map; "shuffle" is drawn once and saved.
        linear: an invertible matrix behind the permutation; by default that of neural spline
            flows, y = L U x + b, starting at the identity.
        batch_norm: a `BatchNorm` behind every map.
        final_mixing: permutation and linear once more behind the last map.
        base: "learned" and "conditional" put a Gaussian with trained means and deviations, one a
            feature, behind the last map; those of "conditional" depend on the context.
    """

    num_layers: Repeats = 5
    actnorm: ActNormLayer | None = None
    permutation: Literal["none", "reverse", "shuffle"] = "none"
    linear: LinearLayer | None = None
    batch_norm: BatchNormLayer | None = None
    final_mixing: bool = False
    base: Literal["normal", "learned", "conditional"] = "normal"


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


def make_masks(masks: Masks, features: int, count: int) -> list[Mask]:
    """One mask a coupling, 1 = kept.

    "alternating": 0, 1, 0, 1, ... and its complement by turns; "half": the first half of the
    features is kept, then the second; given masks are used in turn.
    """
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
