"""Permutations of the features of a vector or the channels of an image."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.transforms.transform import Transform, constant_log_det


class Permute(Transform):
    """y_i = x_{indices[i]} along axis 1: features of (B, D), channels of (B, C, H, W). log_det = 0.

    The indices are saved with the weights: they may have been drawn at random.

    Raises:
        ValueError: if the indices, given or loaded, are not a permutation of 0 .. C - 1.
    """

    indices: Tensor
    back: Tensor

    def __init__(self, indices: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("indices", torch.tensor(indices, dtype=torch.int64))
        self.register_buffer("back", torch.empty(0, dtype=torch.int64), persistent=False)
        self._prepare()
        nn.Module.register_load_state_dict_post_hook(self, Permute._prepare)

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.index_select(1, self.indices), constant_log_det(0, x)

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return y.index_select(1, self.back), constant_log_det(0, y)

    def _prepare(self, _keys: Any = None) -> None:
        """Check the indices and find the way back, at construction and after loading."""
        ordered, back = self.indices.sort()
        if not torch.equal(ordered, torch.arange(len(ordered), device=ordered.device)):
            raise ValueError(
                f"indices: expected a permutation of 0 .. {len(ordered) - 1}, "
                f"got {self.indices.tolist()}"
            )
        self.back = back


def reverse(features: int) -> Permute:
    """The permutation that puts the last first."""
    return Permute(range(features)[::-1])


def shuffle(features: int) -> Permute:
    """A permutation drawn from torch's generator."""
    return Permute(torch.randperm(features).tolist())
