"""The `context_embedding` argument: a network from contexts to what the layers of a flow see."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from models.conditioners.activations import Activation
from models.conditioners.embedding import (
    ContextEmbedding,
    LayerNorm,
    PointwiseActivation,
    StandardiseContext,
)
from models.families.config import MOST_REPEATS, FamilyConfig, PositiveFloat, PositiveInt
from models.families.options import NegativeSlope


class StandardiseStep(FamilyConfig):
    """(context - mean) / std, with numbers that are saved with the weights."""

    kind: Literal["standardise"] = "standardise"


class LinearStep(FamilyConfig):
    """W h + b."""

    kind: Literal["linear"] = "linear"
    width: PositiveInt = Field(description="Of the output.")
    bias: bool = Field(True, description="Whether b is added.")


class ActivationStep(FamilyConfig):
    """A nonlinearity."""

    kind: Literal["activation"] = "activation"
    name: Activation = Field("relu", description="Which.")
    negative_slope: NegativeSlope = 0.01


class LayerNormStep(FamilyConfig):
    """Every row to mean 0 and variance 1, then scaled and shifted."""

    kind: Literal["layer_norm"] = "layer_norm"
    eps: PositiveFloat = Field(1e-5, description="Added to the variance.")


EmbeddingStep = Annotated[
    StandardiseStep | LinearStep | ActivationStep | LayerNormStep, Field(discriminator="kind")
]
EmbeddingSteps = Annotated[
    tuple[EmbeddingStep, ...],
    Field(
        max_length=MOST_REPEATS,
        description="A network over the context, step by step: the layers see what comes out of "
        "it. Computed once a request, whatever the number of layers.",
    ),
]


def embedded_features(steps: Sequence[EmbeddingStep], features: int) -> int:
    """Length of what comes out of a context of that many features."""
    for step in steps:
        features = step.width if isinstance(step, LinearStep) else features
    return features


def build_embedding(steps: Sequence[EmbeddingStep], features: int) -> ContextEmbedding | None:
    """Build the network over contexts of that many features; None where there are no steps.

    Raises:
        ValueError: if the flow takes no context.
    """
    if not steps:
        return None
    if not features:
        raise ValueError("context_embedding: needs context_features or num_classes, got neither")
    modules: list[nn.Module] = []
    for step in steps:
        match step:
            case StandardiseStep():
                modules.append(StandardiseContext(features))
            case LinearStep():
                modules.append(nn.Linear(features, step.width, bias=step.bias))
                features = step.width
            case ActivationStep():
                modules.append(PointwiseActivation(step.name, step.negative_slope))
            case LayerNormStep():
                modules.append(LayerNorm(features, step.eps))
    return ContextEmbedding(modules)
