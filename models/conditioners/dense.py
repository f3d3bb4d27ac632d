"""Networks over vectors: raw = net(x, context), for couplings and autoregressive maps alike.

The networks do not know what may be connected to what: a `Wiring` makes their linear layers, dense
ones for couplings (here), masked ones for autoregressive maps (`models.conditioners.masked`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from models.conditioners.activations import Activation, pointwise

ContextMode = Literal["concatenate", "gate", "add", "concatenate_and_add"]
# Those in which every residual block adds a linear map of the context.
ADDING_MODES = ("add", "concatenate_and_add")

# nflows' choice for the batch norms inside a residual block (torch's own default is 1e-5).
_BATCH_NORM_EPS = 1e-3


class Wiring(Protocol):
    """Makes the linear layers of a network, from its inputs to its outputs."""

    @property
    def has_degrees(self) -> bool:
        """Whether hidden units see different inputs, so that nothing may mix them."""

    @property
    def context_features(self) -> int:
        """Length of the context vector, 0 for none."""

    @property
    def in_features(self) -> int:
        """How many inputs there are, the context not among them."""

    def with_more_of(self, inputs: Sequence[int]) -> "Wiring":
        """The same with further inputs behind, which say more of some of them."""

    def entry(self, width: int, *, with_context: bool) -> nn.Linear:
        """First layer: the inputs (and the context, behind them) to `width` units."""

    def hidden(self, before: int, after: int) -> nn.Linear:
        """A layer between `before` and `after` units."""

    def exit(self, width: int) -> nn.Linear:
        """Last layer: `width` units to the outputs."""


@dataclass(frozen=True, slots=True)
class Dense:
    """Everything is connected to everything."""

    in_features: int
    out_features: int
    context_features: int = 0
    has_degrees: ClassVar[bool] = False

    def with_more_of(self, inputs: Sequence[int]) -> "Dense":
        """The same with further inputs behind."""
        return replace(self, in_features=self.in_features + len(inputs))

    def entry(self, width: int, *, with_context: bool) -> nn.Linear:
        """First layer: (B, in_features [+ context_features]) -> (B, width)."""
        return nn.Linear(self.in_features + with_context * self.context_features, width)

    def hidden(self, before: int, after: int) -> nn.Linear:
        """(B, before) -> (B, after)."""
        return nn.Linear(before, after)

    def exit(self, width: int) -> nn.Linear:
        """Last layer: (B, width) -> (B, out_features)."""
        return nn.Linear(width, self.out_features)


class MLP(nn.Module):
    """raw = a_n(W_n ... a_1(W_1 [x, context] + b_1) ... + b_n): linear layers and activations.

    The last layer starts at zero, so that a fresh flow is near the identity.

    Args:
        wiring: makes the layers.
        widths: of the hidden layers, at least one.
        activation: one for all hidden layers, or one a hidden layer, or one a layer: then the last
            is applied to the output.
        negative_slope: of leaky_relu.
        context_mode: `concatenate`: the context joins the inputs, behind them; `add`:
            a_1(W_1 x + b_1 + a_1(V context + d)) (nflows' feed-forward MADE).
        normalise: standardise each row of hidden units after its activation (zuko). Not in masked
            networks: mean and variance are over all units, so that every unit would see every
            input, and the map would not be autoregressive.

    Raises:
        ValueError: if there is no hidden layer, the activations are not as many as the layers, or
            `normalise` cannot be.
    """

    def __init__(
        self,
        wiring: Wiring,
        widths: Sequence[int],
        activation: Activation | Sequence[Activation] = "relu",
        *,
        negative_slope: float = 0.01,
        context_mode: Literal["concatenate", "add"] = "concatenate",
        normalise: bool = False,
    ) -> None:
        super().__init__()
        if not widths:
            raise ValueError("widths: expected at least one hidden layer, got none")
        if normalise and wiring.has_degrees:
            raise ValueError(
                "normalise: expected false in an autoregressive map, got true: it mixes all hidden "
                "units, so that features would see later ones; leave it out, or use a coupling"
            )
        if normalise and min(widths) < 2:
            raise ValueError(
                f"normalise: expected hidden layers of 2 units or more, got widths {list(widths)}: "
                "one number has no variance"
            )
        names = [activation] * len(widths) if isinstance(activation, str) else list(activation)
        if len(names) not in (len(widths), len(widths) + 1):
            raise ValueError(
                f"activation: expected one, {len(widths)} or {len(widths) + 1}, got {len(names)}"
            )
        names += ["identity"] * (len(widths) + 1 - len(names))
        self.activations = [pointwise(name, negative_slope) for name in names]
        adds = context_mode == "add" and wiring.context_features > 0
        self.context_layer = nn.Linear(wiring.context_features, widths[0]) if adds else None
        self.layers = nn.ModuleList([wiring.entry(widths[0], with_context=not adds)])
        for before, after in pairwise(widths):
            self.layers.append(wiring.hidden(before, after))
        self.layers.append(start_at_zero(wiring.exit(widths[-1])))
        self.normalise = normalise

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """X (B, in_features), context (B, context_features) -> (B, out_features)."""
        # A slice of a ModuleList is a new module: at small batches that costs as much as a layer.
        entry, *others = self.layers
        if self.context_layer is None or context is None:
            value = entry(join(x, context))
        else:
            value = entry(x) + self.activations[0](self.context_layer(context))
        for layer, activation in zip(others, self.activations, strict=False):
            hidden = activation(value)
            value = layer(standardise_rows(hidden) if self.normalise else hidden)
        raw: Tensor = self.activations[-1](value)
        return raw


class ResidualBlock(nn.Module):
    """h + W_2 a(W_1 a(h) + b_1) + b_2, with batch norms before the activations where asked for."""

    def __init__(
        self,
        wiring: Wiring,
        width: int,
        activation: Callable[[Tensor], Tensor],
        *,
        pre_activation: bool,
        batch_norm: bool,
        context_mode: ContextMode,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.pre_activation = pre_activation
        self.context_mode = context_mode
        self.first = wiring.hidden(width, width)
        self.second = wiring.hidden(width, width)
        is_separate = context_mode != "concatenate" and wiring.context_features > 0
        self.context_layer = nn.Linear(wiring.context_features, width) if is_separate else None
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(width, eps=_BATCH_NORM_EPS) if batch_norm else nn.Identity()
            for _ in range(2)
        )

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        """H (B, width) -> (B, width)."""
        from_context: Tensor | None = None
        if self.context_layer is not None and context is not None:
            from_context = self.context_layer(context)
        value: Tensor = self.norms[0](h)
        value = self.first(self.activation(value) if self.pre_activation else value)
        if from_context is not None and self.context_mode in ADDING_MODES:
            value = value + from_context
        value = self.second(self.activation(self.norms[1](value)))
        if from_context is not None and self.context_mode == "gate":
            value = value * torch.sigmoid(from_context)
        return h + value


class ResNet(nn.Module):
    """Residual blocks between a linear entry and a linear exit, which starts at zero.

    Args:
        wiring: makes the layers.
        widths: one residual block each; where the width changes a linear layer comes between.
        pre_activation: whether a block begins with its activation (nflows: yes, zuko: no).
        batch_norm: batch norms inside the blocks (nflows).
        context_mode: `concatenate`: the context joins the inputs, behind them (zuko); `gate`: it
            does, and every block's change is multiplied by sigmoid(V context + d) (nflows);
            `add`: a(V context + d) is added after the entry, V context + d inside every block
            (nflows' residual MADE); `concatenate_and_add`: it joins the inputs, and V context + d
            is added inside every block (nflows' mixtures).

    Reference: Durkan et al. 2019, appendix B.1 (arXiv 1906.04032).
    """

    def __init__(
        self,
        wiring: Wiring,
        widths: Sequence[int],
        activation: Activation = "relu",
        *,
        negative_slope: float = 0.01,
        pre_activation: bool = True,
        batch_norm: bool = False,
        context_mode: ContextMode = "gate",
    ) -> None:
        super().__init__()
        if not widths:
            raise ValueError("widths: expected at least one residual block, got none")
        self.activation = pointwise(activation, negative_slope)
        adds = context_mode == "add" and wiring.context_features > 0
        self.context_layer = nn.Linear(wiring.context_features, widths[0]) if adds else None
        self.entry = wiring.entry(widths[0], with_context=not adds)
        self.blocks = nn.ModuleList()
        for before, width in zip((widths[0], *widths), widths, strict=False):
            if before != width:
                self.blocks.append(Bridge(wiring.hidden(before, width)))
            self.blocks.append(
                ResidualBlock(
                    wiring,
                    width,
                    self.activation,
                    pre_activation=pre_activation,
                    batch_norm=batch_norm,
                    context_mode=context_mode,
                )
            )
        self.exit = start_at_zero(wiring.exit(widths[-1]))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """X (B, in_features), context (B, context_features) -> (B, out_features)."""
        if self.context_layer is None or context is None:
            hidden = self.entry(join(x, context))
        else:
            hidden = self.entry(x) + self.activation(self.context_layer(context))
        for block in self.blocks:
            hidden = block(hidden, context)
        raw: Tensor = self.exit(hidden)
        return raw


class Bridge(nn.Module):
    """A linear layer between residual blocks of different widths."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        """H (B, before) -> (B, after)."""
        raw: Tensor = self.linear(h)
        return raw


class Pair(nn.Module):
    """Two networks side by side, one for the shift and one for the scale: raw = [t(x), s(x)].

    Reference: Dinh et al. 2017, eq. 4 (arXiv 1605.08803).
    """

    def __init__(self, shift: nn.Module, scale: nn.Module) -> None:
        super().__init__()
        self.shift = shift
        self.scale = scale

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """X (B, in_features), context (B, context_features) -> (B, 2 * moved)."""
        return torch.cat((self.shift(x, context), self.scale(x, context)), 1)


def join(x: Tensor, context: Tensor | None) -> Tensor:
    """Put the context behind the inputs."""
    return x if context is None else torch.cat((x, context), 1)


def standardise_rows(hidden: Tensor) -> Tensor:
    """Zero mean and unit (unbiased) variance over the units of each row, as zuko does."""
    variance, mean = torch.var_mean(hidden, dim=1, keepdim=True)
    return (hidden - mean) * torch.rsqrt(variance + 1e-5)


def start_at_zero(layer: nn.Linear) -> nn.Linear:
    """Zero the weights and biases of a last layer."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
