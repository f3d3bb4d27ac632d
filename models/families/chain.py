"""Any flow over vectors, layer by layer; the named families over vectors are recipes for these."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Self

from pydantic import Field, model_validator

from models.families.about import About, Example
from models.families.config import LARGEST, FamilyConfig, PositiveInt
from models.families.costs import COSTS
from models.families.embedding import EmbeddingSteps, build_embedding, embedded_features
from models.families.layers import Layer, build_layer
from models.families.preprocessing import Preprocessing, build_preprocessing
from models.flow import Flow
from models.transforms.squeeze import Flatten
from models.transforms.transform import Transform

CHAIN = About(
    what="any flow over vectors, layer by layer",
    data="tables",
    when="no other family has the layers, or the order of layers, that you want",
    cost=COSTS["chain"],
    example=Example(
        data="two_moons",
        event_shape=(2,),
        arguments={
            "layers": [
                {"kind": "actnorm"},
                {"kind": "coupling", "mask": [1, 0]},
                {"kind": "coupling", "mask": [0, 1]},
                {"kind": "linear", "matrix": "lu"},
            ]
        },
    ),
)


class VectorConfig(FamilyConfig):
    """What every family over vectors takes."""

    event_shape: tuple[PositiveInt, ...] = Field(
        min_length=1,
        description="Shape of one x; anything but (D,) is flattened behind the preprocessing. "
        "Training takes it from the data.",
    )
    context_features: int = Field(
        0,
        ge=0,
        le=LARGEST,
        description="Length of the context vector of a conditional flow, 0 for none.",
    )
    num_classes: PositiveInt | None = Field(
        None,
        description="Makes the flow conditional on the label: the context is the one-hot class, "
        "instead of `context_features`.",
    )
    context_embedding: EmbeddingSteps = ()
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

    @property
    def embedded_size(self) -> int:
        """Length of what the layers see of the context, 0 for none."""
        return embedded_features(self.context_embedding, self.context_size)


class ChainConfig(VectorConfig):
    """A flow given layer by layer."""

    layers: tuple[Layer, ...] = Field(description="In order, data side first.")


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
        context_embedding=build_embedding(config.context_embedding, config.context_size),
        facts=dataclasses.replace(facts, num_classes=config.num_classes),
    )


def _build(index: int, layer: Layer, config: VectorConfig) -> Transform:
    try:
        return build_layer(layer, config.features, config.embedded_size)
    except ValueError as error:
        raise ValueError(f"layer {index} ({layer.kind}): {error}") from None
