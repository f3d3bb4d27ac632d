"""Hyper-parameters: inferred where weights show them, asked for by name where they do not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import models
from models.importers.report import HyperParametersMissing, ImportRefused
from tests.models.importers.golden import Golden, load

# What no weight of a source shows; everything else may be left out.
ASKED: dict[str, set[str]] = {
    "chaiyujin_glow_a": set(),
    "chaiyujin_glow_b": set(),
    "chrischute_glow_a": {"image_size"},
    "chrischute_realnvp_a": {"image_size"},
    "kamenbliznashki_glow_a": {"input_dims", "n_bits"},
    "normflows_glow_a": {"scale_map", "split_mode", "leaky", "logit_alpha"},
    "normflows_glow_additive_shift": {"input_shape", "split_mode", "leaky", "logit_alpha"},
    "normflows_planar_radial_mixed": {"act"},
    "normflows_radial_one_feature": set(),
    "rosinality_glow_a": {"img_size", "n_bits"},
    "y0ast_glow_a": set(),
    "y0ast_glow_b": set(),
    "y0ast_reverse": {"flow_permutation"},
}
# Hyper-parameters with a default that a model may differ from without a trace.
EXTRA = {"normflows_glow_additive_shift": {"shift"}}


def only(case: Golden, names: set[str]) -> dict[str, Any]:
    return {key: value for key, value in case.config.items() if key in names}


@pytest.mark.parametrize("name", ASKED)
@torch.no_grad()
def test_what_the_weights_show_may_be_left_out(name: str) -> None:
    case = load(name)
    config = only(case, ASKED[name] | EXTRA.get(name, set()))
    flow = models.import_checkpoint(case.checkpoint, None, config, "none")
    assert flow.config == case.flow().config
    x, context = case.arrays["x"], case.context()
    assert torch.equal(flow.log_prob(x, context), case.flow().log_prob(x, context))


@pytest.mark.parametrize("name", [name for name, asked in ASKED.items() if asked])
def test_what_they_do_not_show_is_asked_for_by_name(name: str) -> None:
    with pytest.raises(HyperParametersMissing) as caught:
        models.import_checkpoint(load(name).checkpoint)
    report = caught.value.report
    assert report is not None
    missing = {setting.name for setting in report.settings if setting.origin == "missing"}
    assert missing == ASKED[name]
    assert all(f"{wanted} is not in the checkpoint" in str(caught.value) for wanted in missing)


def test_values_that_would_fit_are_given() -> None:
    with pytest.raises(HyperParametersMissing, match=r"a multiple of 4 \(4, 8, 16, 32, \.\.\.\)"):
        models.import_checkpoint(load("rosinality_glow_a").checkpoint)


@pytest.mark.parametrize(
    ("name", "setting", "value", "right"),
    [
        ("rosinality_glow_b", "n_flow", 3, "2"),
        ("rosinality_glow_b", "affine", False, "true"),
        ("rosinality_glow_b", "filter_size", 512, "24"),
        ("y0ast_glow_a", "LU_decomposed", False, "true"),
        ("y0ast_glow_a", "image_shape", [16, 16, 3], r"\[8, 8, 3\]"),
        ("y0ast_glow_b", "y_classes", 10, "5"),
        ("chaiyujin_glow_b", "flow_coupling", "affine", '"additive"'),
        ("chrischute_glow_a", "num_levels", 3, "2"),
        ("chrischute_realnvp_a", "num_blocks", 8, "1"),
        ("kamenbliznashki_glow_a", "depth", 32, "2"),
        ("normflows_glow_a", "num_classes", 10, "4"),
        ("normflows_glow_a", "use_lu", False, "true"),
    ],
)
def test_conflicts_name_both_values(name: str, setting: str, value: Any, right: str) -> None:
    case = load(name)
    config = {**case.config.get("hparams", {}).get("Glow", case.config), setting: value}
    given = json.dumps(value).replace("[", r"\[").replace("]", r"\]")
    with pytest.raises(
        ImportRefused, match=f"{setting}: {given} was given, but the weights say {right} "
    ):
        models.import_checkpoint(case.checkpoint, case.config["source"], config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_blocks": 2}, r"n_blocks: not a hyper-parameter .*did you mean 'n_block'"),
        ({"img_size": "8"}, r"img_size\.\S*: Input should be a valid integer"),
        ({"img_size": 10}, "expected height and width divisible by 2"),
        ({"n_bits": 9}, "n_bits: Input should be less than or equal to 8"),
        ({"img_size": None}, "img_size"),
    ],
    ids=str,
)
def test_wrong_hyper_parameters_are_named(changes: dict[str, Any], message: str) -> None:
    case = load("rosinality_glow_b")
    with pytest.raises(ImportRefused, match=message):
        models.import_checkpoint(case.checkpoint, None, {**case.config, **changes})


def test_settings_of_training_are_passed_over_and_reported() -> None:
    case = load("y0ast_glow_a")
    config = {**case.config, "lr": 5e-4, "warmup": 5, "_note": "mine"}
    flow = models.import_checkpoint(case.checkpoint, None, config)
    ignored = [item["what"] for item in flow.provenance["findings"] if item["kind"] == "ignored"]
    assert {"lr", "warmup"} <= set(ignored)


def test_hparams_files_of_chaiyujin_are_read_as_they_are(tmp_path: Path) -> None:
    case = load("chaiyujin_glow_b")
    path = tmp_path / "celeba.json"
    path.write_text(json.dumps(case.config["hparams"]))
    flow = models.import_checkpoint(case.checkpoint, None, path, "none")
    assert flow.config == case.flow().config


def test_a_config_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for text in ("n_flow: 3", "[1]"):
        path.write_text(text)
        with pytest.raises(ImportRefused, match=r"config\.json"):
            models.import_checkpoint(load("y0ast_glow_a").checkpoint, None, path)


def test_preprocessing_has_two_ways() -> None:
    with pytest.raises(ImportRefused, match="preprocessing: expected one of source, none"):
        models.import_checkpoint(load("y0ast_glow_a").checkpoint, preprocessing="pixels")


def test_provenance_tells_the_whole_story() -> None:
    case = load("y0ast_glow_b")
    flow = models.import_checkpoint(case.checkpoint, None, {"K": 2})
    story = flow.provenance
    assert json.loads(json.dumps(story)) == story
    assert story["imported_from"] == "y0ast/Glow-PyTorch"
    assert story["file"] == "glow_checkpoint_1.pt"
    assert len(story["file_sha256"]) == 64
    assert story["hyper_parameters"]["y_classes"] == 5
    origins = story["hyper_parameter_origins"]
    assert origins["K"] == "given: by the user"
    assert origins["L"].startswith("inferred: ")
    assert origins["n_bits"].startswith("default: ")
