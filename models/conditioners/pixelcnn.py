"""Gated masked convolutions: parameters of each value of an image from the values before it.

"Before" is row by row, column by column, and inside a pixel channel by channel. Two stacks see that
without a blind spot: one the rows above, one what stands to the left in the same row.

Reference: van den Oord et al. 2016, Conditional Image Generation with PixelCNN Decoders, figure 2
(arXiv 1606.05328); with images of one row these are WaveNet's causal convolutions, van den Oord et
al. 2016, figure 3 (arXiv 1609.03499).
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.ode.while_loop import Carry
from models.transforms.rows import RowNetwork

Padding = tuple[int, int, int, int]


class MaskedConv2d(nn.Module):
    """A convolution of a padded image, whose last tap connects some channels alone.

    Args:
        inputs, outputs: channels.
        kernel: rows and columns.
        padding: left, right, top and bottom.
        dilation: between the taps.
        mask: (outputs, inputs), 1 where the last tap connects; None: everywhere.
    """

    mask: Tensor | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int] = (1, 1),
        *,
        padding: Padding = (0, 0, 0, 0),
        dilation: int = 1,
        mask: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, dilation=dilation)
        self.padding = padding
        if mask is not None:
            full = torch.ones_like(self.conv.weight)
            full[:, :, -1, -1] = mask
            mask = full
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, inputs, H, W) -> (B, outputs, H, W)."""
        return self._convolve(x, self.padding)

    def last_row(self, x: Tensor) -> Tensor:
        """The last row alone, of as many rows as it sees: (B, outputs, 1, W)."""
        return self._convolve(x, (*self.padding[:2], 0, 0))

    def _convolve(self, x: Tensor, padding: Padding) -> Tensor:
        weight = self.conv.weight if self.mask is None else self.conv.weight * self.mask
        found: Tensor = F.conv2d(
            F.pad(x, padding), weight, self.conv.bias, dilation=self.conv.dilation
        )
        return found


class GatedLayer(nn.Module):
    """One layer of both stacks.

    Args:
        groups: of each of the hidden channels: the channel of the image that it stands for.
        kernel: side of the convolutions, odd.
        dilation: between their taps.
        has_rows: whether there are rows above others; without, there is one stack.
        num_classes: of a conditional network, 0 for none.
    """

    def __init__(
        self, groups: Tensor, kernel: int, dilation: int, *, has_rows: bool, num_classes: int
    ) -> None:
        super().__init__()
        width, half = len(groups), kernel // 2
        self.horizontal = _columns_before(
            width, 2 * width, half, dilation, connected(groups.repeat(2), groups)
        )
        self.vertical = _rows_above(width, 2 * width, half, dilation) if has_rows else None
        self.across = nn.Conv2d(2 * width, 2 * width, 1) if has_rows else None
        self.residual = MaskedConv2d(width, width, mask=connected(groups, groups))
        self.classes = nn.Linear(num_classes, 4 * width, bias=False) if num_classes else None

    def forward(
        self, above: Tensor | None, left: Tensor, context: Tensor | None
    ) -> tuple[Tensor | None, Tensor]:
        """Compute both stacks, each (B, width, H, W)."""
        horizontal = self.horizontal(left)
        bias_above, bias_left = self._biases(context)
        horizontal = horizontal + bias_left
        if self.vertical is not None and self.across is not None:
            above = self.vertical(above)
            horizontal = horizontal + self.across(shifted_down(above))
            above = _gated(above + bias_above)
        return above, left + self.residual(_gated(horizontal))

    def pass_on(self, rows: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """A row of the vertical stack, from as many rows as it sees.

        Returns:
            (B, 2 width, 1, W) for the row below, and (B, width, 1, W) for the next layer.
        """
        vertical = cast(MaskedConv2d, self.vertical).last_row(rows)
        return vertical, _gated(vertical + self._biases(context)[0])

    def receive(self, vertical: Tensor, context: Tensor | None) -> Tensor:
        """What the vertical stack says to the row below."""
        received: Tensor = cast(nn.Conv2d, self.across)(vertical) + self._biases(context)[1]
        return received

    def in_row(self, left: Tensor, received: Tensor) -> Tensor:
        """A row of the horizontal stack, (B, width, 1, W)."""
        found: Tensor = left + self.residual(_gated(self.horizontal(left) + received))
        return found

    def _biases(self, context: Tensor | None) -> tuple[Tensor | float, Tensor | float]:
        if self.classes is None or context is None:
            return 0.0, 0.0
        above, left = self.classes(context)[:, :, None, None].chunk(2, 1)
        return above, left


class PixelCNN(RowNetwork):
    """Logits of all values of an image from those before each: (B, C H W) -> (B, L C H W).

    Values lie in [0, 1); what is seen of one is which of `levels` equal bins holds it.

    Args:
        shape: (C, H, W).
        levels: L.
        width: hidden channels, a multiple of C.
        kernel: side of the convolutions, odd.
        dilations: of the layers in order.
        num_classes: of a conditional network, 0 for none; the context is one-hot.

    Raises:
        ValueError: the width is no multiple of the channels, or the kernel is even.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        levels: int,
        *,
        width: int,
        kernel: int,
        dilations: Sequence[int],
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        channels = shape[0]
        if width % channels:
            raise ValueError(f"width: expected a multiple of {channels} channels, got {width}")
        if kernel % 2 == 0:
            raise ValueError(f"kernel: expected an odd number, got {kernel}")
        self.shape = shape
        self.levels = levels
        self.width = width
        of_image = torch.arange(channels)
        groups = of_image.repeat_interleave(width // channels)
        half = kernel // 2
        has_rows = shape[1] > 1
        before = connected(groups, of_image, strictly=True)
        self.first_horizontal = _columns_before(channels, width, half, 1, before)
        self.first_vertical = _rows_above(channels, width, half, 1) if has_rows else None
        self.first_across = nn.Conv2d(width, width, 1) if has_rows else None
        self.layers = nn.ModuleList(
            GatedLayer(groups, kernel, dilation, has_rows=has_rows, num_classes=num_classes)
            for dilation in dilations
        )
        self.hidden = MaskedConv2d(width, width, mask=connected(groups, groups))
        outputs = of_image.repeat_interleave(levels)
        self.exit = MaskedConv2d(width, len(outputs), mask=connected(outputs, groups))
        nn.init.zeros_(self.exit.conv.weight)
        nn.init.zeros_(cast(Tensor, self.exit.conv.bias))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Compute the logits: blocks of all values, one block a level."""
        image = self._image(x.reshape(-1, *self.shape))
        above, left = None, self.first_horizontal(image)
        if self.first_vertical is not None and self.first_across is not None:
            above = self.first_vertical(image)
            left = left + self.first_across(shifted_down(above))
        for layer in self.layers:
            above, left = layer(above, left, context)
        return self._logits(left)

    @property
    def goes_by_rows(self) -> bool:
        """Whether the vertical stack sees rows above."""
        return self.first_vertical is not None and self.first_vertical.padding[2] > 0

    def first_row(self, like: Tensor, context: Tensor | None) -> tuple[Tensor, Carry]:
        """Zeros above the image, as many rows as each convolution of the vertical stack sees."""
        weight = self.exit.conv.weight

        def blank(channels: int, rows: int) -> Tensor:
            return weight.new_zeros(len(like), channels, rows, self.shape[2])

        kept = tuple(
            blank(conv.conv.in_channels, conv.padding[2]) for conv in self._vertical_layers()
        )
        said = [blank(2 * self.width, 1) for _ in self.layers]
        return self._receive(blank(self.width, 1), said, context), kept

    def next_row(self, row: Tensor, kept: Carry, context: Tensor | None) -> tuple[Tensor, Carry]:
        """Move the vertical stack on by a row."""
        first = cast(MaskedConv2d, self.first_vertical)
        rows = torch.cat((kept[0], self._image(row)), 2)
        windows, said = [rows], []
        lowest = above = first.last_row(rows)
        for layer, rows_above in zip(self.layers, kept[1:], strict=True):
            windows.append(torch.cat((rows_above, above), 2))
            vertical, above = cast(GatedLayer, layer).pass_on(windows[-1], self._narrow(context))
            said.append(vertical)
        return self._receive(lowest, said, context), tuple(rows[:, :, 1:] for rows in windows)

    def in_row(self, row: Tensor, received: Tensor) -> Tensor:
        """The horizontal stack of a row."""
        channels, _, width = self.shape
        image = self._image(row.reshape(-1, channels, 1, width))
        left = self.first_horizontal(image) + received.narrow(1, 0, self.width)
        for index, layer in enumerate(self.layers):
            # Not by one split: its sizes would be refused in a graph, as those of a huge tensor.
            part = received.narrow(1, self.width * (1 + 2 * index), 2 * self.width)
            left = cast(GatedLayer, layer).in_row(left, part)
        return self._logits(left)

    def _receive(self, first: Tensor, others: Sequence[Tensor], context: Tensor | None) -> Tensor:
        """What the vertical stack says to the row below, of all layers together."""
        received = [cast(nn.Conv2d, self.first_across)(first)]
        given = self._narrow(context)
        received += [
            cast(GatedLayer, layer).receive(vertical, given)
            for layer, vertical in zip(self.layers, others, strict=True)
        ]
        return torch.cat(received, 1)

    def _vertical_layers(self) -> list[MaskedConv2d]:
        layers = (cast(GatedLayer, layer).vertical for layer in self.layers)
        return [cast(MaskedConv2d, conv) for conv in (self.first_vertical, *layers)]

    def _image(self, x: Tensor) -> Tensor:
        """Levels between -1 and 1, in the dtype of the weights."""
        levels = (x * self.levels).floor().clamp(0, self.levels - 1)
        return (levels * (2 / (self.levels - 1)) - 1).to(self.exit.conv.weight.dtype)

    def _narrow(self, context: Tensor | None) -> Tensor | None:
        return None if context is None else context.to(self.exit.conv.weight.dtype)

    def _logits(self, left: Tensor) -> Tensor:
        """(B, width, rows, W) -> (B, L C rows W)."""
        raw = self.exit(F.relu(self.hidden(F.relu(left))))
        channels, _, width = self.shape
        blocks: Tensor = raw.reshape(-1, channels, self.levels, raw.shape[2], width)
        return blocks.transpose(1, 2).flatten(1)


def connected(outputs: Tensor, inputs: Tensor, *, strictly: bool = False) -> Tensor:
    """Which channels of the pixel itself a channel may see: those before its own, or up to it.

    Args:
        outputs: the image's channel that each output stands for.
        inputs: that of each input.
        strictly: whether its own is left out.

    Returns:
        (outputs, inputs) of 0 and 1.
    """
    sees = inputs < outputs[:, None] if strictly else inputs <= outputs[:, None]
    return sees.to(torch.get_default_dtype())


def shifted_down(x: Tensor) -> Tensor:
    """Every row in the place of the one below it; the first is zeros."""
    return F.pad(x[:, :, :-1], (0, 0, 1, 0))


def _rows_above(inputs: int, outputs: int, half: int, dilation: int) -> MaskedConv2d:
    """A convolution over a row and those above it, to both sides."""
    reach = half * dilation
    kernel, padding = (half + 1, 2 * half + 1), (reach, reach, reach, 0)
    return MaskedConv2d(inputs, outputs, kernel, padding=padding, dilation=dilation)


def _columns_before(
    inputs: int, outputs: int, half: int, dilation: int, mask: Tensor
) -> MaskedConv2d:
    """A convolution over a pixel and those to its left."""
    padding = (half * dilation, 0, 0, 0)
    return MaskedConv2d(
        inputs, outputs, (1, half + 1), padding=padding, dilation=dilation, mask=mask
    )


def _gated(x: Tensor) -> Tensor:
    value, gate = x.chunk(2, 1)
    return value.tanh() * gate.sigmoid()
