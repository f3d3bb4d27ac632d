"""Networks of flows over vectors as sources have them, with their weights beside them.

Every source orders the outputs of its networks in its own way. Here a network ends in one block of
outputs a parameter, shift before scale (see `unpack_params`); `parameter_rows` gets them there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Any, get_args

import torch
from pydantic import BeforeValidator
from torch import Tensor

from models.conditioners.activations import Activation
from models.importers.source import Fragment, numbered, prefixed
from models.importers.weights import Weights

# As libraries write them: ReLU, nn.ReLU, F.relu, torch.nn.LeakyReLU, ...
_OTHER_NAMES = {"leakyrelu": "leaky_relu", "swish": "silu"}
ACTIVATIONS = ", ".join(get_args(Activation))


def _our_name(value: Any) -> Any:
    """The name of an activation as we write it, where it is a name at all."""
    if not isinstance(value, str):
        return value
    name = value.removesuffix("()").rpartition(".")[2].lower()
    return _OTHER_NAMES.get(name, name)


ActivationName = Annotated[Activation, BeforeValidator(_our_name)]


@dataclass(frozen=True, slots=True)
class Linear:
    """y = (weight * mask) x + bias; weight and mask (out, in), bias (out,)."""

    weight: Tensor
    bias: Tensor
    mask: Tensor | None = None

    @property
    def state(self) -> Fragment:
        """As the state dict of one layer of ours."""
        state = {"weight": self.weight, "bias": self.bias}
        return state if self.mask is None else {**state, "mask": self.mask}

    @property
    def seen(self) -> Tensor:
        """Which inputs reach which outputs, (out, in), True where nothing is masked."""
        return torch.ones_like(self.weight, dtype=torch.bool) if self.mask is None else self.mask

    def rows(self, index: Sequence[int]) -> "Linear":
        """The chosen outputs, in that order."""
        chosen = torch.tensor(index, dtype=torch.int64)
        mask = None if self.mask is None else self.mask[chosen]
        return Linear(self.weight[chosen], self.bias[chosen], mask)

    def columns(self, index: Sequence[int]) -> "Linear":
        """The chosen inputs, in that order; what the others would have brought is left out."""
        chosen = torch.tensor(index, dtype=torch.int64)
        mask = None if self.mask is None else self.mask[:, chosen]
        return Linear(self.weight[:, chosen], self.bias, mask)

    def negated(self) -> "Linear":
        """-y."""
        return replace(self, weight=-self.weight, bias=-self.bias)

    def with_context(self, weight: Tensor, bias: Tensor | None = None) -> "Linear":
        """y + V c + d for a context c behind the inputs; V (out, context) is never masked."""
        mask = self.mask
        if mask is not None:
            mask = torch.cat((mask, torch.ones_like(weight, dtype=torch.bool)), 1)
        return Linear(
            torch.cat((self.weight, weight), 1),
            self.bias if bias is None else self.bias + bias,
            mask,
        )

    def with_unused_context(self, context_features: int) -> "Linear":
        """The same y in front of a context that it does not take, which may be of length 0."""
        if not context_features:
            return self
        return self.with_context(self.weight.new_zeros(len(self.bias), context_features))

    def behind(self, scale: Tensor, shift: Tensor) -> "Linear":
        """The same layer applied to scale * x + shift."""
        effective = self.weight if self.mask is None else self.weight * self.mask
        return replace(self, weight=self.weight * scale, bias=self.bias + effective @ shift)


@dataclass(frozen=True, slots=True)
class Net:
    """A conditioner: its description, its weights, and which inputs reach which outputs."""

    config: Mapping[str, Any]
    state: Fragment
    reach: Tensor


@dataclass(frozen=True, slots=True)
class Block:
    """A residual block; `bridge` is a linear layer in front of it, where the width changes."""

    first: Linear
    second: Linear
    context: Linear | None = None
    norms: tuple[Fragment, ...] = ()
    bridge: Linear | None = None


def linear(
    weights: Weights, name: str, outputs: int, inputs: int, *, mask: str | None = None
) -> Linear:
    """Take a linear layer, `name.weight` and `name.bias`, and its mask under the key given."""
    return Linear(
        weights.take(f"{name}.weight", outputs, inputs),
        weights.take(f"{name}.bias", outputs),
        None if mask is None else weights.take(mask, outputs, inputs).bool(),
    )


def sequential(weights: Weights, name: str, widths: Sequence[int]) -> list[Linear]:
    """Take the linear layers of an `nn.Sequential` that has an activation behind each but the last.

    Args:
        weights: of the source.
        name: of the sequence.
        widths: inputs of the first layer, of the second, ..., and outputs of the last.

    Returns:
        The layers at the places 0, 2, 4, ...
    """
    return [
        linear(weights, f"{name}.{2 * index}", after, before)
        for index, (before, after) in enumerate(pairwise(widths))
    ]


def of_context_alone(linears: Sequence[Linear], features: int) -> list[Linear]:
    """The layers of a network over contexts as those of one that sees no feature."""
    first = linears[0]
    unseen = first.weight.new_zeros(len(first.bias), features)
    entry = Linear(unseen, first.bias, unseen.bool()).with_context(first.weight)
    return [entry, *(replace(inner, mask=inner.seen) for inner in linears[1:])]


def parameter_rows(num_features: int, parameters: Sequence[int]) -> list[int]:
    """Rows that turn outputs ordered feature by feature into blocks of one parameter each.

    Args:
        num_features: how many features have parameters.
        parameters: which of a feature's outputs becomes the first block, the second, ...

    Returns:
        For every output in our order, its place in the source's.
    """
    stride = len(parameters)
    return [feature * stride + place for place in parameters for feature in range(num_features)]


def mlp(
    linears: Sequence[Linear],
    activation: str | Sequence[str],
    *,
    context: Linear | None = None,
    **options: Any,
) -> Net:
    """Linear layers with activations between.

    Args:
        linears: all layers; one alone gets an identity in front of it.
        activation: one for all hidden layers, or one each.
        context: a layer for the context, added to the first (`context_mode="add"`).
        options: further fields of `MLPConfig`.
    """
    if len(linears) == 1:
        linears, activation = [_identity(linears[0]), linears[0]], ["identity"]
    config = {
        "kind": "mlp",
        "widths": [len(linear.bias) for linear in linears[:-1]],
        "activation": activation if isinstance(activation, str) else list(activation),
        **options,
    }
    state = prefixed("layers.", numbered(linear.state for linear in linears))
    if context is not None:
        config["context_mode"] = "add"
        state |= prefixed("context_layer.", context.state)
    reach = linears[0].seen
    for linear in linears[1:]:
        reach = _through(linear.seen, reach)
    return Net(config, state, reach)


def resnet(
    entry: Linear,
    blocks: Sequence[Block],
    last: Linear,
    activation: str,
    *,
    context: Linear | None = None,
    context_mode: str = "concatenate",
    pre_activation: bool = True,
) -> Net:
    """Residual blocks between two linear layers; without any block, the two layers.

    Args:
        entry: the first layer.
        blocks: in order.
        last: the last layer.
        activation: inside the blocks.
        context: a layer for the context, added behind the entry.
        context_mode, pre_activation: as in `ResNetConfig`.
    """
    if not blocks:
        return mlp([entry, last], "identity", context=context)
    state = {**prefixed("entry.", entry.state), **prefixed("exit.", last.state)}
    if context is not None:
        state |= prefixed("context_layer.", context.state)
    modules, reach = [], entry.seen
    for block in blocks:
        if block.bridge is not None:
            modules.append(prefixed("linear.", block.bridge.state))
            reach = _through(block.bridge.seen, reach)
        modules.append(_block_state(block))
        reach = reach | _through(block.second.seen, _through(block.first.seen, reach))
    config = {
        "kind": "resnet",
        "widths": [len(block.second.bias) for block in blocks],
        "activation": activation,
        "batch_norm": bool(blocks[0].norms),
        "context_mode": context_mode,
        "pre_activation": pre_activation,
    }
    state |= prefixed("blocks.", numbered(modules))
    return Net(config, state, _through(last.seen, reach))


def pair(shift: Net, scale: Net) -> Net:
    """Two networks side by side."""
    return Net(
        {"kind": "pair", "shift": shift.config, "scale": scale.config},
        {**prefixed("shift.", shift.state), **prefixed("scale.", scale.state)},
        torch.cat((shift.reach, scale.reach)),
    )


def periodic(net: Net, angles: Sequence[int], bound: Sequence[float], weights: Tensor) -> Net:
    """A network that sees w1 sin + w2 cos in the place of angles; weights (angles, 2)."""
    config = {
        "kind": "periodic",
        "angles": list(angles),
        "bound": list(bound),
        "mixes": True,
        "net": net.config,
    }
    return Net(config, {"weights": weights, **prefixed("net.", net.state)}, net.reach)


def _identity(like: Linear) -> Linear:
    width = like.weight.shape[1]
    eye = torch.eye(width, dtype=like.weight.dtype)
    return Linear(eye, eye.new_zeros(width), None if like.mask is None else eye.bool())


def _through(seen: Tensor, reach: Tensor) -> Tensor:
    return (seen.double() @ reach.double()) > 0


def _block_state(block: Block) -> Fragment:
    state = {**prefixed("first.", block.first.state), **prefixed("second.", block.second.state)}
    if block.context is not None:
        state |= prefixed("context_layer.", block.context.state)
    return {**state, **prefixed("norms.", numbered(block.norms))}
