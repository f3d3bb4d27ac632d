"""Score files of rows with Dask: `map_partitions` of a frame.

    pip install 'pushforward[onnx,files]' 'dask[dataframe]'
    python dask_rows.py models/fraud 'rows/*.parquet' scores --keep id --alpha 0.001

Threads of a process share one model, and it computes as many batches at a time as there are cores;
workers of `dask.distributed` load it once each.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dask.dataframe

from pushforward.batch import Scorer


def score(model: str, rows: str, out: str, *, keep: Sequence[str] = (), **fields: Any) -> None:
    """Score files of rows into a folder.

    Args:
        model: its folder, at this path on every machine.
        rows: Parquet, at a path, a glob or a URL.
        out: the folder to write.
        keep: columns that are carried along.
        fields: of the operation, as in a request.
    """
    frame = dask.dataframe.read_parquet(rows)
    scorer = Scorer(Path(model).resolve(), "score", keep=keep, **fields)
    # Dask learns the columns by a call with two rows of its own.
    frame.map_partitions(scorer).to_parquet(out, write_index=False)


def main() -> None:
    """Score the files that the command names."""
    parser = argparse.ArgumentParser(description="Score files of rows with Dask.")
    parser.add_argument("model", help="its folder")
    parser.add_argument("rows", help="Parquet: a path, a glob or a URL")
    parser.add_argument("out", help="the folder to write")
    parser.add_argument("--keep", nargs="*", default=[], help="columns to carry along")
    parser.add_argument("--alpha", type=float, help="share of ordinary rows that may be flagged")
    given = parser.parse_args()
    fields = {} if given.alpha is None else {"alpha": given.alpha}
    score(given.model, given.rows, given.out, keep=given.keep, **fields)


if __name__ == "__main__":
    main()
