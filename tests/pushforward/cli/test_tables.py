"""A model and the tables it meets: columns by name, classes by name, rows it was trained on."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import models
from models.checkpoints.folder import read_manifest
from models.datasets import load, schema, split
from models.datasets import rows as row_record
from models.datasets.dataset import Dataset, DatasetError
from models.training.evaluate import log_probs
from pushforward.cli import app as cli
from pushforward.cli import tables

FLOW = [
    "--family", "realnvp", "--set", "num_layers=2",
    "--set", 'conditioner={"kind":"mlp","widths":[8]}', "--epochs", "2",
]  # fmt: skip
NAMES = ["flow", "mass [kg]", "load"]
# As the archive of the data names them.
MAGIC = (
    "fLength", "fWidth", "fSize", "fConc", "fConc1", "fAsym", "fM3Long", "fM3Trans", "fAlpha",
    "fDist",
)  # fmt: skip


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.build(arguments), list(arguments))


def write(path: Path, names: list[str], order: np.ndarray | None = None) -> Path:
    """300 rows of three different columns and a class, under the names asked for."""
    rng = np.random.default_rng(0)
    held = {
        "flow": rng.normal(5, 1, 300),
        "mass [kg]": rng.integers(0, 90, 300).astype(float),
        "load": rng.gamma(2, 1, 300),
        "kind": rng.choice(["good", " bad "], 300, p=[0.8, 0.2]),
        "id": np.arange(300) + 10_000,
    }
    indices = range(300) if order is None else order
    lines = [",".join(str(held[name][row]) for name in names) for row in indices]
    path.write_text("\n".join([",".join(names), *lines, ""]))
    return path


# One process for all: what they share is made once.
pytestmark = pytest.mark.xdist_group("cli_tables")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the columns, and beside it the table it was trained on."""
    place = tmp_path_factory.mktemp("tables")
    table = write(place / "table.csv", [*NAMES, "kind"])
    result = run(
        "train", "--data", f"{table}?label=kind&normal=good", *FLOW, "--out", str(place / "model")
    )
    assert result.exit_code == 0, result.output
    return place


def figures(model: Path, *arguments: str) -> dict[str, float]:
    result = run("evaluate", str(model), *arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, float] = json.loads(result.stdout)
    return found


def test_columns_in_any_order_give_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    model = folder / "model"
    expected = figures(model, "--data", f"{folder / 'table.csv'}?drop=kind", "--rows", "all")
    other = write(tmp_path / "t.csv", ["id", "kind", "load", "flow", "mass [kg]"])
    result = run("evaluate", str(model), "--data", str(other), "--rows", "all", "--json")
    assert json.loads(result.stdout) == expected
    assert "columns that the model does not have: id, kind" in result.stderr


def test_columns_in_any_order_give_the_numbers_of_the_training(
    folder: Path, tmp_path: Path
) -> None:
    options = "?label=kind&normal=good"
    expected = figures(folder / "model", "--data", f"{folder / 'table.csv'}{options}")
    report = json.loads((folder / "model" / "training.json").read_text())
    assert expected["nats"] == pytest.approx(report["test"]["nats"], rel=1e-6)
    other = write(tmp_path / "t.csv", ["load", "flow", "mass [kg]", "kind"])
    assert figures(folder / "model", "--data", f"{other}{options}") == expected


@pytest.mark.parametrize("names", [["flow", "load"], ["flow", "mass", "load"]])
def test_a_missing_column_is_refused(folder: Path, tmp_path: Path, names: list[str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text(",".join(names) + "\n" + "1,2,3\n"[: 2 * len(names) - 1] + "\n")
    result = run("evaluate", str(folder / "model"), "--data", str(path))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "needs the column 'mass [kg]'" in result.stderr
    assert ("columns it does not know: 'mass'" in result.stderr) == ("mass" in names)


def test_a_model_without_names_takes_the_columns_in_their_order_and_says_so(
    folder: Path, tmp_path: Path
) -> None:
    nameless = tmp_path / "nameless"
    shutil.copytree(folder / "model", nameless)
    config = json.loads((nameless / "config.json").read_text())
    del config["provenance"]["columns"]
    (nameless / "config.json").write_text(json.dumps(config))
    table = f"{folder / 'table.csv'}?drop=kind"
    result = run("evaluate", str(nameless), "--data", table)
    assert result.exit_code == 0, result.output
    assert "does not know the names of its columns" in result.stderr
    named = run("evaluate", str(folder / "model"), "--data", table)
    assert "does not know" not in named.stderr
    assert named.stdout == result.stdout


@pytest.mark.parametrize(
    "options",
    ["", "?label=kind", "?label=kind&normal=good", "?label=kind&normal=bad", "?drop=kind"],
)
def test_rows_kept_apart_stay_so_whatever_options_are_given(folder: Path, options: str) -> None:
    report = json.loads((folder / "model" / "training.json").read_text())
    data = report["data"]
    found = {
        part: figures(
            folder / "model", "--data", f"{folder / 'table.csv'}{options}", "--rows", part
        )
        # All that was trained on is normal=good: no row of it would be normal otherwise.
        for part in (("test",) if "bad" in options else ("train", "validation", "test"))
    }
    rows = {part: one["rows"] + one["anomalies"] for part, one in found.items()}
    assert rows == {part: data[f"{part}_rows"] for part in rows}
    assert figures(folder / "model", "--data", f"{folder / 'table.csv'}{options}") == found["test"]


def test_a_folder_without_digests_is_split_again_by_its_own_options_alone(
    folder: Path, tmp_path: Path
) -> None:
    model, old, table = folder / "model", tmp_path / "old", folder / "table.csv"
    shutil.copytree(model, old, ignore=shutil.ignore_patterns(row_record.ROWS_FILE))
    own = f"{table}?label=kind&normal=good"
    assert figures(old, "--data", own) == figures(model, "--data", own)
    result = run("evaluate", str(old), "--data", f"{table}?label=kind&normal=bad")
    assert result.exit_code == 2
    assert "does not hold which rows were kept apart" in result.stderr


def test_rows_all_trained_on_are_not_called_anything_else(folder: Path, tmp_path: Path) -> None:
    model = folder / "model"
    result = run("evaluate", str(model), "--data", "two_moons?rows=20", "--rows", "test")
    assert result.exit_code == 2
    data = load(f"{folder / 'table.csv'}?label=kind&normal=good")
    parts = split(data, validation=0.1, test=0.1, seed=0)  # as training did
    np.save(tmp_path / "mine.npy", parts.train.x)
    result = run("evaluate", str(model), "--data", str(tmp_path / "mine.npy"))
    assert result.exit_code == 2
    assert "trained on all of these rows" in result.stderr


def test_rows_are_known_in_another_order_and_among_others(folder: Path, tmp_path: Path) -> None:
    model = folder / "model"
    expected = figures(model, "--data", f"{folder / 'table.csv'}?drop=kind")
    order = np.random.default_rng(1).permutation(300)
    other = write(tmp_path / "t.csv", ["load", "flow", "mass [kg]"], order)
    assert figures(model, "--data", str(other))["nats"] == pytest.approx(expected["nats"])
    with other.open("a") as file:
        file.write("1,2,3\n")
    assert figures(model, "--data", str(other))["rows"] == expected["rows"] + 1


def test_a_record_of_rows_counts_and_is_checked(folder: Path, tmp_path: Path) -> None:
    record = row_record.read_rows(folder / "model")
    assert record is not None
    assert sum(map(len, record.values())) == 300
    assert not set(record["train"].tolist()) & set(record["test"].tolist())
    (tmp_path / row_record.ROWS_FILE).write_bytes(b"no")
    with pytest.raises(DatasetError, match="not the digests"):
        row_record.read_rows(tmp_path)


def test_the_folder_says_what_the_columns_are(folder: Path) -> None:
    facts = json.loads(run("inspect", str(folder / "model"), "--json").stdout)
    assert (facts["feature_names"], facts["class_names"]) == (NAMES, None)
    flow, mass, _ = facts["provenance"]["columns"]
    assert (mass["kind"], mass["unit"], flow["kind"]) == ("integer", "kg", "real")
    assert 0 <= mass["low"] < mass["high"] <= 89
    assert "| 1 | `mass [kg]` | integer | kg |" in (folder / "model" / "README.md").read_text()


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class-conditional model of two columns, and beside it the table it was trained on."""
    place = tmp_path_factory.mktemp("plane")
    data = f"{write(place / 'table.csv', ['flow', 'load', 'kind'])}?label=kind"
    # Large steps: the class must matter.
    how = ["--set", "num_classes=2", "--learning-rate", "0.05", "--warmup-steps", "1"]
    result = run("train", "--data", data, *FLOW, *how, "--out", str(place / "model"))
    assert result.exit_code == 0, result.output
    return place


def test_classes_are_matched_by_name(plane: Path, tmp_path: Path) -> None:
    model, table = plane / "model", plane / "table.csv"
    facts = json.loads(run("inspect", str(model), "--json").stdout)
    assert facts["class_names"] == ["bad", "good"]
    assert "Classes: 0 = `bad`, 1 = `good`." in (model / "README.md").read_text()
    whole = load(f"{table}?label=kind")
    assert whole.labels is not None
    scores = log_probs(models.load(model), whole)[whole.labels == 1]
    good = tmp_path / "good.csv"
    lines = table.read_text().splitlines()
    good.write_text("\n".join(line for line in lines if " bad " not in line) + "\n")
    found = figures(model, "--data", f"{good}?label=kind", "--rows", "all")
    assert found["rows"] == len(scores) == sum(line.endswith("good") for line in lines)
    assert found["nats"] == pytest.approx(-scores.mean(), rel=1e-5)
    good.write_text(good.read_text().replace("good", "ugly"))
    result = run("evaluate", str(model), "--data", f"{good}?label=kind", "--rows", "all")
    assert result.exit_code == 2
    assert "no class 'ugly'; the model's classes are bad, good" in result.stderr


def test_classes_of_two_features_are_pictured(plane: Path, tmp_path: Path) -> None:
    assert (plane / "model" / "samples.png").stat().st_size > 1000
    data = ["--data", f"{plane / 'table.csv'}?label=kind"]
    context = ["--set", "context_features=2"]
    other = run("train", *data, *FLOW, *context, "--out", str(tmp_path / "n"))
    assert other.exit_code == 2
    assert "give it num_classes" in other.stderr


def test_a_constant_column_is_told_by_its_values(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = "".join(f"{value},0.1\n" for value in np.random.default_rng(0).normal(size=60))
    path.write_text("a,fixed\n" + rows)
    result = run("train", "--data", str(path), *FLOW, "--out", str(tmp_path / "m"))
    assert result.exit_code == 2
    assert "column 1 'fixed' has one value only, 0.1" in result.stderr


@pytest.mark.parametrize("names", [["a"], ["a", "a"], ["a", ""]])
def test_feature_names_fit_the_flow(names: list[str]) -> None:
    with pytest.raises(DatasetError, match="expected 2"):
        schema.named(names, 2)
    assert [column.name for column in schema.named(["a", "b"], 2)] == ["a", "b"]


def test_the_client_matches_columns_by_name(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("load,id,flow,mass [kg]\n3,9,1,2\n6,9,4,5\n")
    rows = tables.read(str(path), lambda: NAMES)
    assert not isinstance(rows, bytes)
    np.testing.assert_array_equal(rows.values, [[1, 2, 3], [4, 5, 6]])
    assert (rows.columns, rows.ignored) == (tuple(NAMES), ("id",))
    path.write_text("load,flow\n3,1\n")
    with pytest.raises(ValueError, match="needs the column 'mass"):
        tables.read(str(path), lambda: NAMES)
    with pytest.raises(ValueError, match="does not know those of its columns"):
        tables.read(str(path), lambda: [])
    path.write_text("1,2,3\n")
    rows = tables.read(str(path), lambda: pytest.fail("a table of numbers needs no names"))
    assert not isinstance(rows, bytes)
    np.testing.assert_array_equal(rows.values, [[1, 2, 3]])
    assert rows.columns == ()


def test_the_client_and_training_refuse_a_table_in_the_same_words(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="needs the column") as refused:
        tables.read(str(path), lambda: NAMES)
    with pytest.raises(DatasetError) as trained:
        load(str(path), features=NAMES)
    assert str(refused.value) == str(trained.value)


def test_the_zoo_names_its_columns() -> None:
    zoo = Path(__file__).resolve().parents[3] / "models" / "zoo"
    for name in ("magic", "magic-ffjord"):
        names = schema.feature_names(read_manifest(zoo / name).provenance)
        assert names == MAGIC, name
        record = row_record.read_rows(zoo / name)
        assert record is not None
        assert {part: len(digests) for part, digests in record.items()} == {
            "train": 9866, "validation": 1233, "test": 7921,
        }  # fmt: skip


def test_labels_get_the_numbers_of_the_model() -> None:
    data = Dataset("t", np.ones((3, 2)), np.array([0, 0, 1]), ("b", "c"))
    matched = schema.match_classes(data, ("a", "b", "c"))
    assert matched.labels is not None
    assert (matched.labels.tolist(), matched.label_names) == ([1, 1, 2], ("a", "b", "c"))


def test_columns_of_named_data_are_matched_too() -> None:
    data = Dataset("t", np.array([[1.0, 2.0, 3.0]]), columns=("a", "b", "c"))
    matched = schema.match(data, ("c", "a"))
    assert (matched.x.tolist(), matched.ignored) == ([[3.0, 1.0]], ("b",))
