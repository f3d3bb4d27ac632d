"""Autoregressive maps: every feature is moved as the features before it say."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from models.ode.call import SolveCall
from models.transforms.elementwise import Elementwise, unpack_params
from models.transforms.jacobi import Decoding, Inversion, report_passes, with_implicit_gradient
from models.transforms.rows import RowNetwork, decode_by_rows
from models.transforms.transform import SolvingTransform, Transform, apply, sum_event


class MaskedAutoregressive(SolvingTransform):
    """y_i = f(x_i; net_i(x_<i, context)) for vectors (B, D), where "<" is a given order.

    Cost: encode takes one pass of the network, decode one pass an order, D as a rule; with
    decoding="jacobi" as many as it takes until nothing changes, that number at most (one more where
    a guess overflows). In training it does so always, and keeps one pass for the gradient.

    Args:
        order: of each feature, 0 .. passes - 1. Features of one order move together and do not see
            each other, so that two orders make a coupling.
        conditioner: (B, D), context -> (B, num_params * D), where the outputs for a feature depend
            on features of smaller order alone; see `models.conditioners.masked`.
        elementwise: the scalar map f.
        decoding: "sequential", one order after the other (of images whose network is a
            `RowNetwork` one row after the other, see `models.transforms.rows`); "passes", order
            after order, and a folded flow too takes whole passes of the network; "jacobi", see
            `models.transforms.jacobi`: the same bits as "passes". These two report the passes that
            each row took (`SolveCall`).

    Raises:
        ValueError: if a number between the first and the last order is nobody's.

    Reference: Papamakarios et al. 2017, MAF, eqs. 3-5 (arXiv 1705.07057).
    """

    order: Tensor

    def __init__(
        self,
        order: Sequence[int],
        conditioner: nn.Module,
        elementwise: Elementwise,
        *,
        decoding: Decoding = "sequential",
    ) -> None:
        super().__init__()
        self.decoding = decoding
        self.passes = 1 + max(order)
        if set(order) != set(range(self.passes)):
            raise ValueError(f"order: expected every number of 0 .. max, got {list(order)}")
        self.register_buffer("order", torch.tensor(order), persistent=False)
        self.conditioner = conditioner
        self.elementwise = elementwise

    @property
    def counts_evaluations(self) -> bool:
        return self.decoding != "sequential"

    def encode(
        self, x: Tensor, context: Tensor | None = None, *, call: SolveCall | None = None
    ) -> tuple[Tensor, Tensor]:
        y, log_slope = self.elementwise.encode(x, self._params(x, context))
        if self.counts_evaluations:
            report_passes(call, torch.ones_like(x[:, 0]))
        return y, sum_event(log_slope)

    def decode(
        self, y: Tensor, context: Tensor | None = None, *, call: SolveCall | None = None
    ) -> tuple[Tensor, Tensor]:
        differentiates = self._is_differentiated(y, context)
        if self.decoding == "sequential" and not (self.training and differentiates):
            return self._decode_in_turns(y, context)
        inversion = Inversion(self._pass, self.order, guesses=self.decoding != "passes")
        with _evaluated_norms(self.conditioner) as norms:
            with torch.no_grad():
                x, log_slope, passes = inversion.solve(y, context, self.passes)
            if differentiates:
                x = with_implicit_gradient(self._pass, x, y, context)
                _, log_slope = self._pass(x, y, context)
        if norms:
            with torch.no_grad():  # once, of what was found: guesses are no data
                self.conditioner(x, context)
        if self.counts_evaluations:
            report_passes(call, passes)
        return x, sum_event(cast(Tensor, log_slope))

    def _is_differentiated(self, y: Tensor, context: Tensor | None) -> bool:
        given = (y, *self.parameters(), *(() if context is None else (context,)))
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)

    def _decode_in_turns(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if isinstance(self.conditioner, RowNetwork):
            return self._decode_in_rows(self.conditioner, y, context)
        x, log_slope = torch.zeros_like(y), torch.zeros_like(y)
        for turn in range(self.passes):
            # Features whose turn is yet to come are computed from zeros and thrown away.
            found, slope = self._pass(x, y, context)
            now = self.order == turn
            x, log_slope = torch.where(now, found, x), torch.where(now, slope, log_slope)
        return x, sum_event(log_slope)

    def _decode_in_rows(
        self, network: RowNetwork, y: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if network.goes_by_rows:
            x, log_slope = decode_by_rows(network, self._decode, y, context)
            return x, sum_event(log_slope)
        inversion = Inversion(self._pass, self.order, guesses=True)
        solved = inversion.solve(y, context, self.passes)
        return solved.x, sum_event(cast(Tensor, solved.log_slopes))

    def _pass(self, x: Tensor, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Every feature of f^-1(y), as if those before it were the ones of x."""
        return self.elementwise.decode(y, self._params(x, context))

    def _decode(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        return self.elementwise.decode(y, unpack_params(raw, self.elementwise.num_params))

    def _params(self, x: Tensor, context: Tensor | None) -> Tensor:
        return unpack_params(self.conditioner(x, context), self.elementwise.num_params)


@contextmanager
def _evaluated_norms(network: nn.Module) -> Iterator[list[nn.BatchNorm1d]]:
    """Let batch norms that train use their running statistics: each row is solved by itself."""
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm1d)]
    training = [part for part in norms if part.training]
    for part in training:
        part.eval()
    try:
        yield training
    finally:
        for part in training:
            part.train()


class Swapped(SolvingTransform):
    """A transform with encode and decode exchanged.

    Around `MaskedAutoregressive` this is an IAF: sampling takes one pass, scoring D.

    Reference: Kingma et al. 2016, IAF, eq. 10 (arXiv 1606.04934).
    """

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform

    def encode(
        self, x: Tensor, context: Tensor | None = None, *, call: SolveCall | None = None
    ) -> tuple[Tensor, Tensor]:
        return apply(self.transform, x, context, call, decoding=True)

    def decode(
        self, y: Tensor, context: Tensor | None = None, *, call: SolveCall | None = None
    ) -> tuple[Tensor, Tensor]:
        return apply(self.transform, y, context, call, decoding=False)
