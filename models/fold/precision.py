"""Networks of a folded flow in another precision than the rest.

Only what `Network` and `Turns` hold changes: what they say comes back in the dtype of
before, and moves, log-slopes and log-dets are computed from it as ever.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.flow import Flow
from models.fold.incremental import Turns
from models.fold.networks import Network

# Networks whose weights and activations are of a narrow dtype.
NARROW = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Networks in float32 whose products the tensor cores compute: of how many parts each is the sum.
TENSOR_CORES = {"tf32": 1, "tf32x3": 3}

# TF32 has the exponent of float32 and 10 bits of its mantissa of 23.
_KEPT_BITS = -(2**13)

# (x (N, C, ...), w (C', C, ...), padding) -> (N, C', ...): products of TF32 numbers, summed in
# float32.
Convolve = Callable[[Tensor, Tensor, tuple[int, ...]], Tensor]


def set_precision(folded: Flow, precision: str) -> None:
    """Let the networks of a folded flow compute in another precision.

    Args:
        folded: of `models.fold`, in float32.
        precision: one of `NARROW` or `TENSOR_CORES`.

    Raises:
        ValueError: the flow has no such networks, or the device cannot compute so.
    """
    networks = [part for part in folded.modules() if isinstance(part, Network | Turns)]
    if not networks:
        raise ValueError("expected a flow with couplings or autoregressive maps, which have some")
    dtypes = {tensor.dtype for part in networks for tensor in (*part.parameters(), *part.buffers())}
    if torch.float64 in dtypes:
        raise ValueError("expected networks in float32, and the model is served in float64")
    if precision in NARROW:
        folded.takes = folded.dtype
        for part in networks:
            part.to(NARROW[precision])
            part.narrows, part.widens_to = True, torch.float32
        return
    if folded.device.type != "cuda":
        raise ValueError(f"expected a CUDA device, which alone has TF32; this is {folded.device}")
    for part in networks:
        use_tensor_cores(part, TENSOR_CORES[precision])


def use_tensor_cores(module: nn.Module, parts: int, convolve: Convolve | None = None) -> None:
    """Put layers whose products are sums of TF32 products in the place of linear layers.

    The turns of an autoregressive decode stay as they are: they are products of few numbers.

    Args:
        module: is changed.
        parts: 1 for one product of rounded numbers, 3 for nearly all digits of float32.
        convolve: the products; left out, those of cuDNN.
    """
    for name, child in module.named_children():
        # Not their subclasses, which may compute something else.
        if isinstance(child, nn.Linear | nn.Conv2d) and type(child) in (nn.Linear, nn.Conv2d):
            setattr(module, name, TensorCoreLayer(child, parts, convolve or convolve_in_tf32))
        else:
            use_tensor_cores(child, parts, convolve)


class TensorCoreLayer(nn.Module):
    """A linear layer or a convolution by products of TF32 numbers.

    With three parts, x = x1 + x2 and w = w1 + w2 with x1 and w1 exact in TF32, and x w is taken as
    x1 w1 + (x1 w2 + x2 w1): what is left out, x2 w2, is 2^-22 of it.

    Args:
        layer: without stride, dilation or groups.
        parts: 1 or 3.
        convolve: the products.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, parts: int, convolve: Convolve) -> None:
        super().__init__()
        self.is_linear = isinstance(layer, nn.Linear)
        self.padding = (0, 0) if isinstance(layer, nn.Linear) else _plain_padding(layer)
        self.parts = parts
        self.convolve = convolve
        weight = layer.weight.detach()
        weight = weight[:, :, None, None] if self.is_linear else weight
        self.register_buffer("weight", weight)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    weight: Tensor
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """x (..., C) or (B, C, H, W) -> (..., C') or (B, C', H, W)."""
        value = self._product(x.reshape(-1, x.shape[-1], 1, 1) if self.is_linear else x)
        if self.bias is not None:
            value = value + self.bias[:, None, None]
        return value.reshape(*x.shape[:-1], -1) if self.is_linear else value

    def _product(self, x: Tensor) -> Tensor:
        if self.parts == 1:
            return self.convolve(x, self.weight, self.padding)
        (x1, x2), (w1, w2) = split(x), split(self.weight)
        small = self.convolve(x1, w2, self.padding) + self.convolve(x2, w1, self.padding)
        return self.convolve(x1, w1, self.padding) + small


def split(values: Tensor) -> tuple[Tensor, Tensor]:
    """Two parts of float32 numbers: one that TF32 holds exactly, and the rest."""
    first = (values.view(torch.int32) & _KEPT_BITS).view(torch.float32)
    return first, values - first


def convolve_in_tf32(x: Tensor, weight: Tensor, padding: tuple[int, ...]) -> Tensor:
    """Convolve on the tensor cores; asked for in this call, not by a flag of the process."""
    channels_and_flags = (1, False, False, True, True)  # groups, ..., cuDNN, TF32
    found: Tensor = torch._convolution(
        x, weight, None, (1, 1), padding, (1, 1), False, (0, 0), *channels_and_flags
    )
    return found


def _plain_padding(layer: nn.Conv2d) -> tuple[int, ...]:
    if layer.stride != (1, 1) or layer.dilation != (1, 1) or layer.groups != 1:
        raise ValueError("expected convolutions without stride, dilation or groups")
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        raise ValueError("expected convolutions with zeros around them")
    return tuple(layer.padding)
