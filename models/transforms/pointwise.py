"""Scalar maps with parameters of their own, the same for every row."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.transforms.elementwise import Elementwise
from models.transforms.transform import Transform, sum_event


class Pointwise(Transform):
    """y_i = f(x_i; phi_i) for the chosen features of (B, D), with learned phi; the others pass.

    Behind a coupling this is the unconditional map of the kept half: the coupling's conditioner has
    seen the half before the map, in both directions.

    Args:
        features: D.
        chosen: which features are mapped.
        elementwise: the scalar map f.

    Reference: Durkan et al. 2019, eqs. 4-6 (arXiv 1906.04032).
    """

    chosen: Tensor

    def __init__(self, features: int, chosen: Sequence[int], elementwise: Elementwise) -> None:
        super().__init__()
        if sorted(set(chosen)) != list(chosen) or not chosen or chosen[-1] >= features:
            raise ValueError(
                f"chosen: expected ascending features below {features}, got {list(chosen)}"
            )
        self.register_buffer("chosen", torch.tensor(chosen), persistent=False)
        self.elementwise = elementwise
        first = torch.tensor(elementwise.first_params())
        self.params = nn.Parameter(first[:, None].repeat(1, len(chosen)))

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        moved, params = self._moved_and_params(x)
        moved, log_slope = self.elementwise.encode(moved, params)
        return x.index_copy(1, self.chosen, moved), sum_event(log_slope)

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        moved, params = self._moved_and_params(y)
        moved, log_slope = self.elementwise.decode(moved, params)
        return y.index_copy(1, self.chosen, moved), sum_event(log_slope)

    def _moved_and_params(self, value: Tensor) -> tuple[Tensor, Tensor]:
        moved = value.index_select(1, self.chosen)
        return moved, self.params.T.expand(*moved.shape, -1)
