"""Conditioners as plain stacks: masks, norms and scales multiplied into the layers beside them."""

from collections.abc import Iterable, Sequence
from functools import singledispatch
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.conditioners.activations import pointwise
from models.conditioners.conv import GlowNet, RealNVPResNet, ScaledConv2d, WeightNormConv2d
from models.conditioners.dense import ADDING_MODES, MLP, Pair, ResidualBlock, ResNet
from models.conditioners.masked import MaskedLinear
from models.conditioners.periodic import PeriodicInputs
from models.conditioners.transformer import TransformerBlock
from models.fold.affine import EvaluatedBatchNorm, Norm, scale_and_shift
from models.fold.scalar import FoldedAdditive, FoldedAffine, Raw, Scalar, Trailing, Unchanged
from models.transforms.elementwise import Additive, Affine, Elementwise

Layer = nn.Linear | nn.Conv2d
Size = Sequence[int]


class Network(nn.Module):
    """The networks of a coupling or an autoregressive map, side by side.

    Attributes:
        narrows: whether what comes in is of a wider dtype than the weights.
        widens_to: the dtype of what goes out, where it is not that of the weights.
    """

    def __init__(self, nets: Iterable[nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)
        self.narrows = False
        self.widens_to: torch.dtype | None = None

    def forward(self, x: Tensor, context: Tensor | None) -> Raw:
        """Compute raw parameters.   x (B, C, ...), context (B, K) -> tensors (B, C', ...)."""
        if self.narrows:
            dtype = next(self.parameters()).dtype
            x, context = x.to(dtype), None if context is None else context.to(dtype)
        raw = tuple(net(x, context) for net in self.nets)
        return raw if self.widens_to is None else tuple(part.to(self.widens_to) for part in raw)


class Stack(nn.Sequential):
    """Layers that do not look at the context."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x (B, C, H, W) -> (B, C', H, W)."""
        for layer in self:
            x = layer(x)
        return x


class BorderedConv2d(nn.Module):
    """A zero-padded convolution plus what a border of ones would have added.

    Args:
        conv: with padding.
        border: (C', H, W), nonzero at the edges.
    """

    border: Tensor

    def __init__(self, conv: nn.Conv2d, border: Tensor) -> None:
        super().__init__()
        self.conv = conv
        self.register_buffer("border", border)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, C', H, W)."""
        value: Tensor = self.conv(x) + self.border
        return value


def fold_conditioner(
    conditioner: nn.Module, elementwise: Elementwise, event_shape: Sequence[int]
) -> tuple[Network, Scalar]:
    """Simplify a conditioner in place and find the folded form of the scalar map that reads it.

    Args:
        conditioner: gives one block of C outputs a parameter.
        elementwise: the scalar map.
        event_shape: (C, ...) of the values that move.
    """
    nets = (
        [conditioner.shift, conditioner.scale] if isinstance(conditioner, Pair) else [conditioner]
    )
    network = Network(plain(net, event_shape[1:]) for net in nets)
    exits = [layer for net in network.nets if (layer := exit_layer(net)) is not None]
    scalar: Scalar
    match elementwise:
        case Additive():
            scalar = FoldedAdditive()
        case Affine():
            scalar = FoldedAffine(elementwise)
            if scalar.offsets and len(exits) == len(network.nets):
                _take_over(exits, scalar)
        case _ if len(event_shape) == 1 and exits and len(network.nets) == 1:
            scalar = Trailing(elementwise)
        case _:
            scalar = Unchanged(elementwise)
    return network, scalar


def lay_out(network: Network, scalar: Scalar, channels: int) -> None:
    """Bring the outputs of a network into the order in which the scalar map reads them."""
    rows = scalar.rows(range(channels), channels)
    if rows == sorted(rows):
        return
    for net in network.nets:
        layer = exit_layer(net)
        if layer is not None:
            keep_rows(layer, rows)


def exit_layer(net: nn.Module) -> Layer | None:
    """The last layer of a simplified network, if its output is the network's as it is."""
    match net:
        case nn.Linear() | nn.Conv2d():
            return net
        case MLP() if net.activations[-1] is pointwise("identity"):
            return exit_layer(net.layers[-1])
        case ResNet():
            return exit_layer(net.exit)
        case PeriodicInputs():
            return exit_layer(net.net)
        case RealNVPResNet():
            return exit_layer(net.output_conv)
        case BorderedConv2d():
            return net.conv
        case nn.Sequential():
            return exit_layer(net[-1])
        case _:
            return None


def entry_layer(net: nn.Module) -> nn.Linear | None:
    """The first layer of a simplified network over vectors, which alone sees the features."""
    layer = (
        net.layers[0] if isinstance(net, MLP) else net.entry if isinstance(net, ResNet) else None
    )
    return layer if isinstance(layer, nn.Linear) else None


def _take_over(exits: Sequence[Layer], scalar: Scalar) -> None:
    """Add the offsets of a scalar map to the biases of the last layers."""
    blocks = list(torch.tensor(scalar.offsets).tensor_split(len(exits)))
    for layer, offsets in zip(exits, blocks, strict=True):
        bias = _bias(layer)
        _set(
            layer,
            layer.weight,
            bias + offsets.to(bias).repeat_interleave(len(bias) // len(offsets)),
        )
    scalar.offsets = ()


@singledispatch
def plain(module: nn.Module, size: Size) -> nn.Module:
    """The same function with fewer operations; images have `size` (H, W), vectors ().

    Modules without a rule of their own keep their code; their children are simplified in place.
    """
    _simplify_children(module, size)
    return module


@plain.register
def _(module: MaskedLinear, size: Size) -> nn.Module:
    return _linear(module.weight * module.mask, module.bias)


@plain.register(nn.BatchNorm1d)
@plain.register(nn.BatchNorm2d)
def _(module: nn.BatchNorm1d | nn.BatchNorm2d, size: Size) -> nn.Module:
    return EvaluatedBatchNorm(module)


@plain.register
def _(module: WeightNormConv2d, size: Size) -> nn.Module:
    norm = module.direction.square().sum((1, 2, 3), keepdim=True).sqrt()
    return _conv(module.gain * module.direction / norm, module.bias, padding=module.size // 2)


@plain.register
def _(module: ScaledConv2d, size: Size) -> nn.Module:
    padding = 0 if module.padding == "none" else 1
    conv = _conv(module.conv.weight, module.conv.bias, padding=padding)
    if module.log_scale_factor is not None:
        scale = (module.log_scale_factor * module.log_scale).exp().flatten()
        _rescale(conv, scale, torch.zeros_like(scale))
    if module.padding != "ones":
        return Stack(conv)
    height, width = size
    ring = F.pad(conv.weight.new_zeros(1, conv.in_channels, height, width), (1, 1, 1, 1), value=1.0)
    return Stack(BorderedConv2d(conv, F.conv2d(ring, conv.weight)[0]))


@plain.register
def _(module: GlowNet, size: Size) -> nn.Module:
    return Stack(*_merged(module.layers, size))


@plain.register
def _(module: TransformerBlock, size: Size) -> nn.Module:
    _simplify_children(module, size)
    # Of a number that multiplies a product onnxruntime keeps seven digits, in float64 too.
    scale = torch.ones_like(_bias(module.qkv))
    scale[: len(scale) // 3] = module.query_scale
    _rescale(module.qkv, scale, torch.zeros_like(scale))
    module.query_scale = 1.0
    return module


@plain.register
def _(module: nn.Sequential, size: Size) -> nn.Module:
    return nn.Sequential(*_merged(module, size))


@plain.register
def _(module: RealNVPResNet, size: Size) -> nn.Module:
    _simplify_children(module, size)
    if module.double_input:
        module.input_norm.weight.mul_(2)
        module.input_norm.bias.mul_(2)
        module.double_input = False
    scale, shift = scale_and_shift(module.output_norm)
    for index, skip in enumerate((module.input_skip, *module.skips)):
        # The sum of the skips is normalised: every skip is scaled, the first takes the shift.
        _rescale(cast(nn.Conv2d, skip), scale, torch.zeros_like(shift) if index else shift)
    module.register_module("output_norm", nn.Identity())
    return module


@plain.register
def _(module: ResidualBlock, size: Size) -> nn.Module:
    _simplify_children(module, size)
    first, second = module.norms
    if isinstance(first, EvaluatedBatchNorm) and not module.pre_activation:
        scale, shift = scale_and_shift(first)
        bias = _bias(module.first) + module.first.weight @ shift
        _set(module.first, module.first.weight * scale, bias)
        module.norms[0] = nn.Identity()
    if isinstance(second, EvaluatedBatchNorm):
        scale, shift = scale_and_shift(second)
        _rescale(module.first, scale, shift)
        if module.context_layer is not None and module.context_mode in ADDING_MODES:
            _rescale(module.context_layer, scale, torch.zeros_like(shift))
        module.norms[1] = nn.Identity()
    return module


def _simplify_children(module: nn.Module, size: Size) -> None:
    for name, child in module.named_children():
        setattr(module, name, plain(child, size))


def _merged(layers: nn.Sequential, size: Size) -> list[nn.Module]:
    """Simplified layers, every norm merged into the layer in front of it."""
    found: list[nn.Module] = []
    for child in layers:
        layer = plain(child, size)
        before = found[-1] if found else None
        if isinstance(layer, Norm) and isinstance(before, Layer):
            _rescale(before, *scale_and_shift(layer))
        else:
            found.append(layer)
    return found


def keep_rows(layer: Layer, rows: Sequence[int]) -> None:
    """Keep some outputs of a layer, in the order given."""
    _set(layer, layer.weight[list(rows)], _bias(layer)[list(rows)])


def keep_columns(layer: nn.Linear, columns: Sequence[int]) -> None:
    """Keep some inputs of a layer, in the order given."""
    _set(layer, layer.weight[:, list(columns)], _bias(layer))


def _rescale(layer: Layer, scale: Tensor, shift: Tensor) -> None:
    """Let the layer give scale * output + shift, channel by channel."""
    weight = layer.weight * scale.view(-1, *[1] * (layer.weight.dim() - 1))
    _set(layer, weight, _bias(layer) * scale + shift)


def _bias(layer: Layer) -> Tensor:
    return layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias


def _set(layer: Layer, weight: Tensor, bias: Tensor) -> None:
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    _set(linear, weight, weight.new_zeros(len(weight)) if bias is None else bias)
    return linear


def _conv(weight: Tensor, bias: Tensor | None, *, padding: int) -> nn.Conv2d:
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], padding=padding)
    _set(conv, weight, weight.new_zeros(len(weight)) if bias is None else bias)
    return conv
