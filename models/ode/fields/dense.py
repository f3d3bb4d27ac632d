"""Fully connected vector fields, with the trace of their Jacobian in closed form."""

import math
from itertools import pairwise
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from models.ode.fields.activations import Activation, Nonlinearity, activation
from models.ode.fields.dense_layers import Affine, DenseLayer, DenseLayerType, dense_layer
from models.ode.fields.dynamics import Dynamics
from models.row_sum import row_sum

TimeInput = Literal["none", "fourier", "last"]


class DenseDynamics(Dynamics):
    """A stack of dense layers, each of which may depend on the time.

    f = L_n(t, sigma(... sigma(L_1(t, u)))), minus x if `residual`. Layer types:

    - ignore: W h + b
    - concat: W [t; h] + b
    - squash: (W h + b) * sigmoid(a t + c)
    - concatsquash: (W h + b) * sigmoid(a t + c) + d t
    - blend: (1 - t) (W0 h + b0) + t (W1 h + b1)
    - hyper: W(t) h + b(t), both from a network of t

    The first input u is made of x, the context c and, by `time_input`, the time:
    none: [x, c] (FFJORD), fourier: [cos(w t), sin(w t), x, c] (zuko), last: [x, c, t] (torchcfm).

    Args:
        features: D.
        hidden_features: widths of the hidden layers; none makes f affine in x.
        layer_type: one of the above.
        nonlinearity: sigma, after every layer but the last.
        time_input: how the time enters u.
        num_frequencies: for "fourier", w = pi (1, ..., n).
        context_features: width of a flat context.
        residual: f(t, x) - x.

    **Cost** of the exact trace, multiply-adds a row: D H with one hidden layer, H^2 with two where
    the last layer has no gate, else D H^2 for every hidden layer after the first.

    Reference: Grathwohl et al. 2019, FFJORD, appendix B.1 (arXiv 1810.01367).
    """

    frequencies: Tensor

    def __init__(
        self,
        features: int,
        hidden_features: tuple[int, ...],
        *,
        layer_type: DenseLayerType = "concatsquash",
        nonlinearity: Nonlinearity = "tanh",
        time_input: TimeInput = "none",
        num_frequencies: int = 0,
        context_features: int = 0,
        residual: bool = False,
    ) -> None:
        super().__init__((features,))
        if layer_type not in get_args(DenseLayerType):
            known = ", ".join(get_args(DenseLayerType))
            raise ValueError(f"layer_type: expected one of {known}; got {layer_type!r}")
        if (time_input == "fourier") != (num_frequencies > 0):
            raise ValueError(
                f"num_frequencies: expected 1 or more for time_input 'fourier' and 0 for others, "
                f"got {num_frequencies} for {time_input!r}"
            )
        self.time_input = time_input
        self.residual = residual
        self.context_features = context_features
        # Where x stands among the first layer's inputs.
        start = 2 * num_frequencies
        self.columns = slice(start, start + features)
        inputs = start + features + context_features + (time_input == "last")
        widths = (inputs, *hidden_features, features)
        self._width = max(widths)
        self.layers = nn.ModuleList(dense_layer(layer_type, a, b) for a, b in pairwise(widths))
        self.activations = nn.ModuleList(activation(nonlinearity) for _ in hidden_features)
        if time_input == "fourier":
            self.register_buffer("frequencies", math.pi * torch.arange(1.0, num_frequencies + 1))

    @property
    def width(self) -> int:
        """Numbers a row takes at its widest layer."""
        return self._width

    @property
    def _stack(self) -> tuple[list[DenseLayer], list[Activation]]:
        return cast(list[DenseLayer], list(self.layers)), cast(
            list[Activation], list(self.activations)
        )

    def velocity(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """dx/dt.   t (B, 1), x (B, D), context (B, C) or None -> (B, D)."""
        layers, activations = self._stack
        h = layers[0].at(t)(self._inputs(t, x, context))
        for layer, nonlinearity in zip(layers[1:], activations, strict=True):
            h = layer.at(t)(nonlinearity(h))
        return h - x if self.residual else h

    def velocity_and_trace(
        self, t: Tensor, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """dx/dt and the exact trace of df/dx, the Jacobian pushed along in closed form.

        Returns:
            (B, D) and (B,).
        """
        dx, layers, slopes = self._linearise(t, x, context)
        trace = trace_of_product(layers, slopes, self.columns).expand(x.shape[0])
        if self.residual:
            return dx - x, trace - x.shape[1]
        return dx, trace

    def velocity_and_forms(
        self, t: Tensor, x: Tensor, probes: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """dx/dt and e_k^T (df/dx) e_k, the probes pushed along as tangents.

        Args:
            probes: (K, D) for all rows, or (B, K, D).

        Returns:
            (B, D) and (B, K).
        """
        dx, layers, slopes = self._linearise(t, x, context)
        tangents = _push(probes, layers[0].weight[..., self.columns])
        for slope, layer in zip(slopes, layers[1:], strict=True):
            tangents = _push(tangents * slope.unsqueeze(1), layer.weight)
        gate = layers[-1].gate
        if gate is not None:
            tangents = tangents * gate.unsqueeze(1)
        if self.residual:
            dx, tangents = dx - x, tangents - probes
        forms = row_sum(tangents * probes)
        return dx, forms.expand(x.shape[0], -1)

    def _inputs(self, t: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
        parts = [x]
        if context is not None:
            parts.append(context)
        if self.time_input == "last":
            parts.append(t)
        elif self.time_input == "fourier":
            angles = t * self.frequencies
            parts = [angles.cos(), angles.sin(), *parts]
        return torch.cat(parts, 1) if len(parts) > 1 else x

    def _linearise(
        self, t: Tensor, x: Tensor, context: Tensor | None
    ) -> tuple[Tensor, list[Affine], list[Tensor]]:
        """f without its residual, the layers at t, and slopes: d(layer l+1's input)/d(W_l h)."""
        stack, activations = self._stack
        layers = [layer.at(t) for layer in stack]
        h = layers[0](self._inputs(t, x, context))
        slopes = []
        for below, layer, nonlinearity in zip(layers, layers[1:], activations, strict=False):
            h, slope = nonlinearity.with_slope(h)
            slopes.append(slope if below.gate is None else slope * below.gate)
            h = layer(h)
        return h, layers, slopes


def _push(tangents: Tensor, weight: Tensor) -> Tensor:
    """W v for tangents (B, K, in) or (K, in), as one product of matrices where W is shared."""
    if weight.dim() == 2 and tangents.dim() == 3:
        # torch.matmul would choose between this and B small products by looking at requires_grad.
        flat = tangents.flatten(0, 1) @ weight.T
        return flat.view(*tangents.shape[:2], weight.shape[0])
    return tangents @ weight.mT


def trace_of_product(layers: list[Affine], slopes: list[Tensor], columns: slice) -> Tensor:
    """Trace of diag(g) W_n diag(s_n-1) W_n-1 ... diag(s_1) W_1[:, columns].

    Returns:
        (B,) or ().
    """
    first, last = layers[0].weight[..., columns], layers[-1].weight
    gate = layers[-1].gate
    if not slopes:
        diagonal = first.diagonal(dim1=-2, dim2=-1)
        return row_sum(diagonal if gate is None else diagonal * gate)
    if len(slopes) == 2 and gate is None and layers[1].weight.dim() == 2 == first.dim():
        # s_2^T (W_2 o (W_1 W_3)^T) s_1: the D axis is summed out before any row is looked at.
        mixing = layers[1].weight * (first @ last).T
        return row_sum((slopes[0] @ mixing.T) * slopes[1], 1)
    tangents = first.mT
    for slope, layer in zip(slopes, layers[1:-1], strict=False):
        tangents = _push(tangents * slope.unsqueeze(1), layer.weight)
    # Only the diagonal of the last product is wanted: D H operations instead of D^2 H.
    mixing = tangents * last
    if gate is None:
        return row_sum(mixing.sum(-2) * slopes[-1], 1)
    if mixing.dim() == 2:
        return row_sum((slopes[-1] @ mixing.T) * gate, 1)
    return row_sum((mixing @ slopes[-1].unsqueeze(2)).squeeze(2) * gate, 1)
