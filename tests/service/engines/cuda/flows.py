"""The table's flows in their inference form, made once for all tests of a process."""

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from models.checkpoints import golden
from models.checkpoints.folder import Checkpoint
from models.flow import Flow
from models.fold import fold
from models.ode.call import SolveCall
from service.contracts import Array
from tests.cases import CASES, make_flow

DISCRETE = [name for name, case in CASES.items() if not case.continuous]


@cache
def checkpoint(name: str) -> Checkpoint:
    """A case in float32, with a few golden rows."""
    exact = make_flow(name)
    record = golden.record(exact, golden.draw(exact, rows=4))
    return Checkpoint(Path(name), copy.deepcopy(exact).float(), exact, record)


@cache
def folded(name: str) -> Flow:
    """A case in float32, folded."""
    return fold(make_flow(name).float())


class RowByRow(Flow):
    """A flow that computes each row alone: its bits depend on no place, whatever the processor."""

    def encode(
        self, x: Tensor, context: Tensor | None = None, *, call: SolveCall | None = None
    ) -> tuple[Tensor, Tensor]:
        return _row_by_row(super().encode, x, context)

    def decode(
        self, z: Tensor, context: Tensor | None = None, *, call: SolveCall | None = None
    ) -> tuple[Tensor, Tensor]:
        return _row_by_row(super().decode, z, context)


def _row_by_row(
    function: Callable[..., tuple[Tensor, Tensor]], value: Tensor, context: Tensor | None
) -> tuple[Tensor, Tensor]:
    # In memory of its own: processors compute rows that begin at other places by other steps.
    rows = [row.clone() for row in value.split(1)]
    contexts = [None] * len(rows) if context is None else [row.clone() for row in context.split(1)]
    found = [function(*given) for given in zip(rows, contexts, strict=True)]
    return torch.cat([one for one, _ in found]), torch.cat([one for _, one in found])


@cache
def row_by_row(name: str) -> Flow:
    """A case in float32, folded, that computes each row alone."""
    plain = folded(name)
    flow = RowByRow(
        plain.chain, plain.event_shape, context_shape=plain.context_shape, facts=plain.facts
    )
    return flow.eval()


def golden_rows(name: str) -> tuple[Array, Array, Array | None]:
    """The golden rows of a case in float32: x, z, context."""
    rows = {key: tensor.float().numpy() for key, tensor in checkpoint(name).record.items()}
    return rows["x"], rows["z"], rows.get("context")
