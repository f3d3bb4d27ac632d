"""Scaling by learned constants."""

import torch
from torch import Tensor, nn

from models.transforms.transform import Transform, constant_log_det


class Scale(Transform):
    """y_i = exp(s_i) x_i for vectors (B, D); log_det = sum_i s_i.

    What lets a stack of additive, hence volume preserving, couplings change volume.

    Reference: Dinh et al. 2014, NICE, section 3.3 (arXiv 1410.8516).
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(features))

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x * self.log_scale.exp(), constant_log_det(self.log_scale.sum(), x)

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return y * (-self.log_scale).exp(), constant_log_det(-self.log_scale.sum(), y)
