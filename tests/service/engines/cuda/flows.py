"""The table's flows in their inference form, made once for all tests of a process."""

import copy
from functools import cache
from pathlib import Path

from models.checkpoints import golden
from models.checkpoints.folder import Checkpoint
from models.flow import Flow
from models.fold import fold
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


def golden_rows(name: str) -> tuple[Array, Array, Array | None]:
    """The golden rows of a case in float32: x, z, context."""
    rows = {key: tensor.float().numpy() for key, tensor in checkpoint(name).record.items()}
    return rows["x"], rows["z"], rows.get("context")
