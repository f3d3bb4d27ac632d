"""`pushforward calibrate`, and the calibration that `train` makes: rows, refusals, what is told."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from models.datasets import load, split
from models.scoring.storage import CALIBRATION_FILE, SCORES_FILE, read_calibration
from models.training.card import CARD_FILE
from pushforward.cli import app as cli
from tests.blank_pictures import blank_pictures  # noqa: F401  (fixtures)
from tests.pushforward.cli.test_extras import run as run_with_extras

ZOO = Path(__file__).resolve().parents[3] / "models" / "zoo"
FLOW = ["--family", "realnvp", "--set", "num_layers=2", "--epochs", "1", "--set"]
FLOW += ['conditioner={"kind":"mlp","widths":[8]}']
NAMES = ("a", "b", "c")


def run(*arguments: str | Path) -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(cli.build(words), words)


def rows_of(count: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, 3)) * [1, 10, 100]
    return np.round(rows, 6)


def write_table(
    path: Path, rows: np.ndarray, names: tuple[str, ...] = NAMES, **more: list[str]
) -> Path:
    columns = [rows[:, NAMES.index(name)].tolist() for name in names] + list(more.values())
    lines = [",".join(map(str, cells)) for cells in zip(*columns, strict=True)]
    path.write_text("\n".join([",".join([*names, *more]), *lines]))
    return path


# One process for all: what they share is made once.
pytestmark = pytest.mark.xdist_group("cli_calibrate")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calibrate")


@pytest.fixture(scope="module")
def table(folder: Path) -> Path:
    return write_table(folder / "table.csv", rows_of(400, 0))


@pytest.fixture(scope="module")
def trained(folder: Path, table: Path) -> Path:
    done = run("train", "--data", table, *FLOW, "--out", folder / "model")
    assert done.exit_code == 0, done.output
    told = r"model: calibrated by neg_log_prob on 40 test rows; thresholds: alpha 0.05: [\d.]+, "
    assert re.search(f"{told}alpha 0.01: needs 99 rows", done.stderr)
    return folder / "model"


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    """A copy: a calibration is written into it."""
    return Path(shutil.copytree(trained, tmp_path / "model"))


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    return write_table(tmp_path / "new.csv", rows_of(150, 1))


def scores_of(model: Path) -> np.ndarray:
    calibration = read_calibration(model)
    assert calibration is not None
    return calibration.scores


def report_of(model: Path) -> dict:
    return json.loads((model / CALIBRATION_FILE).read_text())["report"]


def calibrate(model: Path, *arguments: str | Path) -> dict:
    done = run("calibrate", model, *arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


# ------------------------------------------------------------------ train


def test_training_calibrates_on_the_rows_that_it_kept_apart(
    trained: Path, table: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(trained, tmp_path / "other"))
    shown = calibrate(model, "--data", table, "--rows", "test")
    assert shown["rows"] == 40
    assert np.array_equal(scores_of(model), scores_of(trained))
    card = (trained / CARD_FILE).read_text()
    assert card.count("## Calibration") == 1
    assert "| 0.01 | needs 99 rows |  |" in card


def test_training_without_calibration_writes_none(tmp_path: Path) -> None:
    out = tmp_path / "model"
    data = "two_moons?rows=100"
    done = run("train", "--data", data, *FLOW, "--out", out, "--no-calibrate")
    assert done.exit_code == 0, done.output
    assert not (out / CALIBRATION_FILE).exists()
    assert "## Calibration" not in (out / CARD_FILE).read_text()


def test_what_cannot_be_calibrated_is_trained_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pushforward.cli.calibration.calibrate_held_out", refuse)
    out = tmp_path / "model"
    done = run("train", "--data", "two_moons?rows=100", *FLOW, "--out", out)
    assert done.exit_code == 0, done.output
    assert "not calibrated: [Errno 28] No space left on device" in done.stderr
    assert (out / "config.json").exists()


# ------------------------------------------------------------------ rows


def test_rows_are_read_by_name(model: Path, held_out: Path, tmp_path: Path) -> None:
    calibrate(model, "--data", held_out)
    scores = scores_of(model)
    turned = write_table(tmp_path / "turned.csv", rows_of(150, 1), ("c", "a", "b"), x=["1"] * 150)
    done = run("calibrate", model, "--data", turned)
    assert done.exit_code == 0, done.output
    assert "columns that the model does not have: x" in done.stderr
    assert np.array_equal(scores_of(model), scores)


def test_rows_of_training_are_refused_and_told_what_to_do(model: Path, table: Path) -> None:
    before = scores_of(model)
    done = run("calibrate", model, "--data", table)
    assert done.exit_code == 2
    assert "trained or validated on 360 of these 400 rows" in done.stderr
    assert "give it rows that were kept apart, or leave the others out with --rows auto" in (
        done.stderr
    )
    assert np.array_equal(scores_of(model), before)
    assert calibrate(model, "--data", table, "--rows", "auto")["rows"] == 40


def test_all_rows_of_training_leave_none(model: Path, table: Path, tmp_path: Path) -> None:
    parts = split(load(str(table)), validation=0.1, test=0.1, seed=0)
    only = write_table(tmp_path / "only.csv", parts.train.x)
    done = run("calibrate", model, "--data", only, "--rows", "auto")
    assert done.exit_code == 2
    assert "trained on all of these rows; give it rows that were kept apart" in done.stderr


def test_too_few_rows_for_a_rate_are_told_in_the_table(model: Path, held_out: Path) -> None:
    done = run("calibrate", model, "--data", held_out)
    assert done.exit_code == 0, done.output
    assert re.search(r"0\.01 +[\d.]+ +0\.\d+", done.stdout)
    assert re.search(r"0\.001 +needs 999 rows", done.stdout)
    shown = json.loads(run("inspect", model, "--json").stdout)["calibration"]
    assert [row.get("reason") for row in shown["thresholds"]] == [None, None, "needs 999 rows"]
    assert "calibration.threshold.0.001" in run("inspect", model).stdout


def test_a_folder_without_a_record_says_that_it_could_not_be_checked(
    model: Path, held_out: Path
) -> None:
    for name in ("rows.safetensors", "training.json"):
        (model / name).unlink()
    done = run("calibrate", model, "--data", held_out)
    assert done.exit_code == 0, done.output
    assert "warning: whether the model was trained on its calibration rows could not be" in (
        done.stderr
    )
    assert report_of(model)["checks"]["is_checked"] is False


@pytest.mark.parametrize("as_text", [False, True], ids=["numbers", "dates"])
def test_the_last_part_in_time_is_taken(model: Path, tmp_path: Path, as_text: bool) -> None:
    rows, days = rows_of(40, 3), np.random.default_rng(1).permutation(40)
    times = [f"2026-{1 + day // 28:02}-{1 + day % 28:02}" if as_text else str(day) for day in days]
    timed = write_table(tmp_path / "timed.csv", rows, time=times)
    shown = calibrate(model, "--data", timed, "--order", "time", "--share", "0.25")
    assert shown["dataset"] == "timed.csv, last 25% by time"
    scores = scores_of(model)
    last = write_table(tmp_path / "last.csv", rows[days >= 30])
    calibrate(model, "--data", last)
    assert np.array_equal(scores, scores_of(model))
    assert calibrate(model, "--data", timed, "--order", "time")["rows"] == 8
    done = run("calibrate", model, "--data", timed, "--order", "when")
    assert (done.exit_code, "has no such column" in done.stderr) == (2, True)
    done = run("calibrate", model, "--data", timed, "--order", "time", "--share", "0")
    assert (done.exit_code, "--share: expected more than 0" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere.csv"], "no such file or folder"),
        (["--data", "digits"], "rows have shape (1, 8, 8), the model takes (3,)"),
        (["--data", "two_moons?rows=30"], "the model needs the columns 'a', 'b', 'c'"),
        (["--statistic", "magic"], "statistic: expected one of neg_log_prob, typicality"),
        (["--statistic", "complexity"], "expected pixels of at most 256 levels"),
        (["--statistic", "ratio:x"], "name the folder of the model x with --background FOLDER"),
        (["--background", ZOO / "moons"], "expected --statistic ratio:NAME beside it, got auto"),
        (
            ["--statistic", "ratio:moon", "--background", ZOO / "moons"],
            "calls the model in .*moons 'moons': write ratio:moons",
        ),
        (["--context", "nowhere.npy"], "nowhere.npy"),
    ],
    ids=[
        "file", "shape", "columns", "statistic", "complexity", "background", "no_ratio", "name",
        "context",
    ],
)  # fmt: skip
def test_refusals_are_one_line(
    model: Path, held_out: Path, arguments: list[str | Path], message: str
) -> None:
    before = (model / SCORES_FILE).read_bytes()
    data = [] if "--data" in arguments else ["--data", held_out]
    done = run("calibrate", model, *data, *arguments)
    assert done.exit_code == 2, done.output
    expected = message if "*" in message else re.escape(message)
    assert re.search(expected, done.stderr)
    assert "Traceback" not in done.output
    assert (model / SCORES_FILE).read_bytes() == before


# ------------------------------------------------------------------ statistics, probes, anomalies


@pytest.mark.parametrize("statistic", ["neg_log_prob", "typicality", "latent", "ratio:other"])
def test_statistics_are_calibrated(
    model: Path, trained: Path, held_out: Path, tmp_path: Path, statistic: str
) -> None:
    arguments: list[str | Path] = ["--data", held_out, "--statistic", statistic]
    if statistic.startswith("ratio"):
        other = shutil.copytree(trained, tmp_path / "other")
        arguments += ["--background", Path(other)]
    shown = calibrate(model, *arguments)
    assert shown["statistic"] == statistic
    assert [probe["name"] for probe in shown["probes"]] == ["noise", "permuted"]
    assert shown["probes"][0]["statistics"].keys() == {"neg_log_prob", statistic}
    if statistic.startswith("ratio"):
        assert (scores_of(model) == 0).all()  # the same model


def test_auto_says_what_it_chose(model: Path, held_out: Path) -> None:
    assert "neg_log_prob (auto) of 150 rows" in run("calibrate", model, "--data", held_out).stdout


def test_anomalies_are_measured_and_what_is_found_likelier_is_told_everywhere(
    model: Path, held_out: Path, tmp_path: Path
) -> None:
    usual = write_table(tmp_path / "usual.csv", rows_of(150, 1) / 10)
    done = run("calibrate", model, "--data", held_out, "--anomalies", usual)
    assert done.exit_code == 0, done.output
    line = "this model finds the anomalies of usual.csv more likely than its own data: AUROC of"
    assert f"warning: {line}" in done.stderr
    assert line in (model / CARD_FILE).read_text()
    shown = json.loads(run("inspect", model, "--json").stdout)["calibration"]
    assert shown["warnings"][0].startswith(line)
    found = shown["anomalies"]["statistics"]["neg_log_prob"]
    assert found["low"] < found["auroc"] < found["high"] < 0.5
    assert found["tpr"]["0.001"] is None
    assert 0 < found["average_precision"] < 1
    # The next one replaces it.
    assert run("calibrate", model, "--data", held_out).exit_code == 0
    card = (model / CARD_FILE).read_text()
    assert line not in card
    assert card.count("## Calibration") == 1


def test_rows_that_are_marked_as_anomalies_are_to_be_found(model: Path, tmp_path: Path) -> None:
    rows = np.concatenate([rows_of(60, 5), rows_of(20, 6) * 5])
    kinds = ["good"] * 60 + ["bad"] * 20
    marked = write_table(tmp_path / "marked.csv", rows, kind=kinds)
    shown = calibrate(model, "--data", f"{marked}?label=kind&normal=good")
    assert shown["rows"] == 60
    assert shown["anomalies"]["rows"] == 20
    assert shown["anomalies"]["statistics"]["neg_log_prob"]["auroc"] > 0.9
    done = run("calibrate", model, "--data", f"{marked}?label=kind&normal=none")
    assert done.exit_code == 2


# ------------------------------------------------------------------ engine, weights


def test_certified_graphs_calibrate_without_torch(tmp_path: Path) -> None:
    model = Path(shutil.copytree(ZOO / "moons", tmp_path / "moons"))
    done = run_with_extras(
        ("onnx",), "calibrate", model, "--data", "two_moons?rows=200&seed=5", "--json"
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["checks"]["engine"] == "onnx"
    assert shown["rows"] == 200


def test_a_calibration_of_other_weights_is_told_by_inspect(model: Path, folder: Path) -> None:
    done = run("train", "--data", folder / "table.csv", *FLOW, "--seed", "7", "--out",
               model.parent / "new", "--no-calibrate")  # fmt: skip
    assert done.exit_code == 0, done.output
    for name in (CALIBRATION_FILE, SCORES_FILE):
        shutil.copy(model / name, model.parent / "new" / name)
    shown = json.loads(run("inspect", model.parent / "new", "--json").stdout)
    assert shown["calibration"].startswith("refused: ")
    assert "it was made for other weights" in shown["calibration"]
