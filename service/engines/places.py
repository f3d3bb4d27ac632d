"""Whether a row has the same bits at every place of a batch of one fixed size: tried, not assumed.

Libraries of matrix products cut small batches into blocks, and compute the rows that are left over
in another way: at some sizes, on some processors, the place of a row decides about its last bits.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from service.contracts import Array, EngineOutput
from service.engines.engine import Engine
from service.engines.selection import EngineSelection

# Rows that are tried at all places; each takes one batch, and one more beside the others.
_ROWS = 4

_EVEN_ROWS = "--max-batch-size 32 is a size at which libraries leave no rows over"
_EVEN_CODE = "MKL_CBWR=AUTO, or unset, is where MKL rounds rows alike"

_log = logging.getLogger(__name__)


def prove_places(
    selection: EngineSelection, record: Mapping[str, Array], rows: int, name: str
) -> EngineSelection:
    """Take back that rows have the same bits at every place of a batch, where they have not.

    Args:
        selection: an engine, and what is claimed of it.
        record: golden rows: x (n, *event_shape), z (n, D) and perhaps context.
        rows: of a batch, always.
        name: of the model.
    """
    if selection.is_batch_invariant or not selection.is_neighbour_invariant:
        return selection
    if has_same_bits_everywhere(selection.engine, record, rows):
        return selection
    _log.warning(
        "%s: on this machine the last bits of a row depend on its place in batches of %d rows; %s",
        name,
        rows,
        _EVEN_ROWS if rows % 32 else _EVEN_CODE,
    )
    return replace(selection, is_neighbour_invariant=False)


def has_same_bits_everywhere(engine: Engine, record: Mapping[str, Array], rows: int) -> bool:
    """Whether every golden row that is tried has, at all places and beside others, the same bits.

    Args:
        engine: computes both directions.
        record: golden rows, as for `prove_places`.
        rows: of a batch.
    """
    context = record.get("context")
    return all(
        _is_same(call, record[given].astype(engine.dtype), context, engine.dtype, rows)
        for call, given in ((engine.encode, "x"), (engine.decode, "z"))
    )


def _is_same(
    call: Callable[[Array, Array | None], EngineOutput],
    values: Array,
    context: Array | None,
    dtype: str,
    rows: int,
) -> bool:
    chosen = np.arange(min(_ROWS, len(values)))
    mixed = np.resize(chosen, rows)

    def batch(index: Array) -> tuple[Array, Array]:
        beside = None if context is None else context[index].astype(dtype)
        value, log_det, *_ = call(np.ascontiguousarray(values[index]), beside)
        return value.reshape(rows, -1), log_det.reshape(rows, 1)

    together = np.hstack(batch(mixed))
    for row in chosen:
        alone = np.hstack(batch(np.full(rows, row)))
        # As bytes: NaN is equal to itself, and 0 is not -0.
        wanted = alone[0].tobytes()
        if any(found.tobytes() != wanted for found in (*alone, *together[mixed == row])):
            return False
    return True
