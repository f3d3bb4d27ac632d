"""How many equal steps the golden rows of a continuous flow take: known before graphs are made."""

from collections.abc import Callable

import torch

from models.checkpoints import golden
from models.flow import Flow
from models.onnx.certificate import CertificateError

# Each is some 120 nodes of a graph; onnxruntime needs minutes to open many thousands.
MAX_FIXED_STEPS = 64

_TRIED = (8, 16, 24, 32, 48, MAX_FIXED_STEPS)


def check_steps(fold_with: Callable[[int], Flow], record: golden.Record, steps: int) -> None:
    """Solve the golden rows in torch, both ways, with so many steps.

    Args:
        fold_with: makes the folded flow that takes a number of steps.
        record: the golden rows.
        steps: that were asked for.

    Raises:
        CertificateError: a row is not solved; says how many steps do.
    """
    unsolved = _unsolved(fold_with(steps), record)
    if not unsolved:
        return
    enough = (more for more in _TRIED if more > steps and not _unsolved(fold_with(more), record))
    first = next(enough, None)
    mend = (
        "leave fixed_steps out, so that each row takes steps of its own"
        if first is None
        else f"take {first}, which solve them"
    )
    raise CertificateError(
        f"fixed_steps: {steps} equal steps do not solve {unsolved} of {len(record['x'])} golden "
        f"rows to the model's tolerance; {mend}"
    )


@torch.no_grad()
def _unsolved(folded: Flow, record: golden.Record) -> int:
    """How many golden rows come back without numbers from encode or decode."""
    context = record.get("context")
    given = None if context is None else context.to(folded.dtype)
    _, encoded = folded.encode(record["x"].to(folded.dtype), given)
    _, decoded = folded.decode(record["z"].to(folded.dtype), given)
    return int((~(encoded.isfinite() & decoded.isfinite())).sum())
