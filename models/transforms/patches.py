"""Images as tokens: which number of a flattened image is where in a sequence of patches."""

from typing import Literal

import torch
from torch import Tensor

PatchOrder = Literal["channel_first", "channel_last"]


def patch_indices(
    shape: tuple[int, int, int], patch_size: int, order: PatchOrder = "channel_first"
) -> list[int]:
    """Where the numbers of patches lie in an image (C, H, W) that was flattened row by row.

    Tokens are the patches, row by row; inside one, channel_first: channel, row, column (torch's
    `unfold`); channel_last: row, column, channel.

    Returns:
        C H W indices: the first C patch_size^2 are those of the first token, and so on.

    Raises:
        ValueError: the sides are no multiples of the patch's.
    """
    channels, height, width = shape
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"patch_size: expected a divisor of height and width, {height} x {width}, got "
            f"{patch_size}"
        )
    places = torch.arange(channels * height * width).view(
        channels, height // patch_size, patch_size, width // patch_size, patch_size
    )
    axes = (1, 3, 0, 2, 4) if order == "channel_first" else (1, 3, 2, 4, 0)
    return places.permute(axes).flatten().tolist()


def reversed_tokens(features: int, size: int) -> list[int]:
    """Where the numbers of tokens lie once the tokens are in the other order, each as it is.

    Args:
        features: of all tokens.
        size: of one.
    """
    starts = range(features - size, -1, -size)
    return [place for start in starts for place in range(start, start + size)]


def channel_split(tokens: int, order: Tensor) -> list[int]:
    """The numbers of all tokens, those in the first half of `order` before the others.

    Args:
        tokens: how many.
        order: of the numbers of one token, (c,).

    Returns:
        Their places in the tokens one behind the other.
    """
    starts = torch.arange(tokens)[:, None] * len(order)
    halves = [starts + half for half in order.tensor_split(2)]
    return torch.cat([half.flatten() for half in halves]).tolist()


def spatial_split(order: Tensor, size: int) -> list[int]:
    """The tokens in an order, each whole.

    Args:
        order: of the tokens, (T,).
        size: of one.

    Returns:
        The places of their numbers in the tokens one behind the other.
    """
    return (order[:, None] * size + torch.arange(size)).flatten().tolist()
