"""FFJORD over vectors: continuous flows with dense dynamics; zuko's and torchcfm's too."""

import dataclasses
from typing import Self

from pydantic import Field, model_validator

from models.families.about import About, Example
from models.families.chain import VectorConfig
from models.families.config import MOST_REPEATS, Widths
from models.families.continuous import (
    BATCH_NORM_EPS,
    ContinuousConfig,
    build_continuous,
    note_trace,
)
from models.families.costs import COSTS
from models.families.embedding import build_embedding
from models.families.preprocessing import build_preprocessing
from models.flow import Flow
from models.ode.fields.dense import DenseDynamics, TimeInput
from models.ode.fields.dense_layers import DenseLayerType
from models.ode.transform import ContinuousTransform
from models.transforms.batchnorm import BatchNorm
from models.transforms.squeeze import Flatten
from models.transforms.transform import Transform

FFJORD = About(
    what="a differential equation whose right side is a dense network",
    data="tables of few columns",
    when="the density should be smooth, without the seams of couplings; a call solves an equation",
    cost=COSTS["ffjord"],
    example=Example(
        data="pinwheel",
        event_shape=(2,),
        arguments={"hidden_features": [64, 64], "training": {"gradient": "direct"}},
    ),
)


class FFJORDConfig(ContinuousConfig, VectorConfig):
    """dx/dt = f(t, x, c) with f a dense network, `num_blocks` times.

    With `batch_norm` there is one before the first block and one behind every block.

    Reference: Grathwohl et al. 2019 (arXiv 1810.01367).
    """

    hidden_features: Widths = Field((64, 64, 64), description="Hidden layers of f.")
    layer_type: DenseLayerType = Field(
        "concatsquash",
        description="How the time enters every layer W h + b of f. ignore: not; concat: beside h; "
        "squash: as a gate; concatsquash: as gate and shift; blend: between two layers; hyper: "
        "W and b come from a network of it.",
    )
    time_input: TimeInput = Field(
        "none",
        description="How the time enters the first layer besides. none (FFJORD); fourier: as "
        "cosines and sines (zuko); last: behind x and the context (torchcfm).",
    )
    num_frequencies: int = Field(
        0, ge=0, le=MOST_REPEATS, description="Of fourier, 1 or more; 0 for the others."
    )

    @model_validator(mode="after")
    def _frequencies_have_a_use(self) -> Self:
        if (self.time_input == "fourier") != (self.num_frequencies > 0):
            raise ValueError(
                "num_frequencies: expected 1 or more for time_input 'fourier', 0 for others"
            )
        return self


def build_ffjord(config: FFJORDConfig) -> Flow:
    """Build a continuous flow over vectors.

    Raises:
        ValueError: if the preprocessing does not fit the event.
    """
    transforms, facts = build_preprocessing(config.preprocessing, config.event_shape)
    if len(config.event_shape) > 1:
        transforms.append(Flatten(config.event_shape))
    blocks = [_block(config) for _ in range(config.num_blocks)]
    transforms += _normalised(config, blocks) if config.batch_norm else blocks
    facts = dataclasses.replace(facts, num_classes=config.num_classes)
    return Flow(
        transforms,
        config.event_shape,
        context_shape=(config.context_size,) if config.context_size else None,
        context_embedding=build_embedding(config.context_embedding, config.context_size),
        facts=note_trace(facts, config.divergence, blocks),
    )


def _block(config: FFJORDConfig) -> ContinuousTransform:
    dynamics = DenseDynamics(
        config.features,
        config.hidden_features,
        layer_type=config.layer_type,
        nonlinearity=config.nonlinearity,
        time_input=config.time_input,
        num_frequencies=config.num_frequencies,
        context_features=config.embedded_size,
        residual=config.residual,
    )
    return build_continuous(config, dynamics)


def _normalised(config: FFJORDConfig, blocks: list[ContinuousTransform]) -> list[Transform]:
    def norm() -> Transform:
        return BatchNorm(config.features, eps=BATCH_NORM_EPS, statistics="running")

    return [norm(), *(transform for block in blocks for transform in (block, norm()))]
