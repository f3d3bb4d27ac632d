"""Autoregressive maps as inference wants them: decode asks its network piece by piece."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from models.conditioners.dense import Pair
from models.conditioners.transformer import Transformer
from models.fold.incremental import Turns, incremental
from models.fold.network_steps import Memory
from models.fold.networks import (
    Network,
    entry_layer,
    exit_layer,
    fold_conditioner,
    keep_columns,
    keep_rows,
    lay_out,
)
from models.fold.scalar import Scalar
from models.fold.token_turns import TokenTurns
from models.ode.call import SolveCall
from models.ode.while_loop import keeps_places, repeats_are_recorded
from models.transforms.autoregressive import MaskedAutoregressive
from models.transforms.jacobi import Decoding, Inversion, report_passes
from models.transforms.rows import RowNetwork, decode_by_rows
from models.transforms.transform import SolvingTransform, constant_log_det, sum_event


class FoldedAutoregressive(SolvingTransform):
    """`MaskedAutoregressive`: encode is one pass of the network, and so is a decode, in D pieces.

    With decoding="passes" or "jacobi" a decode takes whole passes, and counts them.

    Args:
        network: all outputs at once, in the order in which `scalar` reads them.
        scalar: the map of all features.
        order: of each feature, 0 .. P - 1.
        pieces: the same networks in turns; None where they cannot be cut, then decode takes P
            passes of `network`.
        token_turns: the network in turns, if it is a transformer.
        decoding: as `MaskedAutoregressive`.
    """

    order: Tensor
    arrival: Tensor
    restore: Tensor

    def __init__(
        self,
        network: Network,
        scalar: Scalar,
        order: Tensor,
        pieces: Sequence[Turns] | None = None,
        *,
        token_turns: TokenTurns | None = None,
        decoding: Decoding = "sequential",
    ) -> None:
        super().__init__()
        self.decoding = decoding
        self.network = network
        self.scalar = scalar
        self.register_buffer("order", order)
        arrival = order.argsort(stable=True)
        self.register_buffer("arrival", arrival)
        self.register_buffer("restore", arrival.argsort())
        self.sizes = order.bincount().tolist()
        self.pieces = None if pieces is None else nn.ModuleList(pieces)
        self.token_turns = token_turns
        self.turns = nn.ModuleList(scalar.only(features) for features in turns_of(order))

    @property
    def counts_evaluations(self) -> bool:
        return self.decoding != "sequential"

    def encode(
        self, x: Tensor, context: Tensor | None = None, *, call: SolveCall | None = None
    ) -> tuple[Tensor, Tensor]:
        y, slopes = self.scalar.encode(x, self.network(x, context))
        if self.counts_evaluations:
            report_passes(call, torch.ones_like(x[:, 0]))
        return y, constant_log_det(0, x) if slopes is None else sum_event(slopes)

    def decode(
        self, y: Tensor, context: Tensor | None = None, *, call: SolveCall | None = None
    ) -> tuple[Tensor, Tensor]:
        if self.counts_evaluations:
            return self._decode_and_count(y, context, call)
        if self.token_turns is not None:
            x, slopes = self.token_turns.decode(y, context)
            return x, constant_log_det(0, y) if slopes is None else sum_event(slopes)
        if self.pieces is None:
            return self._decode_in_passes(y, context)
        pieces = cast(Sequence[Turns], self.pieces)
        memories: list[Memory] = [{} for _ in pieces]
        found: list[Tensor] = []
        log_slopes: list[Tensor] = []
        for turn, now in enumerate(y.index_select(1, self.arrival).split(self.sizes, 1)):
            news = found[-1] if found else None
            raw = tuple(
                piece.take_turn(turn, news, memory, context, len(y))
                for piece, memory in zip(pieces, memories, strict=True)
            )
            x, slopes = cast(Scalar, self.turns[turn]).decode(now, raw)
            found.append(x)
            if slopes is not None:
                log_slopes.append(slopes)
        x = torch.cat(found, 1).index_select(1, self.restore)
        return x, sum_event(torch.cat(log_slopes, 1)) if log_slopes else constant_log_det(0, y)

    def _decode_and_count(
        self, y: Tensor, context: Tensor | None, call: SolveCall | None
    ) -> tuple[Tensor, Tensor]:
        inversion = Inversion(self._pass, self.order, guesses=self.decoding == "jacobi")
        x, slopes, passes = inversion.solve(y, context, len(self.sizes))
        report_passes(call, passes)
        return x, constant_log_det(0, y) if slopes is None else sum_event(slopes)

    def _decode_in_rows(
        self, net: RowNetwork, y: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        # Where nothing may wait for a device, whole passes in a loop of another kind.
        if net.goes_by_rows and (repeats_are_recorded() or not keeps_places()):
            x, slopes = decode_by_rows(net, self._decode, y, context)
            return x, sum_event(slopes)
        inversion = Inversion(self._pass, self.order, guesses=True)
        found = inversion.solve(y, context, len(self.sizes))
        return found.x, sum_event(cast(Tensor, found.log_slopes))

    def _pass(self, x: Tensor, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return self.scalar.decode(y, self.network(x, context))

    def _decode(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.scalar.decode(y, (raw,))

    def _decode_in_passes(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        net = self.network.nets[0]
        if isinstance(net, RowNetwork):
            return self._decode_in_rows(net, y, context)
        x, log_slopes = torch.zeros_like(y), torch.zeros_like(y)
        for turn in range(len(self.sizes)):
            found, slopes = self._pass(x, y, context)
            now = self.order == turn
            x = torch.where(now, found, x)
            if slopes is not None:
                log_slopes = torch.where(now, slopes, log_slopes)
        return x, sum_event(log_slopes)


def turns_of(order: Tensor) -> list[list[int]]:
    """The features of each order, ascending."""
    return [(order == turn).nonzero().flatten().tolist() for turn in range(int(order.max()) + 1)]


def fold_autoregressive(transform: MaskedAutoregressive) -> FoldedAutoregressive:
    """Fold a map whose conditioner may have been simplified already."""
    order = transform.order
    shape = (len(order),)
    network, scalar = fold_conditioner(transform.conditioner, transform.elementwise, shape)
    decoding = transform.decoding
    pieces, token_turns = None, None
    if decoding == "sequential" and [type(net) for net in network.nets] == [Transformer]:
        token_turns = TokenTurns(network, scalar)
    elif decoding == "sequential":
        pieces = _pieces(network, scalar, order)
    lay_out(network, scalar, len(order))
    return FoldedAutoregressive(
        network, scalar, order, pieces, token_turns=token_turns, decoding=decoding
    )


def _pieces(network: Network, scalar: Scalar, order: Tensor) -> list[Turns] | None:
    """Cut every network of a map into turns, if it can be."""
    turns = turns_of(order)
    # Two networks have one block of outputs each.
    wanted = [scalar.rows(now, len(order)) if len(network.nets) == 1 else now for now in turns]
    found = [incremental(net, order, wanted) for net in network.nets]
    cut: list[Turns] = [net for net in found if net is not None]
    return cut if len(cut) == len(found) else None


def relabelled(transform: MaskedAutoregressive, indices: Tensor) -> bool:
    """Change f into g with g(x)[indices] = f(x[indices]), so that a permutation passes behind it.

    Returns:
        Whether the conditioner is of a kind that is known here; if not, nothing is changed.
    """
    conditioner = transform.conditioner
    nets = (
        [conditioner.shift, conditioner.scale] if isinstance(conditioner, Pair) else [conditioner]
    )
    found = [(entry_layer(net), exit_layer(net)) for net in nets]
    layers = [(entry, last) for entry, last in found if entry is not None and last is not None]
    if len(layers) < len(nets):
        return False
    features = len(indices)
    back = indices.argsort()
    for entry, last in layers:
        context = torch.arange(features, entry.weight.shape[1])
        keep_columns(entry, torch.cat((back, context)).tolist())
        blocks = torch.arange(0, len(last.weight), features)
        keep_rows(last, (blocks[:, None] + back).flatten().tolist())
    transform.order = transform.order[back]
    transform.elementwise = transform.elementwise.only(back.tolist())
    return True
