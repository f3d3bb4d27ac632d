"""Commands over files of conditional models, and of calibrations that need more than log p."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import models
from pushforward.batch import Scorer
from tests.pushforward.batch.test_files import run
from tests.pushforward.batch.test_scorer import ask
from tests.pushforward.cli.test_calibration_scores import flow_of, saved

ZOO = Path(__file__).resolve().parents[3] / "models" / "zoo"
RNG = np.random.default_rng(5)
X = RNG.normal(size=(40, 2)).astype(np.float32)


def table_of(**columns: Any) -> pa.Table:
    return pa.table({"x_0": X[:, 0], "x_1": X[:, 1], **columns})


def test_scores_of_classes_are_those_of_the_server(tmp_path: Path) -> None:
    folder = saved(flow_of(num_classes=2), tmp_path / "pets")
    kinds = np.arange(40) % 2
    rows = "\n".join(f"{a!r},{b!r},{kind}" for (a, b), kind in zip(X.tolist(), kinds, strict=True))
    (tmp_path / "rows.csv").write_text(f"x_0,x_1,kind\n{rows}\n")
    done = run("calibrate", folder, "--data", f"{tmp_path}/rows.csv?label=kind")
    assert done.exit_code == 0, done.output
    told = ask("score", folder, x=X.tolist(), context=kinds.tolist(), alpha=0.1)
    out = tmp_path / "out.parquet"
    words = ("score", folder, tmp_path / "rows.csv", "--context", "kind", "--alpha", "0.1")
    assert run(*words, "-o", out).exit_code == 0
    found = pq.read_table(out)
    for name in ("score", "p_value", "is_anomaly"):
        assert found[name].to_pylist() == told[name], name
    labels = pa.array([*kinds[:38].tolist(), None, 7])
    pq.write_table(table_of(kind=labels), tmp_path / "rows.parquet")
    done = run(*words[:2], tmp_path / "rows.parquet", *words[3:], "-o", out, "--overwrite")
    assert done.exit_code == 3, done.output
    found = pq.read_table(out)
    assert found["p_value"].to_pylist() == [*told["p_value"][:38], None, None]
    assert found["status"].to_pylist()[38:] == [
        "invalid_input: missing",
        "invalid_input: unknown_label",
    ]
    done = run("score", folder, tmp_path / "rows.parquet", "-o", out, "--overwrite")
    assert done.exit_code == 2
    assert "takes 1 column(s) of labels, got none" in done.output


def test_what_is_conditional_on_numbers_takes_a_column_of_each(tmp_path: Path) -> None:
    folder = saved(flow_of(context_features=2), tmp_path / "power")
    given = RNG.normal(size=(40, 2))
    pq.write_table(table_of(hour=given[:, 0], load=given[:, 1]), tmp_path / "rows.parquet")
    told = ask("encode", folder, x=X.tolist(), context=given.tolist())
    out = tmp_path / "z.parquet"
    words = ("encode", folder, tmp_path / "rows.parquet", "-o", out, "--keep", "hour,load")
    assert run(*words, "--context", "hour,load").exit_code == 0
    found = pq.read_table(out)
    z = np.stack([found["z_0"].to_numpy(), found["z_1"].to_numpy()], axis=1)
    assert np.array_equal(z, np.array(told["z"], z.dtype))
    back = tmp_path / "x.parquet"
    assert run("decode", folder, out, "-o", back, "--context", "hour,load").exit_code == 0
    decoded = pq.read_table(back)
    assert np.allclose(decoded["x_1"].to_numpy(), X[:, 1], atol=1e-4)
    assert run(*words, "--context", "load,hour", "--overwrite").exit_code == 0
    assert not np.array_equal(pq.read_table(out)["z_0"].to_numpy(), z[:, 0])
    drawn = tmp_path / "drawn.npy"
    words = ("sample", folder, "-n", 9, "--seed", 3, "-o", drawn, "--context", "0.5,-1")
    assert run(*words).exit_code == 0
    told = ask("sample", folder, num_samples=9, seed=3, context=[0.5, -1])
    assert np.array_equal(np.load(drawn), np.array(told["x"], np.float32))


def test_ratios_are_to_the_model_beside(tmp_path: Path) -> None:
    folder = saved(flow_of(), tmp_path / "rare")
    saved(models.build("realnvp", {"num_layers": 1, "event_shape": [2]}), tmp_path / "broad")
    np.save(tmp_path / "x.npy", X)
    words = ("--statistic", "ratio:broad", "--background", tmp_path / "broad")
    done = run("calibrate", folder, "--data", tmp_path / "x.npy", *words)
    assert done.exit_code == 0, done.output
    out = tmp_path / "out.parquet"
    done = run("score", folder, tmp_path / "x.npy", "-o", out)
    assert done.exit_code == 0, done.output
    log_probs = [
        Scorer(tmp_path / name, "log_prob")({"x": X})["log_prob"] for name in ("broad", "rare")
    ]
    found = pq.read_table(out)
    assert np.array_equal(found["score"].to_numpy(), np.subtract(*np.float64(log_probs)))
    told = json.loads(found.schema.metadata[b"pushforward"])
    made = json.loads((folder / "calibration.json").read_text())
    assert told["model"]["calibration"] == made["id"]


@pytest.mark.parametrize("kind", ["arrays", "lists"])
def test_pictures_are_scored_by_complexity(tmp_path: Path, kind: str) -> None:
    x = RNG.integers(0, 256, size=(3, 1, 28, 28)).astype(np.uint8)
    given = tmp_path / "x.npy"
    np.save(given, x)
    if kind == "lists":
        given = tmp_path / "x.parquet"
        pq.write_table(pa.table({"x": [*x.reshape(3, -1).tolist(), [1] * 5]}), given)
    out = tmp_path / "out.parquet"
    done = run("score", ZOO / "digits-nice", given, "-o", out)
    assert done.exit_code == (3 if kind == "lists" else 0), done.output
    answer = Scorer(ZOO / "digits-nice", "score")({"x": x})
    assert pq.read_table(out)["score"].to_pylist()[:3] == answer["score"].tolist()
