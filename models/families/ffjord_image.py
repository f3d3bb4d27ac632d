"""FFJORD over images: continuous flows with convolutional dynamics, at one or several scales."""

from typing import Self

from pydantic import Field, model_validator

from models.families.about import About, Example
from models.families.config import Repeats, Widths
from models.families.continuous import (
    BATCH_NORM_EPS,
    ContinuousConfig,
    build_continuous,
    note_trace,
)
from models.families.costs import COSTS
from models.families.options import DynamicsNonlinearity, ImageShape
from models.families.preprocessing import Preprocessing, build_preprocessing
from models.families.realnvp_image import check_sides
from models.flow import Flow
from models.ode.fields.conv import ConvDynamics
from models.ode.fields.conv_layers import ConvLayerType, Stride
from models.transforms.batchnorm import BatchNorm
from models.transforms.split import Chain, FactorOut
from models.transforms.squeeze import Flatten, Squeeze
from models.transforms.transform import Transform

FFJORD_IMAGE = About(
    what="differential equations whose right side is convolutional",
    data="small images",
    when="few weights matter more than time: a call solves an equation; else glow",
    cost=COSTS["ffjord_image"],
    example=Example(
        data="digits",
        event_shape=(1, 8, 8),
        arguments={"hidden_channels": [16, 16], "training": {"gradient": "direct"}},
    ),
)


class FFJORDImageConfig(ContinuousConfig):
    """dx/dt = f(t, x) with f convolutional, over images (C, H, W).

    Every scale but the last: `num_blocks` blocks, squeeze, as many blocks, then the second half of
    the channels is factored out. The last scale: `num_blocks` blocks. Latents lie finest first.
    With `batch_norm` there is one behind the last block; for a single scale.

    Reference: Grathwohl et al. 2019 (arXiv 1810.01367).
    """

    event_shape: ImageShape
    num_scales: Repeats = Field(1, description="H and W must be divisible by 2^(num_scales - 1).")
    hidden_channels: Widths = Field((64, 64, 64), description="Hidden layers of f.")
    strides: tuple[Stride, ...] | None = Field(
        None,
        description="One a layer: 1 (3x3), 2 (4x4, halves the image), -2 (4x4, doubles it); null "
        "for all 1.",
    )
    layer_type: ConvLayerType = Field(
        "concat",
        description="How the time enters every layer of f. ignore: not; concat: as a channel; "
        "concatcoord: as one beside row and column; squash: as a gate; concatsquash: as gate and "
        "shift; blend: between two layers; hyper: weights come from a network of it.",
    )
    nonlinearity: DynamicsNonlinearity = "softplus"
    preprocessing: Preprocessing = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        check_sides(self.event_shape, self.num_scales - 1, "num_scales - 1")
        if self.batch_norm and self.num_scales > 1:
            raise ValueError("batch_norm: expected false for more than one scale, got true")
        return self


def build_ffjord_image(config: FFJORDImageConfig) -> Flow:
    """Build a continuous flow over images.

    Raises:
        ValueError: if the preprocessing or the strides do not fit the event.
    """
    preprocessing, facts = build_preprocessing(config.preprocessing, config.event_shape)
    scales = _scale(config, config.event_shape, config.num_scales)
    return Flow(
        [*preprocessing, *scales],
        config.event_shape,
        facts=note_trace(facts, config.divergence, scales),
    )


def _scale(config: FFJORDImageConfig, shape: ImageShape, remaining: int) -> list[Transform]:
    """Build one scale and, inside its `FactorOut`, all that follow."""
    channels, height, width = shape
    transforms = _blocks(config, shape)
    if remaining == 1:
        if config.batch_norm:
            transforms.append(BatchNorm(channels, eps=BATCH_NORM_EPS, statistics="running"))
        return [*transforms, Flatten(shape)]
    squeezed = (4 * channels, height // 2, width // 2)
    rest = Chain(_scale(config, (2 * channels, height // 2, width // 2), remaining - 1))
    return [*transforms, Squeeze(), *_blocks(config, squeezed), FactorOut(rest, squeezed)]


def _blocks(config: FFJORDImageConfig, shape: ImageShape) -> list[Transform]:
    return [
        build_continuous(
            config,
            ConvDynamics(
                shape,
                config.hidden_channels,
                strides=config.strides,
                layer_type=config.layer_type,
                nonlinearity=config.nonlinearity,
                residual=config.residual,
            ),
        )
        for _ in range(config.num_blocks)
    ]
