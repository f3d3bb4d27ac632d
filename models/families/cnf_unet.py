"""Continuous flows over images whose dynamics are a U-Net, as flow matching trains them."""

import dataclasses
from typing import Annotated, Self

from pydantic import Field, model_validator

from models.families.about import About, Example
from models.families.config import MOST_REPEATS, PositiveInt, Widths
from models.families.continuous import EquationConfig, build_continuous, note_trace
from models.families.costs import COSTS
from models.families.options import ImageShape
from models.families.preprocessing import Preprocessing, build_preprocessing
from models.families.realnvp_image import check_sides
from models.flow import Flow
from models.ode.fields.unet import UNetDynamics, UNetSettings
from models.ode.transform import DataTime
from models.transforms.squeeze import Flatten

CNF_UNET = About(
    what="a differential equation whose right side is a U-Net with attention",
    data="images",
    when="samples matter most (train by flow matching); log_prob is slow, beyond 64 values inexact",
    cost=COSTS["cnf_unet"],
    example=Example(
        data="digits",
        event_shape=(1, 8, 8),
        arguments={
            "hidden_channels": [8],
            "num_groups": 4,
            # An estimate is off by a nat: a solve that is off by less does.
            "divergence": {"evaluation": "hutchinson", "num_probes": 2},
            "solver": {"rtol": 1e-4, "atol": 1e-4},
        },
        options={"objective": "flow_matching"},
    ),
)

Factors = Annotated[tuple[PositiveInt, ...], Field(max_length=64)]


class CNFUNetConfig(EquationConfig):
    """dx/dt = f(t, x, y) with f a U-Net, over images (C, H, W).

    Reference: Dhariwal & Nichol 2021 (arXiv 2105.05233); Tong et al. 2024 (arXiv 2302.00482).
    """

    event_shape: ImageShape
    hidden_channels: Widths = Field(
        (32, 64), min_length=1, description="At each resolution, the finest first; each halves it."
    )
    num_residual_blocks: int = Field(
        1,
        ge=0,
        le=MOST_REPEATS,
        description="At each resolution on the way down; one more on the way up.",
    )
    attention_factors: Factors = Field(
        (),
        description="Where attention follows every residual block: 1 for the image's resolution, "
        "2 for its half, 4, ...; in the middle there always is one.",
    )
    num_heads: PositiveInt = Field(1, description="Of the attention.")
    num_heads_up: PositiveInt | None = Field(
        None, description="Of the attention on the way up; null for `num_heads`."
    )
    head_channels: PositiveInt | None = Field(
        None, description="Channels of a head, which then say how many heads there are."
    )
    time_features: PositiveInt = Field(
        32, description="Cosines and sines of the time; its embedding is four times as long."
    )
    num_groups: PositiveInt = Field(32, description="Of the group norms; divides all channels.")
    scale_shift_norm: bool = Field(
        False,
        description="Time and class scale and shift what is normalised; else they are added.",
    )
    residual_resampling: bool = Field(
        False, description="Residual blocks halve and double the image."
    )
    learned_resampling: bool = Field(
        True, description="Convolutions do, where residual blocks do not; else means and copies."
    )
    num_classes: PositiveInt | None = Field(
        None, description="Makes the flow conditional on the label: the context is its one-hot."
    )
    data_time: DataTime = Field(
        "end", description="The data are at time 0 (FFJORD), or at T (flow matching)."
    )
    preprocessing: Preprocessing = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        check_sides(
            self.event_shape,
            len(self.hidden_channels) - 1,
            "number of hidden_channels - 1",
            "give fewer hidden_channels",
        )
        for channels in self.hidden_channels:
            if channels % self.num_groups:
                raise ValueError(
                    f"hidden_channels: expected numbers that num_groups = {self.num_groups} "
                    f"divides, got {channels}"
                )
        for factor in self.attention_factors:
            if factor not in self.factors:
                raise ValueError(
                    f"attention_factors: expected some of {', '.join(map(str, self.factors))}, "
                    f"got {factor}"
                )
        self._check_heads()
        return self

    def _check_heads(self) -> None:
        blocks = self.num_residual_blocks
        middle = self.hidden_channels[-1 if blocks else 0]
        mixed = {self.hidden_channels[self.factors.index(f)] for f in self.attention_factors}
        heads = ("num_heads", "num_heads_up")
        for name in heads if self.head_channels is None else ("head_channels",):
            size = getattr(self, name)
            for channels in sorted({*mixed, middle}):
                if size is not None and channels % size:
                    raise ValueError(f"{name}: expected a divisor of {channels}, got {size}")

    @property
    def factors(self) -> list[int]:
        """By how much each resolution is coarser than the image."""
        return [2**level for level in range(len(self.hidden_channels))]


def build_cnf_unet(config: CNFUNetConfig) -> Flow:
    """Build a continuous flow over images.

    Raises:
        ValueError: if the preprocessing does not fit the event.
    """
    preprocessing, facts = build_preprocessing(config.preprocessing, config.event_shape)
    dynamics = UNetDynamics(config.event_shape, unet_settings(config))
    block = build_continuous(config, dynamics)
    facts = dataclasses.replace(facts, num_classes=config.num_classes)
    return Flow(
        [*preprocessing, block, Flatten(config.event_shape)],
        config.event_shape,
        context_shape=None if config.num_classes is None else (config.num_classes,),
        facts=note_trace(facts, config.divergence, [block]),
    )


def unet_settings(config: CNFUNetConfig) -> UNetSettings:
    """What the configuration says of the network."""
    names = {field.name for field in dataclasses.fields(UNetSettings)} - {"channels"}
    given = {name: getattr(config, name) for name in names}
    return UNetSettings(channels=config.hidden_channels, **given)
