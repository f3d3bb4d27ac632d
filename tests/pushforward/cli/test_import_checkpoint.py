"""`pushforward import`: from the file of another code base to a folder that is served."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import models
from models.onnx.certified import read_certified
from pushforward.cli import app as cli
from tests.fixtures import case_folder, checkpoint_of

ROSINALITY = checkpoint_of(case_folder("rosinality", "glow_b"))
Y0AST = checkpoint_of(case_folder("y0ast", "glow_b"))
SIZES = ("--set", "img_size=8", "--set", "n_bits=8")


def invoke(*arguments: str | Path) -> Result:
    words = ["import", *map(str, arguments)]
    return CliRunner().invoke(cli.build(words), words)


def refused(*arguments: str | Path) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return " ".join(result.stderr.split())


@pytest.mark.parametrize("source", [[], ["rosinality/glow-pytorch"], ["rosinality"]], ids=str)
def test_a_checkpoint_becomes_a_model_folder(tmp_path: Path, source: list[str]) -> None:
    out = tmp_path / "model"
    result = invoke(*source, ROSINALITY, *SIZES, "--out", out)
    assert result.exit_code == 0, result.output
    assert f"pushforward serve {out}" in result.stdout
    flow = models.load(out)
    assert flow.facts.num_levels == 256
    assert flow.provenance["imported_from"] == "rosinality/glow-pytorch"


def test_a_checkpoint_is_imported_with_its_graphs(tmp_path: Path) -> None:
    out = tmp_path / "model"
    result = invoke(ROSINALITY, *SIZES, "--out", out, "--export")
    assert result.exit_code == 0, result.output
    assert read_certified(out).facts.num_levels == 256


def test_the_report_shows_what_was_found_inferred_and_added(tmp_path: Path) -> None:
    output = invoke(ROSINALITY, *SIZES, "--out", tmp_path / "model").stdout
    for words in (
        "`module.` (DataParallel) was taken off the keys",
        "recognised by its keys",
        "n_block      2      inferred  blocks in the keys",
        "img_size     8      given     by the user",
        "log_prob is the log-density in nats of pixels 0..255",
        "scale of the data",
        "+1064.67",
        "source's number",
        "golden rows",
    ):
        assert words in output, output


def test_hyper_parameters_come_from_a_file_and_flags_win(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"img_size": 16, "n_bits": 8, "_info": "mine"}))
    out = tmp_path / "model"
    result = invoke(ROSINALITY, "--config", config, "--set", "img_size=8", "--out", out)
    assert result.exit_code == 0, result.output
    assert models.load(out).event_shape == (3, 8, 8)


def test_preprocessing_none_leaves_the_sources_inputs(tmp_path: Path) -> None:
    out = tmp_path / "model"
    invoke(ROSINALITY, *SIZES, "--preprocessing", "none", "--out", out)
    flow = models.load(out, dtype=torch.float64)
    assert flow.facts.num_levels is None
    assert flow.config["preprocessing"] == []


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "model"
    result = invoke(Y0AST, "--dry-run", "--out", out)
    assert result.exit_code == 0, result.output
    assert "image_shape" in result.stdout
    assert not out.exists()


def test_a_dry_run_tells_what_must_still_be_given() -> None:
    result = invoke(ROSINALITY, "--dry-run")
    assert result.exit_code == 0
    assert "img_size     ?      missing   a multiple of 4 (4, 8, 16, 32, ...)" in result.stdout
    assert "to import it: rosinality/glow-pytorch: img_size is not in the" in result.stdout


def test_without_it_the_import_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "model"
    error = refused(ROSINALITY, "--out", out)
    assert "img_size is not in the checkpoint" in error
    assert "n_bits is not in the checkpoint" in error
    assert not out.exists()


def test_a_report_for_machines() -> None:
    result = invoke(Y0AST, "--dry-run", "--json")
    report = json.loads(result.stdout)
    assert report["family"] == "glow"
    assert report["hyper_parameters"]["K"] == 2
    assert report["likelihood"]["terms"]


def test_a_wrong_source_is_refused_with_a_guess(tmp_path: Path) -> None:
    error = refused("y0ast", ROSINALITY, *SIZES, "--out", tmp_path / "model")
    assert "y0ast was named, but these are the keys of rosinality/glow-pytorch" in error


def test_what_is_wrong_with_the_tensors_is_in_the_table(tmp_path: Path) -> None:
    state = torch.load(ROSINALITY, weights_only=True)
    del state["module.blocks.0.prior.scale"]
    torch.save(state, tmp_path / "model.pt")
    result = invoke(tmp_path / "model.pt", *SIZES, "--dry-run")
    assert result.exit_code == 2
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("refused"))
    assert "blocks.0.prior.scale" in line
    assert "missing; expected shape (1, 12, 1, 1)" in line


def test_pickles_are_refused_and_allowed_with_a_warning(tmp_path: Path) -> None:
    torch.save({"net": torch.nn.Linear(2, 2)}, tmp_path / "model.pt")
    error = refused(tmp_path / "model.pt", "--dry-run")
    assert "torch.nn.modules.linear.Linear" in error
    assert "--allow-pickle" in error
    allowed = refused(tmp_path / "model.pt", "--dry-run", "--allow-pickle")
    assert "warning: --allow-pickle lets the file run any code" in allowed
    assert "no source has keys such as" in allowed


def test_a_folder_or_a_dry_run_is_needed() -> None:
    assert "--out: expected a folder to write, or --dry-run" in refused(ROSINALITY)


def test_one_source_and_one_checkpoint_are_taken(tmp_path: Path) -> None:
    words = ("a", "b", ROSINALITY, "--out", tmp_path / "model")
    assert "expected [SOURCE] CHECKPOINT" in refused(*words)


def test_the_columns_of_a_table_are_named(tmp_path: Path) -> None:
    checkpoint = case_folder("ikostrikov", "realnvp_a")
    settings = ["--config", checkpoint / "config.json"]
    width = models.import_checkpoint(
        checkpoint / "model.pt", None, json.loads((checkpoint / "config.json").read_text())
    ).features
    names = ",".join(f"column {index}" for index in range(width))
    out = tmp_path / "model"
    result = invoke(checkpoint / "model.pt", *settings, "--feature-names", names, "--out", out)
    assert result.exit_code == 0, result.output
    flow = models.load(out)
    assert [column["name"] for column in flow.provenance["columns"]] == names.split(",")
    told = refused(checkpoint / "model.pt", *settings, "--feature-names", "a,b", "--out", out / "x")
    assert f"feature names: expected {width}" in told


def test_pixels_have_no_columns(tmp_path: Path) -> None:
    told = refused(ROSINALITY, *SIZES, "--feature-names", "a,b", "--out", tmp_path / "model")
    assert "feature names: expected 0" in told
