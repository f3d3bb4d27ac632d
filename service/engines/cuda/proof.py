"""The proof that a captured batch computes each row by itself, and anew in each replay.

A graph replays whatever was recorded: with an input that was not copied in, an output that is not
written, or rows that see each other, it would answer with the numbers of somebody else.
"""

from collections.abc import Iterator

import numpy as np

from service.contracts import Array, EngineOutput
from service.engines.cuda.graphed import CapturedBatch

# Graphs and single launches of the same kernels differ by the choice of algorithms at most: units
# of the last place.
_ROUNDING_UNITS = 2**10
_NAMES = ("value", "log_det", "status", "evaluations")
# Golden rows that are replayed alone: what is left of one would be seen in the other.
_ISOLATED_ROWS = 2


class ProofFailed(RuntimeError):
    """A captured batch does not compute what it should; the message says what it does."""


def prove(batch: CapturedBatch, rows: Array, context: Array | None) -> None:
    """Replay golden rows: all together, then one alone first, in the middle and last among NaN.

    Outputs are NaN before each replay. Together they must be what the same kernels give that are
    launched one by one; alone each must have the same bits at every place.

    Args:
        batch: is to be proved; nobody else uses it.
        rows: golden rows, as the function takes them.
        context: theirs, if there is one.

    Raises:
        ProofFailed: it may not be used.
    """
    buffers, size = batch.buffers, batch.buffers.size
    got = _check_together(batch, rows, context, first=0)
    _check_together(batch, rows, context, first=1)
    for index in range(min(_ISOLATED_ROWS, len(rows), size)):
        for position in dict.fromkeys((0, size // 2, size - 1)):
            buffers.isolate(rows[index], None if context is None else context[index], position)
            alone = _replay(batch)
            if any(_bits(a[position]) != _bits(b[index]) for a, b in zip(alone, got, strict=True)):
                raise ProofFailed(
                    f"a row has other bits at place {position} of {size} among rows of NaN than "
                    f"at place {index} among golden rows"
                )


def _check_together(
    batch: CapturedBatch, rows: Array, context: Array | None, *, first: int
) -> list[Array]:
    """Replay golden rows, from one of them on, and compare them with single launches."""
    taken = np.arange(first, first + batch.buffers.size) % len(rows)
    batch.buffers.write(rows[taken], None if context is None else context[taken])
    batch.buffers.poison_outputs()
    batch.compute_uncaptured()
    wanted = _arrays(batch.buffers.read(len(taken)))
    got = _replay(batch)
    for name, found, expected in zip(_NAMES, got, wanted, strict=False):
        _compare(name, found, expected)
    return got


def _replay(batch: CapturedBatch) -> list[Array]:
    batch.buffers.poison_outputs()
    batch.replay().synchronize()
    return _arrays(batch.buffers.read(batch.buffers.size))


def _arrays(output: EngineOutput) -> list[Array]:
    """What is compared: `_NAMES`; the error of an estimated log-det may be no number."""
    value, log_det, *stats = output
    return [value, log_det, *(part for one in stats for part in one[:2])]


def _compare(name: str, got: Array, wanted: Array) -> None:
    allowed = (
        _ROUNDING_UNITS
        * np.finfo(np.result_type(wanted, np.float32)).eps
        * np.maximum(np.abs(wanted), 1)
    )
    # Not "is larger than": a NaN is no number that was computed.
    is_wrong = ~(np.abs(got - wanted) <= allowed)
    if (row := next(_rows_where(is_wrong), None)) is not None:
        raise ProofFailed(
            f"{name}: row {row} of {len(got)} is not what the same kernels give that are launched "
            "one by one"
        )


def _rows_where(is_wrong: Array) -> Iterator[int]:
    return iter(np.flatnonzero(is_wrong.reshape(len(is_wrong), -1).any(1)).tolist())


def _bits(values: Array) -> bytes:
    return np.ascontiguousarray(values).tobytes()
