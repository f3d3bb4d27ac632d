"""`Scorer` of tables of Arrow and frames of pandas: what the commands over files write."""

import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pushforward.batch import Scorer
from pushforward.batch.job import run
from pushforward.batch.plan import FilePlan

ZOO = Path(__file__).resolve().parents[3] / "models" / "zoo"
MOONS = ZOO / "moons"
X = np.random.default_rng(0).normal(size=(300, 2))
TABLE = pa.table({"id": range(300), "x2": X[:, 1], "x1": X[:, 0]})
SCORE = Scorer(MOONS, "score", alpha=0.05, keep=["id"])
BAD = [1.0, None, float("nan"), float("inf"), 1e300]


def by_files(table: pa.Table, folder: Path, operation: str, **fields: float) -> pa.Table:
    """What the command over files makes of the rows."""
    pq.write_table(table, folder / "rows.parquet")
    out, rows = folder / "out.parquet", str(folder / "rows.parquet")
    run(FilePlan(operation, MOONS, out, (rows,), keep=("id",), fields=fields))
    return pq.read_table(out).replace_schema_metadata()


@pytest.mark.parametrize(("operation", "fields"), [("score", {"alpha": 0.05}), ("encode", {})])
def test_a_table_becomes_what_a_file_becomes(
    operation: str, fields: dict[str, float], tmp_path: Path
) -> None:
    x1 = pa.array([*BAD, *X[5:, 0]], pa.float64())
    table = pa.table({"id": range(300), "x1": x1, "x2": X[:, 1]})
    wanted = by_files(table, tmp_path, operation, **fields)
    scorer = Scorer(MOONS, operation, keep=["id"], **fields)
    got = scorer(table)
    assert got.equals(wanted)
    assert got.column("status")[:5].to_pylist() == [
        "",
        "invalid_input: missing",
        "invalid_input: nan",
        "invalid_input: infinite",
        "invalid_input: too_large",
    ]
    (batch,) = table.to_batches()
    assert scorer(batch).equals(wanted.combine_chunks().to_batches()[0])


def test_batches_come_one_for_one_and_an_empty_one_has_the_columns() -> None:
    whole = SCORE(TABLE)
    empty = pa.RecordBatch.from_pylist([], TABLE.schema)
    batches = [*TABLE.to_batches(max_chunksize=128), empty]
    came = list(SCORE.map_in_arrow(iter(batches)))
    assert [each.num_rows for each in came] == [128, 128, 44, 0]
    assert pa.Table.from_batches(came).combine_chunks().equals(whole.combine_chunks())
    assert SCORE.output_schema(TABLE.schema) == whole.schema == came[-1].schema


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())],
)
def test_cells_of_text_are_looked_at_one_by_one(kind: pa.DataType) -> None:
    texts = pa.array(["0.5", " 1 ", "many", None]).cast(kind)
    answer = SCORE(pa.table({"id": range(4), "x1": texts, "x2": [0.0] * 4}))
    assert answer.column("status").to_pylist() == [
        "", "", "invalid_input: text", "invalid_input: missing",
    ]  # fmt: skip
    assert [each is None for each in answer.column("is_anomaly").to_pylist()] == [0, 0, 1, 1]


def test_lists_and_tensors_hold_rows() -> None:
    wanted = SCORE(TABLE).column("score")
    lists = pa.array(X.tolist())
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(X)
    for rows in (lists, lists.cast(pa.list_(pa.float64(), 2)), tensors):
        assert SCORE(pa.table({"id": range(300), "x": rows})).column("score").equals(wanted)
    broken = SCORE(pa.table({"id": range(3), "x": [[0.5, 0.1], [1.0], None]}))
    assert broken.column("status").to_pylist() == [
        "", "invalid_input: wrong_length", "invalid_input: missing",
    ]  # fmt: skip


def test_a_column_that_holds_no_numbers_is_refused() -> None:
    times = pa.array(range(300), pa.timestamp("s"))
    with pytest.raises(ValueError, match=r"the batch: column 'x1' holds timestamp\[s\]"):
        SCORE(pa.table({"id": range(300), "x1": times, "x2": X[:, 1]}))
    with pytest.raises(ValueError, match="an output column is called 'status' too"):
        Scorer(MOONS, "score", keep=["status"])(TABLE.append_column("status", [X[:, 0]]))
    with pytest.raises(ValueError, match="keep: there is no column 'ids', it has 'id'"):
        Scorer(MOONS, "score", keep=["ids"])(TABLE)


def test_a_frame_keeps_its_index_and_one_type_a_column() -> None:
    frame = TABLE.to_pandas().set_index(np.arange(300)[::-1])
    whole = SCORE(frame)
    wanted = SCORE(TABLE).to_pandas()
    assert [*whole] == ["id", "score", "log_prob", "p_value", "is_anomaly", "status"]
    assert whole.index.equals(frame.index)
    for name in whole:
        assert whole[name].tolist() == wanted[name].tolist(), name
    mixed = frame[:6].astype({"x1": object})
    mixed["x1"] = [0.5, None, pd.NA, "many", Decimal("0.5"), "0.5"]
    parts = list(SCORE.map_in_pandas(iter([mixed, frame[:0], frame[:0].astype(object)])))
    assert [part.dtypes.equals(whole.dtypes) for part in parts[:2]] == [True, True]
    assert parts[0]["status"].tolist() == [
        "", "invalid_input: missing", "invalid_input: missing", "invalid_input: text", "", "",
    ]  # fmt: skip
    assert parts[0]["score"].isna().tolist() == [False, True, True, True, False, False]
    assert len(parts[2]) == 0
    assert parts[0]["is_anomaly"].isna().tolist() == [False, True, True, True, False, False]


def test_kept_columns_of_a_frame_are_no_features() -> None:
    latents = pd.DataFrame(
        {
            "kind": pd.Categorical(["a", "b", "a"]),
            "first": X[:3, 0],
            "second": X[:3, 1],
            "day": pd.period_range("2026-01-01", periods=3),
        }
    )
    decoded = Scorer(MOONS, "decode", keep=["day", "kind"])(latents)
    assert [*decoded] == ["day", "kind", "x1", "x2", "log_det", "status"]
    assert decoded[["day", "kind"]].equals(latents[["day", "kind"]])
    wanted = Scorer(MOONS, "decode")({"z": X[:3]})["x"]
    assert np.array_equal(decoded[["x1", "x2"]].to_numpy(), wanted)
    drawn = Scorer(MOONS, "sample", seed=3, keep=["name"])(
        pd.DataFrame({"name": ["a", "b"], "row": [7, 8]})
    )
    assert [*drawn] == ["name", "x1", "x2", "log_prob", "status"]
    for name, told in (("status", "is called 'status' too"), ("ids", "there is no column 'ids'")):
        with pytest.raises(ValueError, match=told):
            Scorer(MOONS, "score", keep=[name])(TABLE.to_pandas().assign(status=0))


def test_rows_of_a_draw_keep_their_numbers() -> None:
    draw = Scorer(MOONS, "sample", seed=3, keep=["id"])
    table = draw(pa.table({"id": [7, 8, 600]}))
    assert table.column_names[:3] == ["id", "x1", "x2"]
    batch = draw({"id": np.array([7, 8, 600])})
    assert batch["id"].tolist() == table.column("id").to_pylist()
    assert batch["x"][:, 0].tolist() == table.column("x1").to_pylist()
    with pytest.raises(ValueError, match="one column of whole numbers beside id, got"):
        draw(TABLE)


def test_a_dict_keeps_columns_and_bad_rows_of_objects() -> None:
    scorer = Scorer(MOONS, "log_prob", keep=["id"])
    rows = np.empty(5, object)
    rows[:] = [[0.5, 0.1], np.array([0.5, 0.1]), [1.0], None, [0.5, "many"]]
    answer = scorer({"x": rows, "id": np.arange(5)})
    assert [*answer] == ["id", "log_prob", "status"]
    assert answer["status"].tolist() == [
        "", "", "invalid_input: wrong_length", "invalid_input: missing", "invalid_input: text",
    ]  # fmt: skip
    assert np.isnan(answer["log_prob"]).tolist() == [False, False, True, True, True]
    with pytest.raises(ValueError, match="an output is called 'status' too"):
        Scorer(MOONS, "log_prob", keep=["status"])({"x": X, "status": X[:, 0]})


def test_dicts_need_neither_arrow_nor_pandas() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('pyarrow', 'pandas')))\n"
        "import numpy as np; from pushforward.batch import Scorer\n"
        f"print(Scorer({str(MOONS)!r}, 'log_prob')(dict(x=np.zeros((2, 2))))['status'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "['' '']\n"), done.stderr
