"""Mixtures of Gaussians as maps of flows over vectors: their description and how each is built."""

from typing import Literal, cast

from pydantic import Field
from torch import nn

from models.conditioners.dense import MLP, Dense, ResNet
from models.families.config import FamilyConfig, NonNegativeFloat, Repeats
from models.families.nets import NetConfig, build_conditioner
from models.monotone.mixture import (
    Covariance,
    Deviation,
    Factor,
    GaussianMixture,
    NormalMixture,
    entries_below,
    first_components,
)
from models.transforms.elementwise import Elementwise


class NormalMixtureConfig(FamilyConfig):
    """A mixture of Gaussians in one variable, made normal; its inverse is solved for."""

    kind: Literal["normal_mixture"] = "normal_mixture"
    components: Repeats = Field(4, description="How many Gaussians.")
    deviation: Deviation = Field(
        "exp",
        description="What makes a standard deviation of a raw a. exp: e^a + offset; softplus: "
        "log(1 + e^a) + offset; inverse_softplus: one over it.",
    )
    offset: NonNegativeFloat = Field(0.0, description="See deviation.")


class GaussianMixtureLayer(FamilyConfig):
    """A mixture of Gaussians of all features as the base, or as a map to another one."""

    kind: Literal["gaussian_mixture"] = "gaussian_mixture"
    components: Repeats = Field(4, description="How many Gaussians.")
    covariance: Covariance = Field("full", description="Of every Gaussian, or variances alone.")
    factor: Factor = Field(
        "covariance",
        description="What the triangular matrices of full ones are factors of: C = L L^T, or "
        "C^-1 = A^T A.",
    )
    deviation: Deviation = Field("exp", description="As in normal_mixture.")
    offset: NonNegativeFloat = Field(0.0, description="As in normal_mixture.")
    network: NetConfig | None = Field(
        None,
        description="Makes weights, means and factors of the context; left out, they are the same "
        "for every context.",
    )


def build_normal_mixture(config: NormalMixtureConfig) -> NormalMixture:
    """Build the scalar map."""
    return NormalMixture(config.components, config.deviation, offset=config.offset)


def build_gaussian_mixture(
    layer: GaussianMixtureLayer, features: int, context_features: int
) -> GaussianMixture:
    """Build the map of all features.

    Raises:
        ValueError: if it has a network over a context, and there is none.
    """
    network: nn.Module | None = None
    if layer.network is not None:
        if not context_features:
            raise ValueError("gaussian_mixture: network needs context_features or num_classes")
        entries = entries_below(features) if layer.covariance == "full" else 0
        first = first_components(features, layer.components, entries)
        network = build_conditioner(
            layer.network, lambda count: Dense(context_features, count), len(first)
        )
        start_at(network, first.tolist())
    return GaussianMixture(
        features,
        layer.components,
        layer.covariance,
        factor=layer.factor,
        deviation=layer.deviation,
        offset=layer.offset,
        network=network,
    )


def start_at_first_params(conditioner: nn.Module, elementwise: Elementwise) -> None:
    """Let a conditioner whose last layer is zero give the parameters that a map begins with."""
    first = elementwise.first_params()
    if any(first):
        start_at(conditioner, first)


def start_at(network: nn.Module, outputs: list[float]) -> None:
    """Set the last biases of a network, which has that many blocks of outputs."""
    if isinstance(network, MLP | ResNet):
        last = network.layers[-1] if isinstance(network, MLP) else network.exit
        bias = cast(nn.Linear, last).bias.detach()
        for value, block in zip(outputs, bias.view(len(outputs), -1), strict=True):
            block.fill_(value)
