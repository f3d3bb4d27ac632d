"""Coupling: one part of the event stays and says what is done to the other."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.transforms.elementwise import Elementwise, unpack_params
from models.transforms.transform import Transform, sum_event


class Coupling(Transform):
    """y_keep = x_keep,  y_move = f(x_move; net(x_keep, context)), split along axis 1.

    Serves vectors (B, D) and images (B, C, H, W) alike: the mask runs over features or channels.
    The conditioner sees the kept entries alone and computes parameters for the moved ones alone,
    `elementwise.num_params` blocks of them along axis 1 (see `unpack_params`).

    Args:
        mask: one entry a feature or channel, 1 = kept (RealNVP's convention).
        conditioner: (B, sum(mask), ...), context -> (B, num_params * (C - sum(mask)), ...).
        elementwise: the scalar map of the moved entries.

    Raises:
        ValueError: if the mask keeps or moves nothing.

    Reference: Dinh et al. 2017, eqs. 4-8 (arXiv 1605.08803).
    """

    keep: Tensor
    move: Tensor
    restore: Tensor

    def __init__(
        self, mask: Sequence[int], conditioner: nn.Module, elementwise: Elementwise
    ) -> None:
        super().__init__()
        keep = [index for index, flag in enumerate(mask) if flag]
        move = [index for index, flag in enumerate(mask) if not flag]
        if not keep or not move:
            raise ValueError(f"mask: expected some ones and some zeros, got {list(mask)}")
        self.register_buffer("keep", torch.tensor(keep), persistent=False)
        self.register_buffer("move", torch.tensor(move), persistent=False)
        self.register_buffer("restore", torch.tensor(keep + move).argsort(), persistent=False)
        self.conditioner = conditioner
        self.elementwise = elementwise

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        kept, moved, params = self._split(x, context)
        moved, log_slope = self.elementwise.encode(moved, params)
        return self._join(kept, moved), sum_event(log_slope)

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        kept, moved, params = self._split(y, context)
        moved, log_slope = self.elementwise.decode(moved, params)
        return self._join(kept, moved), sum_event(log_slope)

    def _split(self, value: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        kept, moved = value.index_select(1, self.keep), value.index_select(1, self.move)
        raw = self.conditioner(kept, context)
        return kept, moved, unpack_params(raw, self.elementwise.num_params)

    def _join(self, kept: Tensor, moved: Tensor) -> Tensor:
        return torch.cat((kept, moved), 1).index_select(1, self.restore)


class CheckerboardCoupling(Transform):
    """y = b x + (1 - b) f(x; net(b x, context)), with b a checkerboard over the pixels.

    Args:
        parity: b[i, j] = (i + j + parity) mod 2, so with parity 0 the top-left pixel moves.
        conditioner: (B, C, H, W), context -> (B, num_params * C, H, W).

    Reference: Dinh et al. 2017, section 3.4, figure 3 (arXiv 1605.08803).
    """

    def __init__(self, parity: int, conditioner: nn.Module, elementwise: Elementwise) -> None:
        super().__init__()
        if parity not in (0, 1):
            raise ValueError(f"parity: expected 0 or 1, got {parity}")
        self.parity = parity
        self.conditioner = conditioner
        self.elementwise = elementwise

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mask, params = self._mask_and_params(x, context)
        moved, log_slope = self.elementwise.encode(x, params)
        return torch.where(mask, x, moved), sum_event(log_slope.masked_fill(mask, 0))

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mask, params = self._mask_and_params(y, context)
        moved, log_slope = self.elementwise.decode(y, params)
        return torch.where(mask, y, moved), sum_event(log_slope.masked_fill(mask, 0))

    def _mask_and_params(self, value: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        mask = checkerboard(value.shape[-2], value.shape[-1], self.parity, device=value.device)
        raw = self.conditioner(value.masked_fill(~mask, 0), context)
        return mask, unpack_params(raw, self.elementwise.num_params)


def checkerboard(
    height: int, width: int, parity: int = 0, *, device: torch.device | None = None
) -> Tensor:
    """b[i, j] = (i + j + parity) mod 2 as booleans, True = kept.

    Returns:
        (height, width).
    """
    rows = torch.arange(height, device=device)[:, None]
    columns = torch.arange(width, device=device)[None, :]
    return (rows + columns + parity) % 2 == 1


def alternating_mask(features: int, parity: int = 0) -> list[int]:
    """(0, 1, 0, 1, ...) for parity 0, its complement for parity 1; 1 = kept."""
    return [(index + parity) % 2 for index in range(features)]


def half_mask(features: int, *, keep_first: bool) -> list[int]:
    """Keep the first half of the features, or the second; the first half is never the larger."""
    first = features // 2
    return [int((index < first) == keep_first) for index in range(features)]
