"""Glow: actnorm, invertible 1x1 convolution and coupling, at several levels."""

import dataclasses
from collections.abc import Callable
from typing import Literal, Self

from pydantic import Field, model_validator

from models.conditioners.conv import GlowNet, Normalisation, OutputPadding, ScaledConv2d
from models.families.about import About, Example
from models.families.config import FamilyConfig, PositiveInt, Repeats, UnitFloat
from models.families.costs import COSTS
from models.families.options import (
    ActNormStorage,
    AffineScale,
    ImageShape,
    MapForm,
    OrderOfLatents,
)
from models.families.preprocessing import FiniteFloat, Preprocessing, build_preprocessing
from models.families.realnvp_image import check_sides
from models.flow import Flow
from models.transforms.actnorm import ActNorm
from models.transforms.coupling import Coupling, half_mask
from models.transforms.elementwise import Additive, Affine
from models.transforms.linear import LULinear, PlainLinear, QRLinear
from models.transforms.permute import reverse, shuffle
from models.transforms.split import Chain, FactorOut, GaussianPrior
from models.transforms.squeeze import Flatten, Squeeze, SqueezeOrder, Unsqueeze
from models.transforms.transform import Transform

GLOW = About(
    what="actnorm, 1x1 convolutions and couplings, at several levels",
    data="images with sides divisible by 2^num_levels",
    when="you begin with images: as fast to sample as to score, also by class (num_classes)",
    cost=COSTS["glow"],
    example=Example(
        data="digits", event_shape=(1, 8, 8), arguments={"num_steps": 4, "hidden_channels": 64}
    ),
)

Permutation = Literal["conv", "lu_conv", "qr_conv", "reverse", "shuffle"]
SplitPrior = Literal["standard", "conv", "channel", "element"]
TopPrior = Literal["standard", "channel", "element"]


class GlowConfig(FamilyConfig):
    """Glow over images (C, H, W), H and W divisible by 2^num_levels.

    A level: squeeze, `num_steps` steps of actnorm, permutation and coupling; then, on all levels
    but the last, the second half of the channels is factored out.

    Reference: Kingma & Dhariwal 2018 (arXiv 1807.03039).
    """

    event_shape: ImageShape
    num_levels: Repeats = Field(2, description="H and W must be divisible by 2^num_levels.")
    num_steps: Repeats = Field(
        8, description="Steps of actnorm, permutation and coupling in each level."
    )
    hidden_channels: PositiveInt = Field(128, description="Width of the couplings' networks.")
    permutation: Permutation = Field(
        "lu_conv",
        description="Of the channels: a 1x1 convolution with W plain (conv), as P L U or as Q R; "
        "reversed; or shuffled (drawn once, saved with the weights).",
    )
    coupling: Literal["affine", "additive"] = Field(
        "affine", description="additive leaves the scale out, and keeps volume."
    )
    scale: AffineScale = "sigmoid"
    form: MapForm = "shift_then_scale"
    keep_first: bool = Field(
        True, description="The first half of the channels is kept and the second moves."
    )
    actnorm_form: MapForm = "shift_then_scale"
    actnorm_storage: ActNormStorage = "log"
    normalisation: Normalisation = Field("actnorm", description="Inside the couplings' networks.")
    negative_slope: UnitFloat = Field(
        0.0, description="Of the networks' activation, left of zero; 0 is the ReLU."
    )
    output_padding: OutputPadding = Field(
        "zeros",
        description="What the networks' last convolution sees around the image; middle: the "
        "padding of the one before. Of split priors too.",
    )
    log_scale_factor: FiniteFloat | None = Field(
        3.0,
        description="k of the networks' output (W * x + b) exp(k l), with l learned; null leaves "
        "the factor out. Of split priors too.",
    )
    split_prior: SplitPrior = Field(
        "conv",
        description="Of the half that is factored out. standard: N(0, I); conv: a Gaussian given "
        "by a convolution of the kept half; channel, element: one learned Gaussian each.",
    )
    top_prior: TopPrior = Field("channel", description="Of the last level, likewise.")
    num_classes: PositiveInt | None = Field(
        None,
        description="Makes the flow conditional on the label: channel and element priors depend "
        "on the one-hot class, and one prior must be of these kinds.",
    )
    squeeze_order: SqueezeOrder = Field(
        "channel",
        description="Which pixels of a 2x2 block become which channels: row by row (Glow), or "
        "diagonals first (RealNVP).",
    )
    latent_order: OrderOfLatents = "fine_first"
    preprocessing: Preprocessing = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        check_sides(self.event_shape, self.num_levels, "num_levels")
        learned = {self.top_prior, *([self.split_prior] if self.num_levels > 1 else [])}
        if self.num_classes is not None and not learned & {"channel", "element"}:
            raise ValueError(
                "num_classes: expected a top_prior or split_prior of 'channel' or 'element' that "
                "depends on the class, got none; set one or leave num_classes out"
            )
        return self


def build_glow(config: GlowConfig) -> Flow:
    """Build a Glow.

    Raises:
        ValueError: if the preprocessing does not fit the event.
    """
    preprocessing, facts = build_preprocessing(config.preprocessing, config.event_shape)
    transforms = [*preprocessing, *_level(config, config.event_shape, config.num_levels)]
    if config.latent_order == "image":
        transforms.append(Flatten(config.event_shape))
    return Flow(
        transforms,
        config.event_shape,
        context_shape=None if config.num_classes is None else (config.num_classes,),
        facts=dataclasses.replace(facts, num_classes=config.num_classes),
    )


def _level(config: GlowConfig, shape: ImageShape, remaining: int) -> list[Transform]:
    """Build one level and, inside its `FactorOut`, all that follow."""
    channels, height, width = 4 * shape[0], shape[1] // 2, shape[2] // 2
    squeezed = (channels, height, width)
    transforms: list[Transform] = [Squeeze(config.squeeze_order)]
    for _ in range(config.num_steps):
        transforms += _step(config, channels)
    if remaining == 1:
        transforms += _gaussian(config, config.top_prior, squeezed)
        if config.latent_order != "image":
            transforms.append(Flatten(squeezed))
    else:
        half = (channels // 2, height, width)
        if config.split_prior == "conv":
            transforms.append(_split_prior(config, channels))
        priors = _gaussian(config, config.split_prior, half)
        transforms.append(
            FactorOut(
                Chain(_level(config, half, remaining - 1)),
                squeezed,
                order=config.latent_order,
                prior=priors[0] if priors else None,
            )
        )
    if config.latent_order == "image":
        transforms.append(Unsqueeze(config.squeeze_order))
    return transforms


def _step(config: GlowConfig, channels: int) -> list[Transform]:
    half = channels // 2
    elementwise = (
        Additive()
        if config.coupling == "additive"
        else Affine(config.scale, config.form, weight_shape=(half, 1, 1))
    )
    net = GlowNet(
        half,
        elementwise.num_params * half,
        config.hidden_channels,
        normalisation=config.normalisation,
        negative_slope=config.negative_slope,
        actnorm_form=config.actnorm_form,
        actnorm_storage=config.actnorm_storage,
        output_padding=config.output_padding,
        log_scale_factor=config.log_scale_factor,
    )
    return [
        ActNorm(channels, config.actnorm_form, config.actnorm_storage),
        _PERMUTATIONS[config.permutation](channels),
        Coupling(half_mask(channels, keep_first=config.keep_first), net, elementwise),
    ]


_PERMUTATIONS: dict[Permutation, Callable[[int], Transform]] = {
    "conv": PlainLinear,
    "lu_conv": LULinear,
    "qr_conv": QRLinear,
    "reverse": reverse,
    "shuffle": shuffle,
}


def _split_prior(config: GlowConfig, channels: int) -> Transform:
    """z2 = (x2 - m(h)) exp(-a(h)): standardising half of the channels is an affine coupling."""
    half = channels // 2
    conv = ScaledConv2d(
        half,
        channels,
        log_scale_factor=config.log_scale_factor,
        padding="ones" if config.output_padding == "ones" else "zeros",
    )
    affine = Affine("exp", "unshift_then_unscale")
    return Coupling(half_mask(channels, keep_first=True), conv, affine)


def _gaussian(
    config: GlowConfig, kind: SplitPrior | TopPrior, shape: ImageShape
) -> list[Transform]:
    """Build a prior that does not look at other latents: none, or one `GaussianPrior`."""
    if kind not in ("channel", "element"):
        return []
    size = shape if kind == "element" else (shape[0], 1, 1)
    return [GaussianPrior(size, context_features=config.num_classes)]
