"""The U-Net of guided diffusion as a vector field over images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from models.ode.fields.dual import Dual, convolve, join_channels, normalise_groups, silu
from models.ode.fields.dynamics import Dynamics
from models.ode.fields.unet_layers import (
    Attention,
    Embedding,
    Resample,
    Resampling,
    ResidualBlock,
    TimeEmbedding,
    UNetPart,
)
from models.row_sum import row_sum


@dataclass(frozen=True, slots=True)
class UNetSettings:
    """What a U-Net is built of.

    channels: at every resolution, the finest first; each is half the one before.
    num_residual_blocks: at every resolution; one more on the way up.
    attention_factors: where attention follows every residual block: 1 for the image's own
        resolution, 2 for its half, 4, ...
    num_heads: of the attention.
    num_heads_up: on the way up; None for `num_heads`.
    head_channels: channels of a head, instead of a number of heads.
    time_features: cosines and sines of the time; its embedding is four times as long.
    num_groups: of the group norms.
    scale_shift_norm: the embedding scales and shifts what is normalised, else it is added before.
    residual_resampling: a residual block halves or doubles the image, else a `Resample`.
    learned_resampling: by convolutions; of no effect with residual_resampling.
    num_classes: length of the one-hot context, None where there is none.
    """

    channels: tuple[int, ...]
    num_residual_blocks: int = 1
    attention_factors: tuple[int, ...] = ()
    num_heads: int = 1
    num_heads_up: int | None = None
    head_channels: int | None = None
    time_features: int = 32
    num_groups: int = 32
    scale_shift_norm: bool = False
    residual_resampling: bool = False
    learned_resampling: bool = True
    num_classes: int | None = None

    @property
    def embedding_features(self) -> int:
        """Length of the embedding of time and class."""
        return 4 * self.time_features

    def heads(self, channels: int, *, up: bool = False) -> int:
        """How many heads attention over so many channels has."""
        if self.head_channels is not None:
            return channels // self.head_channels
        return self.num_heads_up or self.num_heads if up else self.num_heads


class UNetDynamics(Dynamics):
    """f(t, x, y): residual blocks down to coarse resolutions and up again, each joined to its twin.

    With `num_classes` the context is the one-hot class y, whose embedding is added to that of t.

    Args:
        shape: (C, H, W); H and W divisible by 2 for every resolution but the first.
        settings: what it is built of.

    **Cost** of the exact trace: D tangents through the whole network.

    Reference: Dhariwal & Nichol 2021, Diffusion Models Beat GANs (arXiv 2105.05233), appendix A;
    for velocities: Tong et al. 2024 (arXiv 2302.00482), appendix E.
    """

    most_exact_probes = 64

    def __init__(self, shape: tuple[int, int, int], settings: UNetSettings) -> None:
        super().__init__(shape)
        self.settings = settings
        self._width = 0
        self._size = shape[1:]
        self.time_embedding = TimeEmbedding(settings.time_features, settings.embedding_features)
        if settings.num_classes is not None:
            self.class_embedding = nn.Linear(
                settings.num_classes, settings.embedding_features, bias=False
            )
        first = settings.channels[0]
        self.first = nn.Conv2d(shape[0], first, 3, padding=1)
        joined = [first]
        self.down = nn.ModuleList(self._down(joined))
        level, coarsest = len(settings.channels) - 1, joined[-1]
        self.middle = nn.ModuleList(
            [
                self._block(level, coarsest, coarsest),
                self._attention(level, coarsest, up=False),
                self._block(level, coarsest, coarsest),
            ]
        )
        self.up = nn.ModuleList(self._up(joined))
        self.norm = nn.GroupNorm(settings.num_groups, first)
        self.last = nn.Conv2d(first, shape[0], 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(cast(Tensor, self.last.bias))

    @property
    def width(self) -> int:
        """Numbers a row takes at its widest place."""
        return self._width

    def velocity(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """dx/dt.   t (B, 1), x (B, C, H, W), context (B, num_classes) -> (B, C, H, W)."""
        return self._run(t, convolve(self.first, Dual(x)), context).value

    def velocity_and_forms(
        self, t: Tensor, x: Tensor, probes: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """dx/dt and e_k^T (df/dx) e_k, the probes pushed along as tangents.

        Args:
            probes: (K, C, H, W) for all rows, or (B, K, C, H, W).

        Returns:
            (B, C, H, W) and (B, K).
        """
        dx = self._run(t, self._enter(x, probes), context)
        tangents = cast(Tensor, dx.tangents)
        return dx.value, row_sum((tangents * probes).flatten(2), 2)

    def _enter(self, x: Tensor, probes: Tensor) -> Dual:
        """The first convolution of x and of the probes."""
        if probes.dim() > x.dim():
            return convolve(self.first, Dual(x, probes))
        # The same for all rows, so they go through it once; 0 in every row, and known only from the
        # rows: in a graph a constant would be one row.
        value = self.first(x)
        pushed = F.conv2d(probes, self.first.weight, None, padding=1)
        return Dual(value, pushed + (0 * value).unsqueeze(1))

    def _run(self, t: Tensor, h: Dual, context: Tensor | None) -> Dual:
        """The rest, from what the first convolution gave."""
        embedding = self.time_embedding(t)
        if context is not None:
            embedding = embedding + self.class_embedding(context)
        embedding = F.silu(embedding)
        joined = [h]
        for stage in self.down:
            h = _apply(stage, h, embedding)
            joined.append(h)
        h = _apply(self.middle, h, embedding)
        for stage in self.up:
            h = _apply(stage, join_channels(h, joined.pop()), embedding)
        return convolve(self.last, silu(normalise_groups(self.norm, h)))

    def _down(self, joined: list[int]) -> list[nn.ModuleList]:
        """The stages down; notes the channels that each hands over."""
        stages: list[nn.ModuleList] = []
        channels = joined[0]
        for level, wanted in enumerate(self.settings.channels):
            for _ in range(self.settings.num_residual_blocks):
                stages.append(self._stage(level, channels, wanted, up=False))
                channels = wanted
                joined.append(channels)
            if level < len(self.settings.channels) - 1:
                stages.append(nn.ModuleList([self._resample(level, channels, "halve")]))
                joined.append(channels)
        return stages

    def _up(self, joined: list[int]) -> list[nn.ModuleList]:
        """The stages up, which take from the last of `joined` on."""
        stages: list[nn.ModuleList] = []
        channels = joined[-1]
        left = list(joined)
        for level, wanted in reversed(list(enumerate(self.settings.channels))):
            for _ in range(self.settings.num_residual_blocks + 1):
                stages.append(self._stage(level, channels + left.pop(), wanted, up=True))
                channels = wanted
            if level:
                stages[-1].append(self._resample(level - 1, channels, "double"))
        return stages

    def _stage(self, level: int, channels: int, wanted: int, *, up: bool) -> nn.ModuleList:
        stage = nn.ModuleList([self._block(level, channels, wanted)])
        if 2**level in self.settings.attention_factors:
            stage.append(self._attention(level, wanted, up=up))
        return stage

    def _block(
        self,
        level: int,
        channels: int,
        wanted: int,
        *,
        resampling: Resampling | None = None,
    ) -> UNetPart:
        settings = self.settings
        embedding = Embedding(settings.embedding_features, settings.scale_shift_norm)
        self._width = max(self._width, self._pixels(level) * max(channels, wanted))
        return ResidualBlock(
            channels, wanted, embedding, settings.num_groups, resampling=resampling
        )

    def _resample(self, level: int, channels: int, resampling: Resampling) -> UNetPart:
        """Between a resolution and the next coarser one."""
        if self.settings.residual_resampling:
            return self._block(level, channels, channels, resampling=resampling)
        return Resample(channels, resampling, learned=self.settings.learned_resampling)

    def _attention(self, level: int, channels: int, *, up: bool) -> UNetPart:
        pixels, heads = self._pixels(level), self.settings.heads(channels, up=up)
        self._width = max(self._width, heads * pixels**2, 3 * channels * pixels)
        return Attention(channels, heads, self.settings.num_groups)

    def _pixels(self, level: int) -> int:
        height, width = self._size
        return (height >> level) * (width >> level)


def _apply(stage: nn.Module, h: Dual, embedding: Tensor) -> Dual:
    for part in cast(Sequence[UNetPart], stage):
        h = part(h, embedding)
    return h
