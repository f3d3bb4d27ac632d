"""Going on with what was begun: of the same rows, model and options alone, and losing nothing."""

import gzip
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import pushforward.batch.job
from pushforward.batch.inputs import InputName, without_query
from pushforward.batch.plan import FilePlan
from pushforward.batch.provenance import command_of
from tests.pushforward.batch.test_files import MOONS, TABLE, Interrupted, interrupt_after, run

X = TABLE.select(["x1", "x2"])


@pytest.fixture
def given(tmp_path: Path) -> Path:
    pq.write_table(TABLE, tmp_path / "in.parquet", row_group_size=120)
    return tmp_path / "in.parquet"


@pytest.fixture
def small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushforward.batch.job, "MOST_ROWS", 64)


def test_another_configuration_is_another_model(tmp_path: Path, given: Path) -> None:
    """Tolerances and preprocessing stand beside the weights, whose digest does not know them."""
    model = Path(shutil.copytree(MOONS, tmp_path / "model"))
    out = tmp_path / "out.parquet"
    assert run("log-prob", model, given, "-o", out).exit_code == 0
    config = json.loads((model / "config.json").read_text())
    config["accuracy"] = {**config.get("accuracy", {}), "noted": 1.0}
    (model / "config.json").write_text(json.dumps(config))
    done = run("log-prob", model, given, "-o", out, "--resume")
    assert (done.exit_code, "another model" in done.output) == (2, True), done.output


@pytest.mark.parametrize("suffix", [".csv", ".npy"])
def test_a_file_without_a_schema_is_known_too(tmp_path: Path, given: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    words = ["score", MOONS, given, "-o", out]
    assert run(*words, "--alpha", "0.05").exit_code == 0
    before = out.read_bytes()
    assert run(*words, "--alpha", "0.05", "--resume").exit_code == 0
    done = run(*words, "--alpha", "0.001", "--resume")
    assert (done.exit_code, "other options" in done.output) == (2, True), done.output
    assert out.read_bytes() == before
    os.utime(out, ns=(0, 0))  # as if somebody had written to it
    assert run(*words, "--alpha", "0.05", "--resume").exit_code == 2
    assert run(*words, "--alpha", "0.001", "--overwrite").exit_code == 0
    assert run(*words, "--alpha", "0.001", "--resume").exit_code == 0


@pytest.mark.parametrize("name", ["in.parquet", "*.parquet"])
def test_what_is_read_is_not_written(tmp_path: Path, given: Path, name: str) -> None:
    before = given.read_bytes()
    done = run("log-prob", MOONS, tmp_path / name, "-o", given, "--overwrite")
    assert (done.exit_code, "one of the files that are read" in done.output) == (2, True)
    assert given.read_bytes() == before


def test_a_mistake_throws_no_parts_away(
    tmp_path: Path, given: Path, monkeypatch: pytest.MonkeyPatch, small_slabs: None
) -> None:
    out = tmp_path / "out.parquet"
    with monkeypatch.context() as patched:
        interrupt_after(3, patched)
        with pytest.raises(Interrupted):
            run("log-prob", MOONS, given, "-o", out)
    parts = sorted((tmp_path / ".out.parquet.partial").glob("*.arrow"))
    assert parts
    for wrong in (["--columns", "x1,nothing"], ["--keep", "nothing"]):
        assert run("log-prob", MOONS, given, "-o", out, *wrong).exit_code == 2
        assert sorted((tmp_path / ".out.parquet.partial").glob("*.arrow")) == parts
    assert run("log-prob", MOONS, given, "-o", out, "--resume").exit_code == 0


def test_a_finished_file_needs_nothing_whatever_lies_beside_it(tmp_path: Path, given: Path) -> None:
    out = tmp_path / "out.parquet"
    assert run("log-prob", MOONS, given, "-o", out).exit_code == 0
    partial = tmp_path / ".out.parquet.partial"
    partial.mkdir()
    (partial / "key.json").write_text('{"key": "of another run", "seed": null}')
    assert run("log-prob", MOONS, given, "-o", out, "--resume").exit_code == 0


def test_row_groups_without_rows_are_no_slabs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_slabs: None
) -> None:
    given, out, whole = (tmp_path / f"{name}.parquet" for name in ("in", "out", "whole"))
    with pq.ParquetWriter(given, X.schema) as writer:
        for table in (X.slice(0, 0), X.slice(0, 0), X.slice(0, 300), X.slice(0, 0), X.slice(300)):
            writer.write_table(table)
    assert pq.ParquetFile(given).num_row_groups == 5
    assert run("log-prob", MOONS, given, "-o", whole).exit_code == 0
    assert pq.read_table(whole).num_rows == TABLE.num_rows
    with monkeypatch.context() as patched:
        interrupt_after(2, patched)
        with pytest.raises(Interrupted):
            run("log-prob", MOONS, given, "-o", out)
    assert run("log-prob", MOONS, given, "-o", out, "--resume").exit_code == 0
    assert pq.read_table(out).equals(pq.read_table(whole))


def test_a_line_of_tabs_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "in.tsv").write_text("x1\tx2\n0.5\t1\n\t\n\n0.25\t2\n")
    out = tmp_path / "out.parquet"
    assert run("log-prob", MOONS, tmp_path / "in.tsv", "-o", out).exit_code == 3
    status = pq.read_table(out)["status"].to_pylist()
    assert [bool(reason) for reason in status] == [False, True, False]


def test_damaged_gzip_is_refused(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(b"x1,x2\n" + b"0.5,1.25\n" * 40_000))
    whole[len(whole) // 2] ^= 0xFF
    (tmp_path / "in.csv.gz").write_bytes(whole)
    done = run("log-prob", MOONS, tmp_path / "in.csv.gz", "-o", tmp_path / "out.parquet")
    assert (done.exit_code, "Traceback" in done.output) == (2, False), done.output


def test_signatures_of_addresses_are_told_to_nobody() -> None:
    signed = "https://bucket.example/rows.parquet?X-Amz-Signature=secret"
    assert InputName(signed).suffix == ".parquet"
    assert without_query(signed) == "https://bucket.example/rows.parquet"
    assert without_query("rows?.parquet") == "rows?.parquet"
    plan = FilePlan("log_prob", "model", Path("out.parquet"), inputs=(signed,))
    assert "secret" not in command_of(plan)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"context": 3, "seed": 7}, "--label 3 --seed 7"),
        ({"context": [0.5, -1.0]}, "--context 0.5,-1.0"),
    ],
)
def test_the_command_of_a_draw_is_one_that_the_command_line_takes(
    fields: dict[str, object], words: str
) -> None:
    plan = FilePlan("sample", "model", Path("out.parquet"), num_samples=5, fields=fields)
    assert command_of(plan).endswith(words)


def test_the_seed_of_a_draw_stands_in_its_command(tmp_path: Path) -> None:
    out, again = tmp_path / "out.parquet", tmp_path / "again.parquet"
    assert run("sample", MOONS, "-n", "20", "-o", out).exit_code == 0
    told = json.loads(pq.read_schema(out).metadata[b"pushforward"])
    assert "--seed" in told["command"]
    words = told["command"].split()[1:]
    assert run(*words, "-o", again).exit_code == 0
    assert pq.read_table(again).equals(pq.read_table(out))


def test_a_remote_file_of_which_nothing_is_told_is_digested(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fsspec.filesystem("memory").pipe({"/a.npy": b"12345", "/b.npy": b"54321"})
    assert InputName("memory://a.npy").version()["versions"]
    told = MemoryFileSystem.info

    def silent(self: MemoryFileSystem, path: str, **given: Any) -> dict[str, Any]:
        found = told(self, path, **given)
        return {name: found[name] for name in ("name", "size", "type")}

    monkeypatch.setattr(MemoryFileSystem, "info", silent)
    digest = InputName("memory://b.npy").version()["sha256"]
    assert digest == hashlib.sha256(b"54321").hexdigest()
