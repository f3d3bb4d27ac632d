"""The zoo: complete, as its recipes say, and as good as its cards say."""

import functools
import json

import numpy as np
import pytest
import torch
from PIL import Image

import models
from models.checkpoints.folder import digest, read_manifest
from models.datasets import is_named, load, split
from models.datasets.dataset import Dataset
from models.datasets.rows import ROWS_FILE
from models.flow import Flow
from models.ode.transform import is_continuous
from models.onnx.load import read_export
from models.onnx.names import architecture_digest
from models.scoring.statistics import choose_statistic, parse_statistic
from models.scoring.storage import CALIBRATION_FILE, SCORES_FILE, read_calibration
from models.training import TrainingOptions, TrainingReport
from models.training.evaluate import log_probs
from models.transforms.coupling import Coupling
from models.transforms.elementwise import Additive, Affine
from pushforward.cli.evidence import gather_evidence, open_model
from tools.zoo.calibrate import held_out_rows
from tools.zoo.recipes import RECIPES
from tools.zoo.seeds import adjoint_difference, density_integral
from tools.zoo.train import ZOO

MAX_BYTES = 42 * 2**20
FILES = {
    "config.json", "model.safetensors", "golden.safetensors",
    "README.md", "training.json", "loss.png", "samples.png",
}  # fmt: skip
CALIBRATION = {CALIBRATION_FILE, SCORES_FILE}
GRAPHS = {"encode.onnx", "decode.onnx", "certificate.json", "answers.safetensors"}
# Whose data come with the packages the tests install.
SCORED = [name for name, recipe in RECIPES.items() if not recipe.data.startswith("magic")]
every_model = pytest.mark.parametrize("name", RECIPES)

# One process for all: models and data take longer to read than to try.
pytestmark = pytest.mark.xdist_group("zoo_models")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@functools.cache
def flow_of(name: str) -> Flow:
    """A model of the zoo, which proves itself once."""
    return models.load(ZOO / name)


@functools.cache
def data_of(spec: str) -> Dataset:
    """A data set, which is read once."""
    return load(spec)


@every_model
def test_folder_is_complete_and_follows_its_recipe(name: str) -> None:
    recipe, report = RECIPES[name], TrainingReport.read(ZOO / name)
    expected = FILES | GRAPHS | CALIBRATION
    flow = flow_of(name)
    if is_continuous(flow):
        expected |= {"generate.onnx"}
    if not report.data.recipe:  # generated rows have no digests: their bits are the CPU's
        expected |= {ROWS_FILE}
    if recipe.serving:
        expected |= {"serving.toml"}
        assert (ZOO / name / "serving.toml").read_text("utf-8") == recipe.serving
    assert {path.name for path in (ZOO / name).iterdir()} == expected
    assert report.family == recipe.family
    assert report.arguments == json.loads(json.dumps(recipe.config))
    assert TrainingOptions.parse(report.options) == TrainingOptions.parse(recipe.options)
    assert report.data.spec == recipe.data
    # Arguments that came later are no other model.
    digests = {architecture_digest(flow.family, config) for config in (flow.config, report.config)}
    assert len(digests) == 1
    assert sum(weights.numel() for weights in flow.parameters()) == report.parameters


@every_model
def test_graphs_that_ship_are_those_of_the_weights(name: str) -> None:
    folder = ZOO / name
    stored = read_export(folder, flow_of(name), digest(folder))
    assert stored.certificate["is_batch_invariant"]
    digests = stored.certificate["graphs_sha256"]
    assert digests.keys() == {path.name for path in folder.glob("*.onnx")}


@every_model
def test_calibrations_that_ship_are_those_of_the_weights(name: str) -> None:
    folder, report = ZOO / name, TrainingReport.read(ZOO / name)
    manifest = read_manifest(folder)
    calibration = read_calibration(folder, dtype=manifest.dtype)
    assert calibration is not None
    chosen = RECIPES[name].statistic
    if chosen == "auto":
        chosen = choose_statistic(flow_of(name).facts.num_levels)
    assert calibration.statistic == chosen
    checks = calibration.report["checks"]
    assert checks["is_checked"]
    assert checks["engine"] == "onnx"
    assert checks["rows_without_score"] == checks["rows_outside_support"] == 0
    assert calibration.rows == (5000 if report.data.recipe else report.test.rows)
    assert bool(calibration.report["anomalies"]) == bool(report.data.anomalies)
    card, overview = (folder / "README.md").read_text(), (ZOO / "README.md").read_text()
    assert card.count(f"Calibration `{calibration.id}`") == 1
    assert f"{calibration.facts()['thresholds'][0]['threshold']:.6g} (bound" in overview


# Those of mnist take long to read.
@pytest.mark.parametrize("name", [name for name in SCORED if RECIPES[name].data != "mnist"])
def test_calibration_rows_score_as_they_did(name: str) -> None:
    calibration = read_calibration(ZOO / name)
    assert calibration is not None
    rows, _ = held_out_rows(ZOO / name, RECIPES[name])
    kind, _ = parse_statistic(calibration.statistic)
    evidence = gather_evidence(open_model(ZOO / name), rows.x[:20])
    scores = kind.score(evidence, calibration.parameters)
    # Generated rows and log p have other last bits on other CPUs.
    nearest = np.abs(scores[:, None] - calibration.scores).min(1)
    assert nearest.max() < 1e-4 * np.abs(calibration.scores).max()
    assert len(rows) == calibration.rows


@every_model
def test_card_states_data_licence_figures_command_and_picture(name: str) -> None:
    card, report = (ZOO / name / "README.md").read_text(), TrainingReport.read(ZOO / name)
    assert RECIPES[name].summary in card
    assert f"python -m tools.zoo {name}" in card
    assert f"{report.test.nats:.3f}" in card
    assert report.data.licence
    assert f"Licence: {report.data.licence}" in card
    for picture in ("samples.png", "loss.png"):
        assert f"({picture})" in card
        with Image.open(ZOO / name / picture) as image:
            image.verify()
    assert f"{report.test.nats:.3f}" in (ZOO / "README.md").read_text()


def test_the_zoo_is_small_and_has_no_strangers() -> None:
    folders = {path.name for path in ZOO.iterdir() if (path / "config.json").exists()}
    assert folders == set(RECIPES)
    assert len(folders) >= 5
    files = [path for name in folders for path in (ZOO / name).iterdir()]
    assert sum(path.stat().st_size for path in files) < MAX_BYTES


@pytest.mark.parametrize("name", SCORED)
def test_likelihood_on_test_rows_is_that_of_the_card(name: str) -> None:
    report = TrainingReport.read(ZOO / name)
    facts = report.data
    data = data_of(facts.spec)
    assert is_named(data, facts.sha256, facts.spec)
    test = split(
        data, validation=facts.validation_fraction, test=facts.test_fraction, seed=facts.seed
    ).test
    test = test.take(np.arange(min(200, len(test))))
    flow = flow_of(name)
    seed = facts.seed if flow.facts.num_levels is not None else None
    scores = -log_probs(flow, test, noise_seed=seed)
    error = report.test.nats_standard_error * np.sqrt(report.test.rows / len(test))
    assert abs(scores.mean() - report.test.nats) < 4 * error


def test_anomalies_are_found_better_than_by_a_gaussian() -> None:
    report = TrainingReport.read(ZOO / "magic")
    assert report.test.auroc is not None
    assert report.test.auroc > 0.87
    assert "| Gaussian | 0.8" in (ZOO / "magic" / "README.md").read_text()


def test_the_transformer_behind_a_logit_beats_glow_on_the_same_pixels() -> None:
    """Of the two together, that is: Glow has no logit, which is what most of the gain is due to."""
    glow, tarflow = (TrainingReport.read(ZOO / f"digits-{name}") for name in ("glow", "tarflow"))
    assert glow.data == tarflow.data  # rows, seed of their split
    assert glow.options["coarse_bits"] == tarflow.options["coarse_bits"]
    # Wider than the error of the paired difference, since what is hard for one is for the other.
    error = np.hypot(glow.test.nats_standard_error, tarflow.test.nats_standard_error)
    assert tarflow.test.nats < glow.test.nats - 3 * error


# ------------------------------------------------------------------ the lecture's examples


def test_moons_has_five_affine_couplings_and_nice_six_additive_ones() -> None:
    for name, count, elementwise in (("moons", 5, Affine), ("digits-nice", 6, Additive)):
        flow = flow_of(name)
        couplings = [module for module in flow.modules() if isinstance(module, Coupling)]
        assert len(couplings) == count
        assert all(isinstance(coupling.elementwise, elementwise) for coupling in couplings)
    assert flow.event_shape == (1, 28, 28)


@pytest.mark.parametrize(
    ("name", "half_width", "side"), [("moons", 6.0, 200), ("pinwheel", 5.0, 80)]
)
def test_density_of_plane_models_integrates_to_one(name: str, half_width: float, side: int) -> None:
    flow = models.load(ZOO / name, dtype=torch.float64)
    assert density_integral(flow, half_width, side) == pytest.approx(1, abs=1e-3)


def test_adjoint_gradient_is_the_direct_one() -> None:
    flow = models.load(ZOO / "pinwheel", dtype=torch.float64)
    x = torch.from_numpy(load("pinwheel?rows=8").x)
    assert adjoint_difference(flow, x) < 1e-5


@every_model
def test_float32_agrees_with_float64(name: str) -> None:
    test = TrainingReport.read(ZOO / name).test
    assert test.float32_max_error < 1e-5 * max(1.0, abs(test.nats)) + 1e-4
    assert test.round_trip_max_error < 1e-2
