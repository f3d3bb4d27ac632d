"""Convolutional vector fields, with the probes that give their exact trace."""

from functools import partial
from itertools import pairwise
from typing import cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.ode.fields.activations import Activation, Nonlinearity, activation
from models.ode.fields.conv_layers import (
    ConvLayer,
    ConvLayerType,
    Stride,
    conv_layer,
    kernel_size,
)
from models.ode.fields.dynamics import Dynamics
from models.row_sum import row_sum


class ConvDynamics(Dynamics):
    """A stack of convolutions, each of which may depend on the time.

    f = L_n(t, sigma(... sigma(L_1(t, x)))), minus x if `residual`. Layer types are those of
    `DenseDynamics`, and concatcoord: W [h; t; row; column] + b. There is no context.

    The trace is exact at the price of far fewer than D probes: pixels further apart than the reach
    of the stack cannot touch each other, so one probe serves a whole grid of them. A stack of three
    3x3 convolutions takes 16 probes a channel, whatever the size of the image.

    Args:
        shape: (C, H, W).
        hidden_channels: channels of the hidden layers.
        strides: one a layer: 1 (3x3), 2 (4x4, halves the image), -2 (4x4 transposed, doubles it);
            left out, all 1.
        layer_type: one of the above.
        nonlinearity: sigma, after every layer but the last.
        residual: f(t, x) - x.

    Reference: Grathwohl et al. 2019, FFJORD, appendix B.1 (arXiv 1810.01367); for the grids of
    probes: Tang & Saad 2012, "A probing method for computing the diagonal of a matrix inverse".
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        hidden_channels: tuple[int, ...],
        *,
        strides: tuple[Stride, ...] | None = None,
        layer_type: ConvLayerType = "concat",
        nonlinearity: Nonlinearity = "softplus",
        residual: bool = False,
    ) -> None:
        super().__init__(shape)
        if layer_type not in get_args(ConvLayerType):
            known = ", ".join(get_args(ConvLayerType))
            raise ValueError(f"layer_type: expected one of {known}; got {layer_type!r}")
        self.residual = residual
        default: Stride = 1
        self.strides = strides or (default,) * (len(hidden_channels) + 1)
        if len(self.strides) != len(hidden_channels) + 1:
            raise ValueError(
                f"strides: expected {len(hidden_channels) + 1}, one a layer, got {self.strides}"
            )
        self._reaches = tuple(_reach(size, self.strides) for size in shape[1:])
        channels = (shape[0], *hidden_channels, shape[0])
        # An upper bound: images are at their largest where no stride has halved them.
        self._width = max(channels) * shape[1] * shape[2]
        self.layers = nn.ModuleList(
            conv_layer(layer_type, a, b, stride)
            for (a, b), stride in zip(pairwise(channels), self.strides, strict=True)
        )
        self.activations = nn.ModuleList(activation(nonlinearity) for _ in hidden_channels)

    @property
    def width(self) -> int:
        """Numbers a row takes at its widest layer, at most."""
        return self._width

    @property
    def num_exact_probes(self) -> int:
        """How many probes the exact trace takes: C times the pixels of one grid cell."""
        rows, columns = self._spacings
        return self.event_shape[0] * rows * columns

    def exact_probes(self, like: Tensor) -> Tensor:
        """One probe for every channel and every offset of a grid wider than the stack's reach.

        -> (K, C, H, W) with the dtype and device of `like`.
        """
        channels, height, width = self.event_shape
        spacings = zip((height, width), self._spacings, strict=True)
        # Made where they are used: a copy from the host has no place in a captured graph.
        place = partial(torch.arange, device=like.device)
        rows, columns = (
            (place(n)[None] % step == place(step)[:, None]).to(like) for n, step in spacings
        )
        eye = torch.eye(channels, device=like.device).to(like)
        probes: Tensor = torch.einsum("kc,ah,bw->kabchw", eye, rows, columns).flatten(0, 2)
        return probes

    def velocity(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """dx/dt.   t (B, 1), x (B, C, H, W) -> (B, C, H, W)."""
        layers, activations = self._stack
        h = layers[0](t, x)
        for layer, nonlinearity in zip(layers[1:], activations, strict=True):
            h = layer(t, nonlinearity(h))
        dx: Tensor = h - x if self.residual else h
        return dx

    def velocity_and_forms(
        self, t: Tensor, x: Tensor, probes: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """dx/dt and e_k^T (df/dx) e_k, the probes pushed along as tangents.

        Args:
            probes: (K, C, H, W) for all rows, or (B, K, C, H, W).

        Returns:
            (B, C, H, W) and (B, K).
        """
        rows = x.shape[0]
        probes = probes.expand(rows, *probes.shape[-4:])
        count = probes.shape[1]
        times = t.repeat_interleave(count, 0)
        layers, activations = self._stack
        h, tangents = layers[0](t, x), layers[0].linear(times, probes.flatten(0, 1))
        for layer, nonlinearity in zip(layers[1:], activations, strict=True):
            h, slope = nonlinearity.with_slope(h)
            h = layer(t, h)
            tangents = tangents.unflatten(0, (rows, count)) * slope.unsqueeze(1)
            tangents = layer.linear(times, tangents.flatten(0, 1))
        tangents = tangents.unflatten(0, (rows, count))
        if self.residual:
            h, tangents = h - x, tangents - probes
        return h, row_sum((tangents * probes).flatten(2), 2)

    @property
    def _stack(self) -> tuple[list[ConvLayer], list[Activation]]:
        return cast(list[ConvLayer], list(self.layers)), cast(
            list[Activation], list(self.activations)
        )

    @property
    def _spacings(self) -> tuple[int, int]:
        height, width = self.event_shape[1:]
        return min(self._reaches[0] + 1, height), min(self._reaches[1] + 1, width)


def _reach(size: int, strides: tuple[Stride, ...]) -> int:
    """Largest |i - j| for which output i of the stack can depend on input j, along one axis.

    Raises:
        ValueError: if the strides do not lead back to `size`.
    """
    touched = torch.eye(size, dtype=torch.float32).unsqueeze(1)
    for stride in strides:
        if stride == 2 and touched.shape[2] % 2:
            raise ValueError(f"strides: cannot halve {touched.shape[2]} pixels of {size}")
        kernel = torch.ones(1, 1, kernel_size(stride), dtype=torch.float32)
        if stride < 0:
            touched = F.conv_transpose1d(touched, kernel, stride=-stride, padding=1)
        else:
            touched = F.conv1d(touched, kernel, stride=stride, padding=1)
        touched = (touched > 0).float()
    if touched.shape[2] != size:
        raise ValueError(f"strides: expected to lead from {size} pixels back, got {strides}")
    distance = (torch.arange(size)[:, None] - torch.arange(size)[None]).abs()
    return int((distance * touched[:, 0]).max())
