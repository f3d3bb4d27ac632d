"""The bits of a row in a batch of one size: at every position, with any neighbours."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.results import Results
from benchmarks.gpu.subjects import Subject
from service.contracts import Array
from service.engines.engine import Engine
from service.engines.places import has_same_bits_everywhere
from service.engines.selection import EngineSelection

PART = "bits in a bucket"
# Of engines without buckets of their own: what batches of a fixed size have.
DEFAULT_SIZES = (32,)

# Rows that are tried at all places: the one that is compared, and one beside it.
_TRIED = 2
_OF_THIS_MACHINE = "on this machine bits depend on the place, and a server does not promise them"


def check_bits(
    results: Results, subject: Subject, name: str, selection: EngineSelection, *, is_quick: bool
) -> None:
    """Compute one row in many batches of each size, and compare what comes out bit by bit.

    Args:
        is_quick: NaN are its neighbours in the middle alone.
    """
    engine = selection.engine
    if not selection.is_neighbour_invariant:
        results.skip(PART, f"{subject.name}, {name}", "the engine does not promise it")
        return
    sizes = selection.batch_sizes or DEFAULT_SIZES
    # As a server does: what the libraries of a machine decide is tried before it is promised.
    is_tried = not (selection.is_batch_invariant or selection.batch_sizes)
    if is_tried and not all(_has_places(subject, engine, size) for size in sizes):
        results.skip(PART, f"{subject.name}, {name}", _OF_THIS_MACHINE)
        return
    calls = {"encode": (engine.encode, subject.rows.x), "decode": (engine.decode, subject.rows.z)}
    for smaller, size in zip((0, *sizes), sizes, strict=False):
        for what, (call, rows) in calls.items():
            found: dict[str, tuple[bytes, bytes]] = {}
            batches = [*_batches(rows, subject.rows.context, size, is_quick=is_quick)]
            if selection.batch_sizes:
                batches.append(_padded(rows, subject.rows.context, smaller + 1))
            for label, batch, context, index in batches:
                value, log_det, *_ = call(batch, context)
                found[label] = value[index].tobytes(), log_det[index].tobytes()
            first = found["alone"]
            different = [label for label, got in found.items() if got != first]
            label = f"{subject.name}, {name}, {what}, {size} rows"
            detail = f"other bits where the row was {', '.join(different)}" if different else ""
            results.check(PART, label, f"{len(found)} batches", not different, detail)


def _has_places(subject: Subject, engine: Engine, size: int) -> bool:
    """Whether the row that is compared has the same bits at every place of a batch."""
    given = subject.rows._asdict()
    rows = {key: values[:_TRIED] for key, values in given.items() if values is not None}
    return has_same_bits_everywhere(engine, rows, size)


def _batches(
    rows: Array, context: Array | None, size: int, *, is_quick: bool
) -> Iterator[tuple[str, Array, Array | None, int]]:
    """Batches that hold the first row, and where.

    Padding is with copies, as batches of a fixed size are; then with other rows, then with rows
    that are not numbers.
    """
    taken = np.zeros(size, int)
    yield "alone", rows[taken], _take(context, taken), 0
    for place, index in {"first": 0, "middle": size // 2, "last": size - 1}.items():
        others = np.minimum(1 + np.arange(size) % max(1, len(rows) - 1), len(rows) - 1)
        others[index] = 0
        yield f"{place} among others", rows[others], _take(context, others), index
        if is_quick and place != "middle":
            continue
        lost = rows[others].copy()
        lost[np.arange(size) != index] = np.nan
        yield f"{place} among NaN", lost, _take(context, others), index


def _padded(
    rows: Array, context: Array | None, fewest: int
) -> tuple[str, Array, Array | None, int]:
    """The fewest rows that a batch of a size is taken for: the engine itself pads them."""
    taken = np.minimum(np.arange(fewest)[::-1] % len(rows), fewest - 1)
    return "padded by the engine", rows[taken], _take(context, taken), fewest - 1


def _take(context: Array | None, taken: NDArray[np.int_]) -> Array | None:
    return None if context is None else context[taken]
