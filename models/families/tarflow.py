"""TarFlow: autoregressive maps over the patches of an image, computed by causal transformers."""

import dataclasses
from typing import Self

from pydantic import Field, model_validator

from models.conditioners.transformer import Transformer
from models.families.about import About, Example
from models.families.config import FamilyConfig, PositiveInt, Repeats
from models.families.costs import COSTS
from models.families.layers import DecodingOption
from models.families.options import ImageShape
from models.families.preprocessing import Preprocessing, build_preprocessing
from models.flow import Flow
from models.transforms.autoregressive import MaskedAutoregressive
from models.transforms.elementwise import Additive, Affine
from models.transforms.patches import patch_indices, reversed_tokens
from models.transforms.permute import Permute
from models.transforms.squeeze import Flatten
from models.transforms.transform import Transform

TARFLOW = About(
    what="autoregressive maps over the patches of an image, computed by transformers",
    data="images with sides divisible by patch_size",
    when="likelihood matters more than the time of a sample, which asks for a patch at a time",
    cost=COSTS["tarflow"],
    example=Example(
        data="digits",
        event_shape=(1, 8, 8),
        arguments={"patch_size": 2, "channels": 64, "num_blocks": 4, "layers_per_block": 2},
    ),
)


class TarFlowConfig(FamilyConfig):
    """z_t = (x_t - m(x_<t)) exp(-a(x_<t)) over patches t, `num_blocks` times, in turning order.

    Latents are patches, row by row; inside one channel, row, column. The first patch of each block
    stays as it is.

    Cost: decode takes as many passes of each transformer as there are patches, of one patch each;
    with decoding="jacobi" as many as it takes until nothing changes, of all patches each. Rounding
    settles patch by patch, so these are mostly as many too.

    Reference: Zhai et al. 2024 (arXiv 2412.06329).
    """

    event_shape: ImageShape
    patch_size: PositiveInt = Field(4, description="Side of a patch; it divides both sides.")
    channels: PositiveInt = Field(128, description="Width of the transformers.")
    num_blocks: Repeats = Field(4, description="Autoregressive maps, each with its transformer.")
    layers_per_block: Repeats = Field(2, description="Layers of each transformer.")
    head_dim: PositiveInt = Field(
        64, description="Width of a head of the attention; it divides `channels`."
    )
    decoding: DecodingOption = "sequential"
    nvp: bool = Field(True, description="Scale and shift; false: shift alone, which keeps volume.")
    num_classes: PositiveInt | None = Field(
        None, description="Makes the flow conditional on the label: the context is one-hot."
    )
    preprocessing: Preprocessing = ()

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.channels % self.head_dim:
            raise ValueError(
                f"head_dim: expected a divisor of channels = {self.channels}, got {self.head_dim}"
            )
        return self


def build_tarflow(config: TarFlowConfig) -> Flow:
    """Build a TarFlow.

    Raises:
        ValueError: if the preprocessing or the patches do not fit the event.
    """
    preprocessing, facts = build_preprocessing(config.preprocessing, config.event_shape)
    patches = patch_indices(config.event_shape, config.patch_size)
    size = config.event_shape[0] * config.patch_size**2
    transforms = [*preprocessing, Flatten(config.event_shape), Permute(patches)]
    for index in range(config.num_blocks):
        block = [_block(config, len(patches) // size, size)]
        if index % 2:
            turn = reversed_tokens(len(patches), size)
            block = [Permute(turn), *block, Permute(turn)]
        transforms += block
    return Flow(
        transforms,
        config.event_shape,
        context_shape=None if config.num_classes is None else (config.num_classes,),
        facts=dataclasses.replace(facts, num_classes=config.num_classes),
    )


def _block(config: TarFlowConfig, tokens: int, size: int) -> Transform:
    net = Transformer(
        tokens,
        size,
        num_params=2 if config.nvp else 1,
        width=config.channels,
        depth=config.layers_per_block,
        heads=config.channels // config.head_dim,
        mlp_width=4 * config.channels,
        is_causal=True,
        num_classes=config.num_classes,
    )
    elementwise = Affine("exp", "unshift_then_unscale") if config.nvp else Additive()
    order = [token for token in range(tokens) for _ in range(size)]
    return MaskedAutoregressive(order, net, elementwise, decoding=config.decoding)
