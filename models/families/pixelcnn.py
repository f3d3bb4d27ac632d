"""PixelCNN: an autoregressive model over the levels of pixels, as the flow that it is."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Self

import torch
from pydantic import Field, model_validator

from models.conditioners.pixelcnn import PixelCNN
from models.families.about import About, Example
from models.families.config import FamilyConfig, PositiveInt, Repeats
from models.families.costs import COSTS
from models.families.layers import DecodingOption
from models.families.options import ImageShape
from models.families.preprocessing import Preprocessing, build_preprocessing, pull_back
from models.flow import Facts, Flow
from models.transforms.autoregressive import MaskedAutoregressive
from models.transforms.histogram import Histogram
from models.transforms.preprocess import PIXEL_BITS
from models.transforms.squeeze import Flatten
from models.transforms.transform import Transform

PIXELCNN = About(
    what="a distribution over levels for each pixel, given those before it, by masked convolutions",
    data="images of few levels, series (1 x T)",
    when="exact likelihoods of whole pixels matter, and samples may take long",
    cost=COSTS["pixelcnn"],
    example=Example(data="digits", event_shape=(1, 8, 8), arguments={"levels": 17, "width": 32}),
)


# Of a bin, how far from its middle a level may come to lie: more than float32 rounds.
_MOST_MISPLACED = 1e-3


class PixelCNNConfig(FamilyConfig):
    """log p(x) = sum_i log p(level of x_i | levels before it), over images (C, H, W) in [0, 1].

    Values are dequantised by uniform noise over their bin of width 1 / levels, on which the density
    is constant: with whole pixels the log-density is the log-probability of the pixels. Latents are
    the quantiles Phi^-1(F(x_i | x_<i)) where the pixels were. Images of one row are series, and the
    network WaveNet's: `dilations` then grow, as in [1, 2, 4, 8].

    Reference: van den Oord et al. 2016 (arXiv 1606.05328, arXiv 1609.03499).
    """

    event_shape: ImageShape
    levels: PositiveInt = Field(
        256, ge=2, le=256, description="Values that a pixel can take; 2^bits behind reduce_bits."
    )
    width: PositiveInt = Field(64, description="Hidden channels, a multiple of the image's.")
    num_layers: Repeats = Field(6, description="Gated layers of the network.")
    kernel: PositiveInt = Field(3, description="Side of the convolutions, odd.")
    dilations: tuple[PositiveInt, ...] = Field(
        (1,),
        min_length=1,
        description="Between the taps of the layers' convolutions, repeated as often as needed.",
    )
    num_classes: PositiveInt | None = Field(
        None, description="Makes the flow conditional on the label: the context is one-hot."
    )
    decoding: DecodingOption = "sequential"
    preprocessing: Preprocessing = ()

    @model_validator(mode="after")
    def _kernel_is_odd(self) -> Self:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel: expected an odd number, got {self.kernel}")
        return self


def build_pixelcnn(config: PixelCNNConfig) -> Flow:
    """Build a PixelCNN.

    Raises:
        ValueError: if the preprocessing or the width does not fit the event, or the pixels that
            are dequantised do not fill `levels` equal bins.
    """
    preprocessing, facts = build_preprocessing(config.preprocessing, config.event_shape)
    if facts.num_levels is not None:
        _check_levels(config, facts, preprocessing)
    channels, height, width = config.event_shape
    pixels = height * width
    net = PixelCNN(
        config.event_shape,
        config.levels,
        width=config.width,
        kernel=config.kernel,
        dilations=[
            config.dilations[index % len(config.dilations)] for index in range(config.num_layers)
        ],
        num_classes=config.num_classes or 0,
    )
    order = [pixel * channels + channel for channel in range(channels) for pixel in range(pixels)]
    histogram = Histogram(config.levels)
    transforms = [
        *preprocessing,
        Flatten(config.event_shape),
        MaskedAutoregressive(order, net, histogram, decoding=config.decoding),
    ]
    support = pull_back((0.0, 1.0), preprocessing, config.event_shape)
    return Flow(
        transforms,
        config.event_shape,
        context_shape=None if config.num_classes is None else (config.num_classes,),
        facts=dataclasses.replace(facts, num_classes=config.num_classes, support=support),
    )


def _check_levels(config: PixelCNNConfig, facts: Facts, preprocessing: Sequence[Transform]) -> None:
    """Make sure that a bin of the density is a level of the pixels: else it is no probability.

    Raises:
        ValueError: if there are fewer or more levels, or one lies beside the middle of its bin.
    """
    bits = facts.notes.get("pixel_bits")
    found = facts.num_levels if bits is None else 2**bits
    if config.levels != found:
        raise ValueError(
            f"levels: expected {found}, as many as the pixels have behind the preprocessing, got "
            f"{config.levels}"
        )
    width = 1 if bits is None else 2 ** (PIXEL_BITS - bits)
    pixels = width * torch.arange(found, dtype=torch.float64)
    values = pixels.view(-1, 1, 1, 1).expand(-1, *config.event_shape)
    for transform in preprocessing:
        # The middle of a bin, not noise in it.
        values, _ = copy.deepcopy(transform).eval().encode(values)
    places = values.flatten(1).sort(dim=0).values * found - 0.5
    ideal = torch.arange(found, dtype=torch.float64)[:, None]
    if (places - ideal).abs().max() > _MOST_MISPLACED:
        raise ValueError(
            f"preprocessing: expected the {found} levels in the middle of {found} equal bins of "
            f"[0, 1], as shift_scale with scale {1 / (width * found):g} puts them, got "
            f"{float(values.min()):g} to {float(values.max()):g}"
        )
