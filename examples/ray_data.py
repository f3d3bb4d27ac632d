"""Score files of rows with Ray Data: a model in each of several worker processes.

    pip install 'pushforward[onnx,ray]'
    python ray_data.py models/fraud 'rows/*.parquet' scores --keep id --alpha 0.001 --actors 8

A folder of Parquet is written, with the columns that `pushforward score` writes, `status` too. A
row without an answer ends nothing; a worker that dies is started again, and its rows are computed
again. Rows come in any order: keep a column that tells them apart.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from pushforward.batch import Scorer


def score(
    model: str,
    rows: str | list[str],
    out: str,
    *,
    keep: Sequence[str] = (),
    actors: int,
    block_rows: int = 131_072,
    cores: float = 0.5,
    **fields: Any,
) -> None:
    """Score files of rows into a folder.

    Args:
        model: its folder, at this path on every machine.
        rows: Parquet, at paths or URLs that Ray reads.
        out: the folder to write; files in it are replaced.
        keep: columns that are carried along.
        actors: worker processes that compute.
        block_rows: at most, that an actor is given at a time. Ray's own blocks have 128 MiB, and a
            small file is one: work for one actor.
        cores: reserved for an actor. Actors that take all cores of a cluster leave none to read
            with, and Ray waits for ever.
        fields: of the operation, as in a request.
    """
    blocks = ray.data.read_parquet(rows).repartition(target_num_rows_per_block=block_rows)
    blocks.map_batches(
        Scorer,
        fn_constructor_args=(str(Path(model).resolve()), "score"),
        # A process for each core: one batch at a time in each.
        fn_constructor_kwargs={"keep": list(keep), "instances": 1, **fields},
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=cores,
        # Blocks of Ray are tables of Arrow: nothing is copied, and null stays null.
        batch_format="pyarrow",
        batch_size=16_384,
    ).write_parquet(out, mode=ray.data.SaveMode.OVERWRITE)


def main() -> None:
    """Score the files that the command names."""
    parser = argparse.ArgumentParser(description="Score files of rows with Ray Data.")
    parser.add_argument("model", help="its folder")
    parser.add_argument("rows", nargs="+", help="Parquet")
    parser.add_argument("out", help="the folder to write")
    parser.add_argument("--keep", nargs="*", default=[], help="columns to carry along")
    parser.add_argument("--alpha", type=float, help="share of ordinary rows that may be flagged")
    parser.add_argument("--actors", type=int, default=2, help="worker processes")
    parser.add_argument("--cores", type=float, default=0.5, help="reserved for an actor")
    given = parser.parse_args()
    fields = {} if given.alpha is None else {"alpha": given.alpha}
    numbers = {"actors": given.actors, "cores": given.cores}
    score(given.model, given.rows, given.out, keep=given.keep, **numbers, **fields)


if __name__ == "__main__":
    main()
