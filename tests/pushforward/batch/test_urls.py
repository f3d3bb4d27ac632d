"""Files behind URLs: what fsspec knows is read, and a URL as OUT is refused."""

import functools
import http.server
import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.pushforward.batch.test_files import MOONS, TABLE, run


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Whole files, as web servers give them that know no ranges; no log."""

    def log_message(self, *told: object) -> None:
        """Say nothing."""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def column(path: Path) -> list[float]:
    return pq.read_table(path)["log_prob"].to_pylist()


def test_rows_behind_urls_are_those_of_the_file(tmp_path: Path, address: str) -> None:
    here, there = tmp_path / "in.parquet", fsspec.filesystem("memory")
    pq.write_table(TABLE, here, row_group_size=120)
    there.pipe("/rows/in.parquet", here.read_bytes())
    given = {"here": here, "memory": "memory://rows/*.parquet"}
    if importlib.util.find_spec("aiohttp") is not None:
        given["http"] = f"{address}/in.parquet"
    for name, source in given.items():
        done = run("log-prob", MOONS, source, "-o", tmp_path / f"{name}.out.parquet")
        assert done.exit_code == 0, done.output
        assert column(tmp_path / f"{name}.out.parquet") == column(tmp_path / "here.out.parquet")
    out = tmp_path / "memory.out.parquet"
    assert run("log-prob", MOONS, "memory://rows/*.parquet", "-o", out, "--resume").exit_code == 0
    there.pipe("/rows/in.parquet", here.read_bytes()[:-30])
    done = run("log-prob", MOONS, "memory://rows/*.parquet", "-o", out, "--overwrite")
    assert (done.exit_code, "not readable" in done.output) == (2, True), done.output


def test_a_url_as_output_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", np.ones((3, 2)))
    done = run("log-prob", MOONS, tmp_path / "in.npy", "-o", "s3://bucket/out.parquet")
    assert done.exit_code == 2
    assert "a path of this machine" in done.output
    assert not (tmp_path / "s3:").exists()
