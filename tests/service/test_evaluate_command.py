"""`pushforward evaluate` on tables: columns by name, and the rows that were kept apart."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import models
from models.datasets.rows import ROWS_FILE
from service import cli

NAMES = ("temp [K]", "flow", "load")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 3)) * [1, 10, 100] + [0, 5, 50]
KIND = ["good", " bad ", "odd"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.build(arguments), list(arguments))


def write(path: Path, order: tuple[int, ...], names: tuple[str, ...] = NAMES) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(names[index] for index in order), "kind"])
        for number, row in enumerate(X.tolist()):
            writer.writerow([*(row[index] for index in order), KIND[number % 3]])
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    out = folder / "m"
    data = f"{write(folder / 'plain.csv', (0, 1, 2))}?label=kind&normal=good"
    flow = ["--family", "realnvp", "--set", "num_layers=2", "--epochs", "3"]
    result = run("train", "--data", data, *flow, "--out", str(out))
    assert result.exit_code == 0, result.output
    return out


def figures(model: Path, data: str, *options: str) -> dict[str, Any]:
    result = run("evaluate", str(model), "--data", data, "--json", *options)
    assert result.exit_code == 0, result.output
    content: dict[str, Any] = json.loads(result.stdout)
    return content


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0)])
def test_the_order_of_columns_changes_nothing(
    folder: Path, trained: Path, order: tuple[int, ...]
) -> None:
    options = "?label=kind&normal=good"
    wanted = figures(trained, f"{folder / 'plain.csv'}{options}")
    report = json.loads((trained / "training.json").read_text())
    assert wanted["nats"] == pytest.approx(report["test"]["nats"], rel=1e-6)
    other = write(folder / f"other{order}.csv", order)
    assert figures(trained, f"{other}{options}") == wanted


def test_a_renamed_column_is_refused(folder: Path, trained: Path) -> None:
    path = write(folder / "renamed.csv", (0, 1, 2), ("temp [K]", "flows", "load"))
    result = run("evaluate", str(trained), "--data", f"{path}?label=kind")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "needs the column 'flow'" in result.stderr
    assert "'flows'" in result.stderr


@pytest.mark.parametrize("options", ["?label=kind&normal=odd", "?label=kind", "?drop=kind", ""])
def test_rows_trained_on_are_known_whatever_the_options(
    folder: Path, trained: Path, options: str
) -> None:
    report = json.loads((trained / "training.json").read_text())["data"]
    found = figures(trained, f"{folder / 'plain.csv'}{options}", "--rows", "test")
    assert found["rows"] + found["anomalies"] == report["test_rows"]
    assert report["train_rows"] + report["validation_rows"] + report["test_rows"] == len(X)
    assert figures(trained, f"{folder / 'plain.csv'}{options}") == found
    everything = figures(trained, f"{folder / 'plain.csv'}{options}", "--rows", "all")
    assert everything["rows"] + everything["anomalies"] == len(X)


def test_a_folder_without_digests_is_split_again_by_its_own_options_alone(
    folder: Path, trained: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for path in trained.iterdir():
        if path.name != ROWS_FILE:
            (old / path.name).write_bytes(path.read_bytes())
    plain = folder / "plain.csv"
    own = f"{plain}?label=kind&normal=good"
    assert figures(old, own) == figures(trained, own)
    result = run("evaluate", str(old), "--data", f"{plain}?label=kind&normal=odd")
    assert result.exit_code == 2
    assert "does not hold which rows were kept apart" in result.stderr


def test_rows_all_trained_on_are_not_called_anything_else(
    folder: Path, trained: Path, tmp_path: Path
) -> None:
    result = run("evaluate", str(trained), "--data", "two_moons?rows=20", "--rows", "test")
    assert result.exit_code == 2
    trained_on = tmp_path / "mine.npy"
    report = json.loads((trained / "training.json").read_text())["data"]
    data = figures(trained, f"{folder / 'plain.csv'}?drop=kind", "--rows", "all")
    assert data["rows"] > report["test_rows"]
    flow = models.load(trained)
    from models.datasets import load, schema, split  # the split that training made

    whole = load(f"{folder / 'plain.csv'}?label=kind&normal=good")
    parts = split(whole, validation=0.1, test=0.1, seed=0)
    assert schema.feature_names(flow.provenance) == NAMES
    np.save(trained_on, parts.train.x)
    result = run("evaluate", str(trained), "--data", str(trained_on))
    assert result.exit_code == 2
    assert "trained on all of these rows" in result.stderr


def test_folder_card_and_inspect_state_the_columns(trained: Path) -> None:
    columns = models.load(trained).provenance["columns"]
    assert [column["name"] for column in columns] == list(NAMES)
    assert columns[0]["unit"] == "K"
    assert columns[1]["low"] < columns[1]["high"]
    card = (trained / "README.md").read_text()
    assert "| 2 | `load` | real |" in card
    facts = json.loads(run("inspect", str(trained), "--json").stdout)
    assert facts["feature_names"] == list(NAMES)
    assert facts["class_names"] is None


def test_classes_are_stored_and_matched_by_name(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "c"
    data = f"{folder / 'plain.csv'}?label=kind"
    flow = ["--family", "realnvp", "--set", "num_layers=2", "--set", "num_classes=3"]
    result = run("train", "--data", data, *flow, "--epochs", "2", "--out", str(out))
    assert result.exit_code == 0, result.output
    facts = json.loads(run("inspect", str(out), "--json").stdout)
    assert facts["class_names"] == ["bad", "good", "odd"]
    assert "0 = `bad`, 1 = `good`, 2 = `odd`" in (out / "README.md").read_text()
    one = tmp_path / "one.csv"
    lines = (folder / "plain.csv").read_text().splitlines()
    one.write_text("\n".join([lines[0], *(line for line in lines if line.endswith("odd"))]))
    found = figures(out, f"{one}?label=kind", "--rows", "all")
    whole = load_scores(out, folder / "plain.csv")
    assert found["nats"] == pytest.approx(-whole["odd"].mean(), rel=1e-5)


def load_scores(model: Path, table: Path) -> dict[str, Any]:
    from models.datasets import load
    from models.evaluate import log_probs

    data = load(f"{table}?label=kind")
    scores = log_probs(models.load(model), data)
    assert data.labels is not None
    return {name: scores[data.labels == index] for index, name in enumerate(data.label_names)}


def test_classes_of_two_features_are_trained_and_pictured(tmp_path: Path) -> None:
    path = tmp_path / "plane.csv"
    lines = [
        f"{a},{b + 30 * (number % 2)},{KIND[number % 2]}" for number, (a, b, _) in enumerate(X)
    ]
    path.write_text("\n".join(["a,b,kind", *lines]))
    flow = ["--family", "realnvp", "--set", "num_layers=2", "--epochs", "1"]
    data = ["--data", f"{path}?label=kind"]
    out = tmp_path / "m"
    result = run("train", *data, *flow, "--set", "num_classes=2", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert (out / "samples.png").stat().st_size > 1000
    other = run("train", *data, *flow, "--set", "context_features=2", "--out", str(tmp_path / "n"))
    assert other.exit_code == 2
    assert "give it num_classes" in other.stderr
