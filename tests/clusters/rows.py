"""Rows in files, a few of them bad, and what the command over files makes of them."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from pushforward.batch.job import run
from pushforward.batch.plan import FilePlan

ZOO = Path(__file__).resolve().parents[2] / "models" / "zoo"
ALPHA = 0.05


class ScoredRows(NamedTuple):
    """Files of rows, and what they are scored to.

    model: the folder of the model.
    files: Parquet, in order; their rows are numbered by `id`.
    expected: what `pushforward score` writes of them.
    """

    model: Path
    files: list[Path]
    expected: pa.Table

    @property
    def pattern(self) -> str:
        """All files."""
        return str(self.files[0].parent / "*.parquet")


def make_rows(folder: Path, name: str, total: int, files: int) -> ScoredRows:
    """Write rows for a model of the zoo to files, one in a hundred bad, and score them.

    Args:
        folder: empty.
        name: of the model.
        total: how many rows.
        files: how many files.
    """
    model = ZOO / name
    drawn = folder / "drawn.parquet"
    run(FilePlan("sample", model, drawn, num_samples=total, fields={"seed": 1}))
    table = pq.read_table(drawn).drop_columns(["log_prob", "status"])
    table = _with_bad_rows(table).append_column("id", pa.array(np.arange(total)))
    inputs = folder / "rows"
    inputs.mkdir()
    paths = [inputs / f"{number:03}.parquet" for number in range(files)]
    size = total // files
    for number, path in enumerate(paths):
        pq.write_table(table.slice(number * size, size), path)
    out = folder / "scored.parquet"
    names = tuple(str(path) for path in paths)
    fields = {"alpha": ALPHA}
    run(FilePlan("score", model, out, names, fields=fields, keep=("id",)))
    return ScoredRows(model, paths, pq.read_table(out).replace_schema_metadata())


def read_rows(folder: Path) -> pa.Table:
    """Read what an engine wrote, in the order of `id`: that of its files says nothing."""
    table = pyarrow.dataset.dataset(folder, format="parquet", exclude_invalid_files=True).to_table()
    return table.sort_by("id").replace_schema_metadata().combine_chunks()


def _with_bad_rows(table: Any) -> Any:
    """Put null, infinity and what is no number into the first column."""
    values = table.column(0).to_numpy().astype(float)
    values[7::300], values[107::300] = np.nan, np.inf
    is_null = np.zeros(len(values), bool)
    is_null[207::300] = True
    return table.set_column(0, table.column_names[0], pa.array(values, mask=is_null))
