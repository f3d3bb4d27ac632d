"""The trace of a dense field's Jacobian for inference: what the weights alone decide is done."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.ode.fields.dense import trace_of_product
from models.ode.fields.dense_layers import Affine
from models.row_sum import row_sum

# Products of weights are kept up to this many numbers: beyond, reading them costs more than the
# fewer operations save.
_MOST_NUMBERS = 2**18


def fold_trace(weights: Sequence[Tensor], *, gated: bool) -> nn.Module:
    """The fastest form of the trace of diag(g) W_n diag(s_n-1) W_n-1 ... diag(s_1) W_1.

    Args:
        weights: W_1 (H, D) to W_n (D, H').
        gated: whether there is a g.

    Returns:
        A module of the slopes s_l (N, H_l) and of g (N, D) or None.   -> (N,) or ().
    """
    features, hidden = weights[0].shape[1], len(weights) - 1
    pairs = hidden == 3 or (hidden == 2 and gated)
    if pairs and features * weights[1].numel() <= _MOST_NUMBERS:
        return _Paired(weights)
    return Pushed(weights)


class Pushed(nn.Module):
    """The unit vectors pushed along, layer by layer."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(w, requires_grad=False) for w in weights)

    def forward(self, slopes: list[Tensor], gate: Tensor | None) -> Tensor:
        weights: list[Tensor] = list(self.weights)
        layers = [Affine(weight, weight.new_zeros(())) for weight in weights]
        layers[-1] = layers[-1]._replace(gate=gate)
        return trace_of_product(layers, slopes, slice(None))


class _Paired(nn.Module):
    """sum_i g_i sum_j s2_j A_ij B_ij for two or three hidden layers.

    A_ij = sum_k W2_jk s1_k W1_ki and B_ij = sum_l W4_il s3_l W3_lj are each one product with a
    matrix of weights; with two hidden layers, B is W3 and part of A.
    """

    left: Tensor
    right: Tensor | None

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()
        first, second, *others = (weight.detach().double() for weight in weights)
        left = torch.einsum("jk,ki->kij", second, first)
        right = None
        if len(others) == 1:
            left = left * others[0]
        else:
            right = torch.einsum("il,lj->lij", others[1], others[0])
        self.shape = (first.shape[1], second.shape[0])
        for name, product in (("left", left), ("right", right)):
            kept = None if product is None else product.flatten(1).to(weights[0].dtype)
            self.register_buffer(name, kept)

    def forward(self, slopes: list[Tensor], gate: Tensor | None) -> Tensor:
        pairs = slopes[0] @ self.left
        if self.right is not None:
            pairs = pairs * (slopes[2] @ self.right)
        pairs = pairs.view(len(pairs), *self.shape)
        diagonal = (pairs @ slopes[1].unsqueeze(2)).squeeze(2)
        return row_sum(diagonal if gate is None else diagonal * gate, 1)
