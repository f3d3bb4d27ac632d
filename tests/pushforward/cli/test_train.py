"""`pushforward train` and `pushforward evaluate`: flags, arguments, output, refusals."""

import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from models.datasets import named_sets
from models.onnx.certificate import CertificateError
from models.onnx.certified import read_certified
from models.registry import FAMILIES
from models.training import TrainingOptions
from pushforward.cli import app as cli
from pushforward.cli.train import read_arguments, train
from tests.blank_pictures import blank_pictures  # noqa: F401  (fixtures)

FLOW = [
    "--family",
    "realnvp",
    "--set",
    "num_layers=2",
    "--set",
    'conditioner={"kind":"mlp","widths":[8]}',
]
DATA = "two_moons?rows=200"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.build(arguments), list(arguments))


# One process for all: what they share is made once.
pytestmark = pytest.mark.xdist_group("cli_train")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "moons"
    result = run("train", "--data", DATA, *FLOW, "--epochs", "2", "--seed", "3", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert re.search(r"moons: \d+ parameters, test \d+\.\d+ nats", result.output)
    return out


def test_a_model_is_trained_with_its_graphs(tmp_path: Path) -> None:
    out = tmp_path / "model"
    done = run("train", "--data", DATA, *FLOW, "--epochs", "1", "--out", str(out), "--export")
    assert done.exit_code == 0, done.output
    assert read_certified(out).facts.provenance["trained_on"] == "two_moons"


def test_what_has_no_graphs_is_still_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise CertificateError("log_prob: off by 3")

    monkeypatch.setattr("models.onnx.export.export_folder", refuse)
    out = tmp_path / "model"
    done = run("train", "--data", DATA, *FLOW, "--epochs", "1", "--out", str(out), "--export")
    assert done.exit_code == 1
    assert f"{out}: the model is written, its graphs are not: log_prob: off by 3" in done.stderr
    assert (out / "config.json").exists()


def test_every_option_of_training_is_a_flag_whose_help_states_its_default() -> None:
    parameters = inspect.signature(train).parameters
    for name, field in TrainingOptions.model_fields.items():
        help_text = parameters[name].annotation.__metadata__[0].help
        assert f"({field.default})" in help_text, name


def test_the_guide_has_every_option_and_named_set() -> None:
    guide = (Path(__file__).resolve().parents[3] / "docs" / "training.md").read_text("utf-8")
    for name, field in TrainingOptions.model_fields.items():
        assert f"| `--{name.replace('_', '-')}` | {field.default} |" in guide, name
    for name in named_sets():
        assert f"`{name}`" in guide, name


def test_flags_and_arguments_reach_the_run(trained: Path) -> None:
    report = json.loads((trained / "training.json").read_text())
    assert (report["options"]["epochs"], report["options"]["seed"]) == (2, 3)
    assert report["config"]["num_layers"] == 2
    assert report["config"]["conditioner"]["widths"] == [8]


def test_settings_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"num_layers": 3, "actnorm": false}')
    arguments = read_arguments(path, ["num_layers=5", "permutation=shuffle", "widths=[1,2]"])
    assert arguments == {
        "num_layers": 5, "actnorm": False, "permutation": "shuffle", "widths": [1, 2]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere.csv", *FLOW], "no such file or folder"),
        (["--data", DATA, "--family", "realnpv"], "did you mean 'realnvp'"),
        (["--data", DATA, *FLOW, "--set", "num_layers"], "expected key=value"),
        (["--data", DATA, *FLOW, "--set", "depth=3"], "depth"),
        (["--data", DATA, *FLOW, "--epochs", "0"], "epochs: "),
        (["--data", DATA, *FLOW, "--resume"], "nothing to resume"),
    ],
    ids=["data", "family", "setting", "argument", "option", "resume"],
)
def test_refusals_are_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = run("train", *arguments, "--out", str(tmp_path / "m"))
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_bad_file_of_arguments_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"config.json: (not JSON|expected a JSON object)"):
        read_arguments(path, [])


def test_evaluate_takes_the_rows_the_model_was_not_trained_on(trained: Path) -> None:
    report = json.loads((trained / "training.json").read_text())
    result = run("evaluate", str(trained), "--data", DATA, "--json")
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["rows"] == 20
    assert figures["nats"] == pytest.approx(report["test"]["nats"], abs=1e-4)


@pytest.mark.parametrize(
    ("options", "rows"),
    [(["--rows", "all"], "200"), (["--rows", "test"], "20"), ([], "20")],
    ids=["all", "test", "auto"],
)
def test_evaluate_prints_a_table(trained: Path, options: list[str], rows: str) -> None:
    result = run("evaluate", str(trained), "--data", DATA, *options)
    assert result.exit_code == 0, result.output
    table = dict(line.split() for line in result.stdout.splitlines())
    assert table["rows"] == rows
    assert "auroc" not in table


def test_evaluate_scores_all_of_other_data(trained: Path) -> None:
    other = "two_moons?rows=50&seed=9"
    assert "rows                   50" in run("evaluate", str(trained), "--data", other).stdout
    result = run("evaluate", str(trained), "--data", other, "--rows", "test")
    assert result.exit_code == 2
    assert "was not trained on these data" in result.output


def test_discrete_columns_are_named_at_load_and_stated_everywhere(tmp_path: Path) -> None:
    table, out = tmp_path / "habits.csv", tmp_path / "habits"
    rows = (f"{index % 2},{(index * 7) % 3},{(index * 37) % 101 / 100}" for index in range(200))
    table.write_text("\n".join(["smoker,children,weight", *rows]))
    flags = [*FLOW, "--epochs", "1"]
    loose = run("train", "--data", str(table), *flags, "--out", str(tmp_path / "loose"))
    assert loose.exit_code == 0, loose.output
    named = "warning: habits.csv: columns 'smoker' (2 values), 'children' (3 values) hold few"
    assert loose.stderr.count(named) == 1
    assert "warning" not in loose.stdout
    assert named.removeprefix("warning: ") in (tmp_path / "loose" / "README.md").read_text()
    assert json.loads(run("inspect", str(tmp_path / "loose"), "--json").stdout)["discrete"] is None

    result = run("train", "--data", f"{table}?discrete=auto", *flags, "--out", str(out))
    assert result.exit_code == 0, result.output
    assert "warning" not in result.output
    shown = json.loads(run("inspect", str(out), "--json").stdout)
    assert shown["discrete"] == ["smoker", "children"]
    figures = json.loads(run("evaluate", str(out), "--data", str(table), "--json").stdout)
    assert figures["bound_draws"] == 16
    provenance = shown["provenance"]
    # Noise is drawn in the order of the rows, which is the file's here.
    for name, error in (("log_density_midpoint", 1e-4), ("log_likelihood_bound", 0.1)):
        assert figures[name] == pytest.approx(provenance[f"test_{name}"], abs=error)
    assert figures["log_likelihood_bound"] > -figures["nats"]


def test_a_name_that_no_server_takes_is_told_before_training(tmp_path: Path) -> None:
    result = run("train", "--data", "nowhere.csv", *FLOW, "--out", str(tmp_path / "my model"))
    assert result.exit_code == 2
    assert "warning: " in result.stderr
    assert "'my model' cannot be a model's name" in result.stderr
    result = run("train", "--data", "nowhere.csv", *FLOW, "--out", str(tmp_path / "model" / "1"))
    assert "warning" not in result.stderr


def write_table(path: Path, columns: int, value: float = 0.5) -> Path:
    rows = np.random.default_rng(0).normal(size=(40, columns))
    rows[3, -1] = value
    np.savetxt(path, rows, delimiter=",", header=",".join("abc"[:columns]), comments="")
    return path


@pytest.mark.parametrize("family", ["realnvp", "nice", "nsf"])
def test_one_column_is_told_which_families_take_it(tmp_path: Path, family: str) -> None:
    table = write_table(tmp_path / "one.csv", 1)
    result = run("train", "--data", str(table), "--family", family, "--out", str(tmp_path / "m"))
    assert result.exit_code == 2
    assert "so they take two or more, got one: take family maf or ffjord" in result.stderr
    assert "mask" not in result.stderr


OF_IMAGES = [name for name in FAMILIES if len(FAMILIES[name].about.example.event_shape) == 3]


@pytest.mark.parametrize("family", OF_IMAGES)
def test_a_table_for_a_family_of_images_is_told_which_take_it(tmp_path: Path, family: str) -> None:
    table = write_table(tmp_path / "three.csv", 3)
    result = run("train", "--data", str(table), "--family", family, "--out", str(tmp_path / "m"))
    assert result.exit_code == 2
    families = ", ".join(name for name in FAMILIES if name not in OF_IMAGES)
    assert f"choose a family for tables with --family: {families}; or" in result.stderr
    assert "Field required" not in result.stderr


def test_a_number_beyond_float32_is_told_what_to_do(tmp_path: Path) -> None:
    table = write_table(tmp_path / "huge.csv", 3, value=1e300)
    result = run("train", "--data", str(table), *FLOW, "--out", str(tmp_path / "m"))
    assert result.exit_code == 2
    assert "row 3, column 2 'c' holds 1e+300, more than float32 can hold" in result.stderr
    assert "correct or remove the row, or store the column in a larger unit" in result.stderr


def test_a_missing_folder_is_to_be_made(tmp_path: Path) -> None:
    result = run("train", "--data", DATA, *FLOW, "--out", str(tmp_path / "models" / "m"))
    assert result.exit_code == 2
    assert f"there is no folder {tmp_path / 'models'}; make it first" in result.stderr


def test_sides_that_cannot_be_halved_are_to_be_padded(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((20, 5, 7), np.uint8))
    flags = ["--family", "glow", "--out", str(tmp_path / "m")]
    result = run("train", "--data", str(tmp_path / "x.npy"), *flags)
    assert result.exit_code == 2
    assert "got 5 x 7; resize or pad the images" in result.stderr
    assert "Value error" not in result.stderr
    assert "{" not in result.stderr
