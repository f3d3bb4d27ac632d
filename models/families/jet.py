"""Jet: affine couplings over the patches of an image, computed by transformers."""

import dataclasses
from itertools import cycle, islice
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from models.conditioners.transformer import Transformer
from models.families.about import About, Example
from models.families.config import FamilyConfig, PositiveFloat, PositiveInt, Repeats
from models.families.costs import COSTS
from models.families.options import ImageShape
from models.families.preprocessing import Preprocessing, build_preprocessing
from models.flow import Flow
from models.transforms.coupling import Coupling, half_mask
from models.transforms.elementwise import Affine
from models.transforms.patches import (
    PatchOrder,
    channel_split,
    patch_indices,
    spatial_split,
)
from models.transforms.permute import Permute
from models.transforms.squeeze import Flatten
from models.transforms.transform import Transform

CouplingType = Literal["channels", "spatial"]

JET = About(
    what="affine couplings over the patches of an image, computed by transformers",
    data="images with sides divisible by patch_size",
    when="glow's likelihood is not enough, and samples must be fast",
    cost=COSTS["jet"],
    example=Example(
        data="digits",
        event_shape=(1, 8, 8),
        arguments={"patch_size": 2, "coupling_layers": 5, "block_width": 64, "num_heads": 2},
    ),
)


class JetConfig(FamilyConfig):
    """y = (x + t(x_kept)) s(x_kept), s = scale_factor sigmoid(a), `coupling_layers` times.

    Couplings of type channels keep half of the numbers of each patch, drawn at random; those of
    type spatial keep half of the patches: a checkerboard, then columns, then rows, each followed by
    its complement. What is kept is saved with the weights. Latents are patches, row by row.

    Reference: Kolesnikov et al. 2024 (arXiv 2412.15129).
    """

    event_shape: ImageShape
    patch_size: PositiveInt = Field(4, description="Side of a patch; it divides both sides.")
    coupling_layers: Repeats = Field(20, description="Couplings, each with its transformer.")
    coupling_types: tuple[CouplingType, ...] = Field(
        ("channels", "channels", "channels", "channels", "spatial"),
        min_length=1,
        description="Of the couplings in order, repeated as often as needed.",
    )
    block_depth: Repeats = Field(2, description="Layers of each transformer.")
    block_width: PositiveInt = Field(128, description="Width of the transformers.")
    num_heads: PositiveInt = Field(4, description="Of each attention; it divides block_width.")
    scale_factor: PositiveFloat = Field(2.0, description="The largest scale of a coupling.")
    patch_order: PatchOrder = Field(
        "channel_last", description="Of the numbers of a patch: which axis runs fastest."
    )
    preprocessing: Preprocessing = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.block_width % self.num_heads:
            raise ValueError(
                f"num_heads: expected a divisor of block_width = {self.block_width}, got "
                f"{self.num_heads}"
            )
        channels, height, width = self.event_shape
        if channels * self.patch_size**2 % 2:
            raise ValueError("patch_size: expected patches with an even number of values")
        patches = height // self.patch_size * (width // self.patch_size)
        if "spatial" in self.types and patches % 2:
            raise ValueError(
                f"coupling_types: spatial couplings halve the patches, of which there are {patches}"
            )
        return self

    @property
    def types(self) -> list[CouplingType]:
        """The type of each coupling."""
        return list(islice(cycle(self.coupling_types), self.coupling_layers))


def build_jet(config: JetConfig) -> Flow:
    """Build a Jet.

    Raises:
        ValueError: if the preprocessing or the patches do not fit the event.
    """
    preprocessing, facts = build_preprocessing(config.preprocessing, config.event_shape)
    channels, height, width = config.event_shape
    patches = patch_indices(config.event_shape, config.patch_size, config.patch_order)
    size = channels * config.patch_size**2
    grid = (height // config.patch_size, width // config.patch_size)
    transforms = [*preprocessing, Flatten(config.event_shape), Permute(patches)]
    spatial = 0
    for kind in config.types:
        if kind == "channels":
            kept_first = channel_split(len(patches) // size, torch.randperm(size))
        else:
            kept_first = spatial_split(_pattern(grid, spatial), size)
            spatial += 1
        transforms += _coupling(config, kept_first, len(patches) // size, size)
    return Flow(transforms, config.event_shape, facts=dataclasses.replace(facts, num_classes=None))


def _pattern(grid: tuple[int, int], turn: int) -> Tensor:
    """The patches of a grid, those that are kept before the others.

    Returns:
        (patches,).
    """
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in grid), indexing="ij")
    patterns = ((rows + columns) % 2, columns % 2, rows % 2)
    pattern = patterns[turn // 2 % 3].flatten()
    if 2 * int(pattern.sum()) != len(pattern):  # stripes of an odd number of columns or rows
        pattern = torch.arange(len(pattern)) % 2
    return (pattern if turn % 2 == 0 else 1 - pattern).argsort(stable=True)


def _coupling(config: JetConfig, kept_first: list[int], tokens: int, size: int) -> list[Transform]:
    net = Transformer(
        tokens,
        size // 2,
        num_params=2,
        width=config.block_width,
        depth=config.block_depth,
        heads=config.num_heads,
        mlp_width=4 * config.block_width,
        has_final_norm=True,
    )
    affine = Affine("bounded_sigmoid", "shift_then_scale", scale_factor=config.scale_factor)
    half = half_mask(len(kept_first), keep_first=True)
    restore = torch.tensor(kept_first).argsort().tolist()
    return [Permute(kept_first), Coupling(half, net, affine), Permute(restore)]
