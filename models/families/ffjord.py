"""FFJORD over vectors: continuous flows with dense dynamics; zuko's and torchcfm's too."""

import dataclasses
from typing import Annotated, Self

from pydantic import Field, model_validator

from models.families.chain import VectorConfig
from models.families.config import MOST_REPEATS, Widths
from models.families.continuous import (
    BATCH_NORM_EPS,
    ContinuousConfig,
    build_continuous,
    note_trace,
)
from models.families.preprocessing import build_preprocessing
from models.flow import Flow
from models.ode.fields.dense import DenseDynamics, TimeInput
from models.ode.fields.dense_layers import DenseLayerType
from models.ode.transform import ContinuousTransform
from models.transforms.batchnorm import BatchNorm
from models.transforms.squeeze import Flatten
from models.transforms.transform import Transform


class FFJORDConfig(ContinuousConfig, VectorConfig):
    """dx/dt = f(t, x, c) with f a dense network, `num_blocks` times.

    Attributes:
        hidden_features, layer_type: of the dynamics, see `DenseDynamics`.
        time_input, num_frequencies: how the time enters the first layer, beside the layers' own
            way: "none" (FFJORD), "fourier" (zuko), "last" (torchcfm).
        batch_norm: one before the first block and one behind every block.

    Reference: Grathwohl et al. 2019 (arXiv 1810.01367).
    """

    hidden_features: Widths = (64, 64, 64)
    layer_type: DenseLayerType = "concatsquash"
    time_input: TimeInput = "none"
    num_frequencies: Annotated[int, Field(ge=0, le=MOST_REPEATS)] = 0

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
        context_features=config.context_size,
        residual=config.residual,
    )
    return build_continuous(config, dynamics)


def _normalised(config: FFJORDConfig, blocks: list[ContinuousTransform]) -> list[Transform]:
    def norm() -> Transform:
        return BatchNorm(config.features, eps=BATCH_NORM_EPS, statistics="running")

    return [norm(), *(transform for block in blocks for transform in (block, norm()))]
