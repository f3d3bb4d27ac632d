"""The file that all of them read, and the engine alone on what it holds."""

import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.noise import base_noise
from service.engines.certified import open_certified
from service.engines.engine import Engine

# Drawn from the model, and then again from these with a little noise: as many as are wanted.
_DRAWN = 100_000
_ROWS_IN_GROUP = 1_000_000
# The fastest of 64, 128, 256, ... 8192 on the machine of docs/files.md.
BATCH = 1024


def write_rows(model: Path, path: Path, rows: int) -> None:
    """Write rows like those of a model, float64, as pyarrow writes a table by default."""
    facts, selection = open_certified(model, None, 1)
    names = [column["name"] for column in facts.provenance["columns"]]
    drawn = _decode(selection.engine, base_noise(_DRAWN, len(names), seed=0))
    generator = np.random.default_rng(0)
    schema = pa.schema([(name, pa.float64()) for name in names])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, _ROWS_IN_GROUP):
            count = min(_ROWS_IN_GROUP, rows - start)
            x = drawn[generator.integers(0, _DRAWN, count)]
            x = x * (1 + 1e-6 * generator.standard_normal((count, 1)))
            writer.write_table(pa.table([*x.T], schema=schema))


def _decode(engine: Engine, z: NDArray[np.float64]) -> NDArray[np.float64]:
    parts = [
        engine.decode(z[start : start + BATCH].astype(engine.dtype), None)[0]
        for start in range(0, len(z), BATCH)
    ]
    return np.concatenate(parts).astype(np.float64)


class EngineAlone:
    """The engine in this process, one thread a core, on rows that lie in memory as it wants them.

    Args:
        model: its folder.
        path: of the file.
        threads: how many.
    """

    def __init__(self, model: Path, path: Path, threads: int) -> None:
        self._engine = open_certified(model, None, 1)[1].engine
        groups = pq.ParquetFile(path).read_row_group(0)
        columns = [column.to_numpy() for column in groups.columns]
        self._x = np.stack(columns, axis=1).astype(self._engine.dtype)
        self._threads = threads

    def seconds(self, rows: int) -> float:
        """How long so many rows take."""
        share = -(-rows // self._threads)
        threads = [threading.Thread(target=self._work, args=(share,)) for _ in range(self._threads)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - began

    def _work(self, rows: int) -> None:
        whole = len(self._x) - len(self._x) % BATCH
        for start in range(0, rows, BATCH):
            place = start % whole
            self._engine.encode(self._x[place : place + min(BATCH, rows - start)], None)
