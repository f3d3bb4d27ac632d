"""Masked networks evaluated piece by piece: a decode costs one pass of the network, not D.

An autoregressive map asks its network D times, each time with one more feature known. A hidden
unit that sees the features up to order m is the same from then on: it is computed when feature m
is known, and remembered. So every weight is used once in the whole decode.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from models.conditioners.dense import ADDING_MODES, MLP, Bridge, ResidualBlock, ResNet
from models.fold.affine import scale_and_shift
from models.fold.network_steps import (
    BEFORE_ALL,
    AddContext,
    AddSaved,
    Affine,
    Linear,
    Memory,
    Pointwise,
    Save,
    Step,
)


class Turns(nn.Module, ABC):
    """A network in turns: turn g gives what is wanted when features of order < g are known.

    Attributes:
        narrows: whether what comes in is of a wider dtype than the weights.
        widens_to: the dtype of what goes out, where it is not that of the weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.narrows = False
        self.widens_to: torch.dtype | None = None

    def take_turn(
        self, turn: int, news: Tensor | None, memory: Memory, context: Tensor | None, rows: int
    ) -> Tensor:
        """Compute the outputs of one turn; turns come in order, with one memory.

        Args:
            turn: 0 .. P - 1.
            news: the features of order turn - 1, (B, n); None in turn 0.
            memory: of the turns before; empty in turn 0.
            context: (B, K).
            rows: B.
        """
        if self.narrows:
            news, context = (
                None if given is None else given.to(self.dtype) for given in (news, context)
            )
        found = self.compute(turn, news, memory, context, rows)
        return found if self.widens_to is None else found.to(self.widens_to)

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Of the weights."""

    @abstractmethod
    def compute(
        self, turn: int, news: Tensor | None, memory: Memory, context: Tensor | None, rows: int
    ) -> Tensor:
        """Compute one turn in the dtype of the weights: see `take_turn`."""


class IncrementalNetwork(Turns):
    """A masked network in turns.

    Args:
        turns: the parts of the steps that fall into each turn.
        takes_context: whether the first layer sees the context beside the features.
    """

    def __init__(self, turns: Sequence[Sequence[Step]], *, takes_context: bool) -> None:
        super().__init__()
        self.turns = nn.ModuleList(nn.ModuleList(turn) for turn in turns)
        self.takes_context = takes_context

    @property
    def dtype(self) -> torch.dtype:
        return next(self.buffers()).dtype

    def compute(
        self, turn: int, news: Tensor | None, memory: Memory, context: Tensor | None, rows: int
    ) -> Tensor:
        value = context if news is None and self.takes_context else news
        for step in cast(nn.ModuleList, self.turns[turn]):
            value = step(value, memory, context, rows)
        return cast(Tensor, value)


def incremental(
    net: nn.Module, order: Tensor, wanted: Sequence[Sequence[int]]
) -> IncrementalNetwork | None:
    """Cut a simplified network into turns; None if it is of a kind that is not known here.

    Args:
        net: its masks multiplied into the weights.
        order: of the D features, 0 .. P - 1; inputs behind them are context.
        wanted: the outputs of each turn, in the order in which they are wanted.

    Raises:
        ValueError: if an output depends on features that are not known in its turn.
    """
    steps = _steps(net)
    if steps is None:
        return None
    entry, exit_key = cast(Linear, steps[0]), max(s.key for s in steps if isinstance(s, Linear))
    context = torch.full((entry.weight.shape[1] - len(order),), BEFORE_ALL)
    degrees = [torch.cat((order, context))]
    saved: dict[int, Tensor] = {}
    for step in steps:
        degrees.append(step.degrees(degrees[-1]))
        if isinstance(step, Save):
            saved[step.key] = degrees[-1]
        elif isinstance(step, AddSaved) and not torch.equal(saved[step.key], degrees[-1]):
            return None
    for turn, rows in enumerate(wanted):
        if bool((degrees[-1][list(rows)] >= turn).any()):
            raise ValueError(f"conditioner: outputs of order {turn} see features that come later")
    turns = []
    for turn, rows in enumerate(wanted):
        parts = []
        for step, before, after in zip(steps, degrees, degrees[1:], strict=False):
            known = before.argsort(stable=True)[: int((before < turn).sum())]
            units = (after == turn - 1).nonzero().flatten()
            part = step.part(torch.tensor(rows) if step.key >= exit_key else units, known)
            part.key = step.key
            parts.append(part)
        turns.append(parts)
    return IncrementalNetwork(turns, takes_context=len(context) > 0)


def _steps(net: nn.Module) -> list[Step] | None:
    match net:
        case MLP() if not net.normalise:
            steps = _mlp_steps(net)
        case ResNet():
            steps = _resnet_steps(net)
        case _:
            return None
    saved = 0
    for key, step in enumerate(steps):
        saved = key if isinstance(step, Save) else saved
        step.key = saved if isinstance(step, AddSaved) else key
    return steps


def _mlp_steps(net: MLP) -> list[Step]:
    entry, *others = net.layers
    steps: list[Step] = [_linear(entry), *_add_context(net.context_layer, net.activations[0])]
    for layer, activation in zip(others, net.activations, strict=False):
        steps += [Pointwise(activation), _linear(layer)]
    return [*steps, Pointwise(net.activations[-1])]


def _resnet_steps(net: ResNet) -> list[Step]:
    steps: list[Step] = [_linear(net.entry), *_add_context(net.context_layer, net.activation)]
    for block in net.blocks:
        if isinstance(block, Bridge):
            steps.append(_linear(block.linear))
        else:
            steps += _block_steps(cast(ResidualBlock, block))
    return [*steps, _linear(net.exit)]


def _block_steps(block: ResidualBlock) -> list[Step]:
    activate = Pointwise(block.activation)
    layer = block.context_layer
    return [
        Save(),
        *_norm(block.norms[0]),
        *([activate] if block.pre_activation else []),
        _linear(block.first),
        *(_add_context(layer, None) if block.context_mode in ADDING_MODES else []),
        *_norm(block.norms[1]),
        Pointwise(block.activation),
        _linear(block.second),
        *(_add_context(layer, torch.sigmoid, is_gate=True) if block.context_mode == "gate" else []),
        AddSaved(),
    ]


def _norm(norm: nn.Module) -> list[Step]:
    return [] if isinstance(norm, nn.Identity) else [Affine(*scale_and_shift(norm))]


def _linear(layer: nn.Module) -> Step:
    linear = cast(nn.Linear, layer)
    return Linear(linear.weight.detach(), linear.bias.detach())


def _add_context(
    layer: nn.Linear | None, function: Callable[[Tensor], Tensor] | None, *, is_gate: bool = False
) -> list[Step]:
    if layer is None:
        return []
    return [AddContext(layer.weight.detach(), layer.bias.detach(), function, is_gate=is_gate)]
