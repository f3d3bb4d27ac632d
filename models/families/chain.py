"""Any flow over vectors, layer by layer; the named families over vectors are recipes for these."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from models.families.config import LARGEST, FamilyConfig, PositiveInt
from models.families.layers import Layer, build_layer
from models.families.preprocessing import Preprocessing, build_preprocessing
from models.flow import Flow
from models.transforms.squeeze import Flatten
from models.transforms.transform import Transform


class VectorConfig(FamilyConfig):
    """What every family over vectors takes.

    Attributes:
        event_shape: of one x; anything but (D,) is flattened behind the preprocessing.
        context_features: length of the context vector of a conditional flow, 0 for none.
        num_classes: the context is the one-hot class, instead of `context_features`.
        preprocessing: the first transforms, on x as users have it.
    """

    event_shape: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    context_features: Annotated[int, Field(ge=0, le=LARGEST)] = 0
    num_classes: PositiveInt | None = None
    preprocessing: Preprocessing = ()

    @model_validator(mode="after")
    def _one_context(self) -> Self:
        if self.num_classes is not None and self.context_features:
            raise ValueError("num_classes: expected none beside context_features; give one of them")
        return self

    @property
    def features(self) -> int:
        """D."""
        return math.prod(self.event_shape)

    @property
    def context_size(self) -> int:
        """Length of the context vector, 0 for none."""
        return self.num_classes or self.context_features


class ChainConfig(VectorConfig):
    """A flow given layer by layer, data side first."""

    layers: tuple[Layer, ...]


def build_chain(config: ChainConfig) -> Flow:
    """Build a flow from its layers.

    Raises:
        ValueError: names the first layer that does not fit.
    """
    return assemble(config, config.layers)


def assemble(config: VectorConfig, layers: Sequence[Layer]) -> Flow:
    """Put preprocessing in front of layers and make them a flow.

    Raises:
        ValueError: names the first layer that does not fit.
    """
    transforms, facts = build_preprocessing(config.preprocessing, config.event_shape)
    if len(config.event_shape) > 1:
        transforms.append(Flatten(config.event_shape))
    transforms += [_build(index, layer, config) for index, layer in enumerate(layers)]
    return Flow(
        transforms,
        config.event_shape,
        context_shape=(config.context_size,) if config.context_size else None,
        facts=dataclasses.replace(facts, num_classes=config.num_classes),
    )


def _build(index: int, layer: Layer, config: VectorConfig) -> Transform:
    try:
        return build_layer(layer, config.features, config.context_size)
    except ValueError as error:
        raise ValueError(f"layer {index} ({layer.kind}): {error}") from None
