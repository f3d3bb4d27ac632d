"""What a user writes who has a server and pandas: python -m benchmarks.files.client_loop."""

import sys

import pandas
import pyarrow.parquet as pq

from pushforward.client import Client

ROWS_IN_REQUEST = 10_000


def main(url: str, model: str, path: str, out: str) -> None:
    """Ask the server for the rows of a Parquet file, some at a time."""
    parts = []
    with Client(url, model=model) as client:
        for batch in pq.ParquetFile(path).iter_batches(ROWS_IN_REQUEST):
            frame = batch.to_pandas()
            parts.append(pandas.DataFrame({"log_prob": client.log_prob(frame)}))
    pandas.concat(parts).to_parquet(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
