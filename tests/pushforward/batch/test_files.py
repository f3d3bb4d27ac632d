"""Commands over files: the same numbers from every kind, parts and resumption, bad rows."""

import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

import pushforward.batch.job
from models.scoring.conformal import q_values
from pushforward.batch import Scorer
from pushforward.cli import app as cli
from service.errors import EngineError

ZOO = Path(__file__).resolve().parents[3] / "models" / "zoo"
MOONS = ZOO / "moons"
ROWS = 500
X = np.random.default_rng(0).normal(size=(ROWS, 2))
TABLE = pa.table({"id": np.arange(ROWS), "x2": X[:, 1], "x1": X[:, 0]})


def run(*arguments: str | Path) -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(cli.build(words), words)


def log_prob(*arguments: str | Path, code: int = 0, out: Path) -> pa.Table:
    done = run("log-prob", MOONS, *arguments, "-o", out)
    assert done.exit_code == code, done.output
    return pq.read_table(out)


@pytest.fixture(scope="module")
def wanted() -> np.ndarray:
    return Scorer(MOONS, "log_prob")({"x": X})["log_prob"]


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    pq.write_table(TABLE, tmp_path / "in.parquet", row_group_size=120)
    return tmp_path / "in.parquet"


def _write_csv(path: Path) -> None:
    pyarrow.csv.write_csv(TABLE, path)


def _write_gzip(path: Path) -> None:
    _write_csv(path.with_suffix(""))
    path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))


def _write_stream(path: Path) -> None:
    with pa.ipc.new_stream(path, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=70)


WRITERS = {
    "in.parquet": lambda path: pq.write_table(TABLE, path, row_group_size=120),
    "in.csv": _write_csv,
    "in.csv.gz": _write_gzip,
    "in.feather": lambda path: pyarrow.feather.write_feather(TABLE, path, chunksize=70),
    "in.arrow": _write_stream,
    "in.npy": lambda path: np.save(path, X),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_numbers(
    tmp_path: Path, wanted: np.ndarray, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushforward.batch.job, "MOST_ROWS", 64)
    WRITERS[name](tmp_path / name)
    out = log_prob(tmp_path / name, out=tmp_path / "out.parquet")
    assert out.column_names == ["log_prob", "status"]
    assert np.array_equal(out["log_prob"].to_numpy(), wanted)
    assert set(out["status"].to_pylist()) == {""}


def test_globs_folders_and_urls_in_order_of_name(tmp_path: Path, wanted: np.ndarray) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    pq.write_table(TABLE.slice(200), inside / "b.parquet")
    pq.write_table(TABLE.slice(0, 200).select(["x1", "x2", "id"]), inside / "a.parquet")
    for number, given in enumerate((inside / "*.parquet", inside, f"file://{inside}/*.parquet")):
        out = log_prob(given, "--keep", "id", out=tmp_path / f"{number}.parquet")
        assert out["id"].to_pylist() == list(range(ROWS))
        assert np.array_equal(out["log_prob"].to_numpy(), wanted)


def test_columns_to_keep_have_one_type_in_all_files(tmp_path: Path) -> None:
    def kept(first: pa.DataType, second: pa.DataType) -> str:
        for name, kind in (("a", first), ("b", second)):
            ids = pa.nulls(ROWS) if kind == pa.null() else TABLE["id"].cast(kind)
            pq.write_table(TABLE.set_column(0, "id", ids), tmp_path / f"{name}.parquet")
        words = (tmp_path / "a.parquet", tmp_path / "b.parquet", "--keep", "id", "--overwrite")
        done = run("log-prob", MOONS, *words, "-o", tmp_path / "out.parquet")
        assert done.exit_code in (0, 2), done.output
        return done.output if done.exit_code else ""

    narrower = [(pa.int64(), pa.int32()), (pa.int64(), pa.null()), (pa.string(), pa.int64())]
    assert [kept(*pair) for pair in narrower] == [""] * 3
    told = kept(pa.int64(), pa.string())
    assert f"{tmp_path}/b.parquet: keep: column 'id' holds string, and int64 in the first" in told
    assert "holds int64, and null in the first file" in kept(pa.null(), pa.int64())
    assert not (tmp_path / ".out.parquet.partial" / "0-0.arrow").exists()


def test_an_engine_that_fails_is_no_fault_of_the_command(
    tmp_path: Path, parquet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*arguments: object) -> None:
        raise EngineError("the engine failed on these rows")

    monkeypatch.setattr("pushforward.batch.session.infer", fail)
    done = run("log-prob", MOONS, parquet, "-o", tmp_path / "out.parquet")
    assert (done.exit_code, done.output) == (1, "error: the engine failed on these rows\n")


def test_copies_of_remote_files_go_with_the_process(tmp_path: Path, wanted: np.ndarray) -> None:
    copies = tmp_path / "tmp"
    copies.mkdir()
    np.save(tmp_path / "a.npy", X[:200])
    np.savetxt(tmp_path / "b.csv", X[200:], delimiter=",", header="x1,x2", comments="", fmt="%.17g")
    out = tmp_path / "out.npy"
    inputs = [f"file://{tmp_path}/{name}" for name in ("a.npy", "b.csv")]
    code = "from pushforward.cli.main import main; main()"
    subprocess.run(
        [sys.executable, "-c", code, "log-prob", MOONS, *inputs, "-o", out],
        check=True,
        env={**os.environ, "TMPDIR": str(copies)},
    )
    assert np.array_equal(np.load(out), wanted)
    assert not [*copies.iterdir()]


def test_outputs_are_named_as_in_json_and_come_back(tmp_path: Path, parquet: Path) -> None:
    z, x = tmp_path / "z.csv.gz", tmp_path / "x.parquet"
    assert run("encode", MOONS, parquet, "-o", z).exit_code == 0
    assert gzip.decompress(z.read_bytes()).startswith(b"z_0,z_1,log_det,status\n")
    assert run("decode", MOONS, z, "-o", x, "--keep", "log_det").exit_code == 2
    assert run("decode", MOONS, z, "-o", x).exit_code == 0
    decoded = pq.read_table(x)
    assert decoded.column_names == ["x1", "x2", "log_det", "status"]
    assert np.allclose(decoded["x1"].to_numpy(), X[:, 0], atol=1e-4)


def test_scores_are_those_of_scorer_with_provenance(tmp_path: Path, parquet: Path) -> None:
    out = tmp_path / "out.parquet"
    done = run("score", MOONS, parquet, "-o", out, "--alpha", "0.05", "--explain", 1)
    assert done.exit_code == 0, done.output
    table = pq.read_table(out)
    answer = Scorer(MOONS, "score", alpha=0.05, explain=1)({"x": X})
    assert table.column_names == [*answer]
    for name in ("score", "log_prob", "p_value", "is_anomaly"):
        assert np.array_equal(table[name].to_numpy(), answer[name]), name
    explained = [row for row in table["explanation"].to_pylist() if row is not None]
    assert len(explained) == answer["is_anomaly"].sum()
    assert json.loads(explained[0])[0]["feature"] in ("x1", "x2")
    told = json.loads(table.schema.metadata[b"pushforward"])
    assert told["command"] == f"pushforward score {MOONS} {parquet} --alpha 0.05 --explain 1"
    assert told["model"]["calibration"] == json.loads((MOONS / "calibration.json").read_text()).get(
        "id", told["model"]["calibration"]
    )
    assert len(told["model"]["weights_sha256"]) == 64
    assert {"pushforward", "numpy", "pyarrow"} <= told["versions"].keys()


def test_discoveries_are_those_of_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushforward.batch.job, "MOST_ROWS", 64)
    rows = np.random.default_rng(3).normal(size=(300, 2)) * 2
    rows[7, 0] = np.nan
    np.save(tmp_path / "in.npy", rows)
    out = tmp_path / "out.parquet"
    words = ("score", MOONS, tmp_path / "in.npy", "-o", out, "--fdr", "0.2")
    with monkeypatch.context() as patch:
        interrupt_after(3, patch)
        with pytest.raises(Interrupted):
            run(*words)
    assert run(*words, "--resume").exit_code == 3
    table = pq.read_table(out)
    p = np.array(table["p_value"].to_pylist(), float)
    q = q_values(p)
    assert 0 < (q <= 0.2).sum() < (p <= 0.2).sum()
    assert table.column_names[:5] == ["score", "log_prob", "p_value", "q_value", "is_anomaly"]
    assert np.array_equal(np.array(table["q_value"].to_pylist(), float), q, equal_nan=True)
    assert table["is_anomaly"].to_pylist() == [
        None if np.isnan(value) else value <= 0.2 for value in q
    ]
    for more in (("--explain", "1"), ("--alpha", "0.1")):
        done = run(*words, "--overwrite", *more)
        assert (done.exit_code, more[0][2:] in done.output) == (2, True), done.output
    done = run(*words[:-1], "2", "--overwrite")
    assert (done.exit_code, "fdr" in done.output) == (2, True), done.output


def test_an_array_of_the_first_output(tmp_path: Path, parquet: Path, wanted: np.ndarray) -> None:
    assert run("log-prob", MOONS, parquet, "-o", tmp_path / "out.npy").exit_code == 0
    assert np.array_equal(np.load(tmp_path / "out.npy"), wanted)
    assert run("encode", MOONS, parquet, "-o", tmp_path / "z.npy").exit_code == 0
    z = Scorer(MOONS, "encode")({"x": X})["z"]
    assert np.array_equal(np.load(tmp_path / "z.npy"), z)


def test_samples_are_those_of_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushforward.batch.job, "MOST_ROWS", 64)
    out = tmp_path / "out.parquet"
    done = run("sample", MOONS, "-n", 300, "--seed", 5, "-o", out, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["seed"] == 5
    drawn = Scorer(MOONS, "sample", seed=5)({"row": np.arange(300)})
    assert np.array_equal(pq.read_table(out)["x2"].to_numpy(), drawn["x"][:, 1])


def test_a_bad_row_ends_nothing_and_is_named(tmp_path: Path) -> None:
    lines = [f"{a!r},{b!r}" for a, b in X.tolist()]
    broken = {5: "1", 17: "1,2,3", 40: ",2", 41: "inf,1", 99: "many,1", 120: '"1,2', 499: "1e300,0"}
    for row, line in broken.items():
        lines[row] = line
    (tmp_path / "in.csv").write_text("\n".join(["x1,x2", *lines]) + "\n")
    done = run("log-prob", MOONS, tmp_path / "in.csv", "-o", tmp_path / "out.csv", "--json")
    assert done.exit_code == 3, done.output
    told = json.loads(done.stdout)
    assert told["bad_rows"] == len(broken)
    assert told["first_bad"] == [
        {"row": 5, "status": "invalid_input: malformed_row"},
        {"row": 17, "status": "invalid_input: malformed_row"},
        {"row": 40, "status": "invalid_input: missing"},
        {"row": 41, "status": "invalid_input: infinite"},
        {"row": 99, "status": "invalid_input: text"},
        {"row": 120, "status": "invalid_input: malformed_row"},
        {"row": 499, "status": "invalid_input: too_large"},
    ]
    got = (tmp_path / "out.csv").read_text().splitlines()[1:]
    assert [row for row, line in enumerate(got) if line.startswith(",")] == [*broken]
    assert got[5] == ',"invalid_input: malformed_row"'
    clean = Scorer(MOONS, "log_prob")({"x": X})["log_prob"]
    assert np.float32(got[498].split(",")[0]) == clean[498]


def test_on_bad_row_fail_names_the_row_and_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("x1,x2\n1,2\n1,\n")
    out = tmp_path / "out.csv"
    done = run("log-prob", MOONS, tmp_path / "in.csv", "-o", out, "--on-bad-row", "fail")
    assert (done.exit_code, out.exists()) == (3, False)
    assert "row 1: invalid_input: missing" in done.output
    # Also where an interrupted run that did not mind had done the row.
    assert run("log-prob", MOONS, tmp_path / "in.csv", "-o", out).exit_code == 3


def test_a_file_that_exists_stays_until_it_is_to_be_replaced(tmp_path: Path, parquet: Path) -> None:
    out = tmp_path / "out.parquet"
    log_prob(parquet, out=out)
    before = out.read_bytes()
    done = run("log-prob", MOONS, parquet, "-o", out)
    assert done.exit_code == 2
    assert "--overwrite" in done.output
    done = run("log-prob", MOONS, parquet, "-o", out, "--resume", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["is_done_before"]
    done = run("score", MOONS, parquet, "-o", out, "--resume")
    assert done.exit_code == 2
    assert "it is complete, and of other rows" in done.output
    assert out.read_bytes() == before
    assert run("score", MOONS, parquet, "-o", out, "--overwrite").exit_code == 0
    assert out.read_bytes() != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet", "out.parquet"]


class Interrupted(BaseException):
    """What a test ends a run with, in the place of a signal."""


def interrupt_after(parts: int, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Have a run end once it has kept some parts; returns those that are kept."""
    made: list[tuple[int, int]] = []
    add = pushforward.batch.job.PartialOutput.add

    def counted(self: object, file: int, number: int, table: pa.Table) -> None:
        if len(made) == parts:
            raise Interrupted
        add(self, file, number, table)
        made.append((file, number))

    monkeypatch.setattr(pushforward.batch.job.PartialOutput, "add", counted)
    return made


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_resumed_has_the_same_bytes(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushforward.batch.job, "MOST_ROWS", 64)
    monkeypatch.setattr("pushforward.batch.text.BLOCK_BYTES", 2000)
    for folder in ("1", "2"):
        (tmp_path / folder).mkdir()
    WRITERS[name](tmp_path / name)
    whole, resumed = tmp_path / "1" / "out.parquet", tmp_path / "2" / "out.parquet"
    given = (tmp_path / name, tmp_path / name)
    log_prob(*given, out=whole)
    with monkeypatch.context() as patch:
        interrupt_after(7, patch)
        with pytest.raises(Interrupted):
            run("log-prob", MOONS, *given, "-o", resumed)
    assert not resumed.exists()
    with monkeypatch.context() as patch:
        made = interrupt_after(1000, patch)
        done = run("log-prob", MOONS, *given, "-o", resumed, "--resume", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["resumed_rows"] > 0
    assert made
    assert (0, 0) not in made
    assert resumed.read_bytes() == whole.read_bytes()
    assert [path.name for path in resumed.parent.iterdir()] == ["out.parquet"]


def test_parts_of_something_else_are_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushforward.batch.job, "MOST_ROWS", 64)
    out = tmp_path / "out.parquet"

    def again(*more: str | int, code: int) -> str:
        done = run("sample", MOONS, "-n", 300, "-o", out, "--json", *more)
        assert done.exit_code == code, done.output
        return done.output

    with monkeypatch.context() as patch:
        interrupt_after(2, patch)
        with pytest.raises(Interrupted):
            again(code=1)
    told = again("--resume", "--temperature", 2, code=2)
    assert "--overwrite begins anew" in told
    told = json.loads(again("--resume", code=0))
    assert told["resumed_rows"] == 128  # by the seed that was drawn then
    drawn = Scorer(MOONS, "sample", seed=told["seed"])({"row": np.arange(300)})
    assert np.array_equal(pq.read_table(out)["x1"].to_numpy(), drawn["x"][:, 0])


def test_a_run_that_is_killed_is_resumed_to_the_same_bytes(tmp_path: Path) -> None:
    rows = np.random.default_rng(1).normal(size=(400_000, 2))
    pq.write_table(pa.table({"x1": rows[:, 0], "x2": rows[:, 1]}), tmp_path / "in.parquet")
    words = ["log-prob", MOONS, tmp_path / "in.parquet", "-o", tmp_path / "out.parquet"]
    code = "from pushforward.cli.main import main; main()"
    command = [sys.executable, "-c", code, *map(str, words)]
    parts = tmp_path / ".out.parquet.partial"
    with subprocess.Popen(command) as process:
        until = time.monotonic() + 60
        while len([*parts.glob("*.arrow")]) < 2 and time.monotonic() < until:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert len([*parts.glob("*.arrow")]) >= 2
    assert not (tmp_path / "out.parquet").exists()
    assert run(*words, "--resume").exit_code == 0
    whole = tmp_path / "whole.parquet"
    log_prob(tmp_path / "in.parquet", out=whole)
    assert (tmp_path / "out.parquet").read_bytes() == whole.read_bytes()
    assert not parts.exists()


def test_an_input_is_known_by_what_it_holds(tmp_path: Path, parquet: Path) -> None:
    out = tmp_path / "out.parquet"
    log_prob(parquet, out=out)
    before = parquet.stat()
    told = json.loads(pq.read_schema(out).metadata[b"pushforward"])
    digest = hashlib.sha256(parquet.read_bytes()).hexdigest()
    assert told["inputs"] == [{"name": str(parquet), "bytes": before.st_size, "sha256": digest}]
    moved = shutil.copy(parquet, tmp_path / "copy.parquet")
    assert run("log-prob", MOONS, moved, "-o", out, "--resume").exit_code == 0
    content = bytearray(parquet.read_bytes())
    content[200] ^= 1  # of a page; what the footer tells is as it was
    parquet.write_bytes(content)
    os.utime(parquet, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert run("log-prob", MOONS, parquet, "-o", out, "--resume").exit_code == 2


def test_two_runs_do_not_write_one_file(tmp_path: Path, parquet: Path) -> None:
    other = pushforward.batch.job.PartialOutput(tmp_path / "out.parquet")
    other.lock()
    done = run("log-prob", MOONS, parquet, "-o", tmp_path / "out.parquet")
    assert done.exit_code == 2
    assert "another run writes it now" in done.output
    other.remove()


def test_rows_of_lists_and_named_columns(tmp_path: Path, wanted: np.ndarray) -> None:
    lists = pa.array([*X.tolist()[:4], None, [1.0], [1.0, None]])
    pq.write_table(pa.table({"x": lists}), tmp_path / "lists.parquet")
    out = log_prob(tmp_path / "lists.parquet", out=tmp_path / "1.parquet", code=3)
    assert np.array_equal(out["log_prob"].to_numpy()[:4], wanted[:4])
    assert out["status"].to_pylist()[4:] == [
        "invalid_input: missing",
        "invalid_input: wrong_length",
        "invalid_input: missing",
    ]
    pq.write_table(TABLE.rename_columns(["id", "b", "a"]), tmp_path / "named.parquet")
    out = log_prob(tmp_path / "named.parquet", "--columns", "a,b", out=tmp_path / "2.parquet")
    assert np.array_equal(out["log_prob"].to_numpy(), wanted)


def test_a_model_that_rows_depend_on_is_part_of_the_key(tmp_path: Path, parquet: Path) -> None:
    model = Path(shutil.copytree(MOONS, tmp_path / "moons"))
    out = tmp_path / "out.parquet"
    assert run("score", model, parquet, "-o", out).exit_code == 0
    (model / "calibration.json").unlink()
    assert run("score", model, parquet, "-o", out, "--resume").exit_code == 2
