"""Training: it learns, it repeats itself, it resumes, and what it writes is complete."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import models
from models.datasets import Dataset, DatasetError, load
from models.flow import Flow
from models.training import TrainingError, TrainingOptions, TrainingReport, train
from models.training.card import train_command
from models.training.defaults import fill_defaults
from models.training.ema import EMA
from models.training.evaluate import area_under_roc, evaluate, log_probs
from models.training.options import learning_rate_factor
from models.training.pictures import few_colours, to_bytes
from models.training.pixel_noise import redraw
from models.training.progress import ProgressBar
from models.training.run import Run
from models.training.state import State, read_state, state_path, write_state
from models.transforms.actnorm import ActNorm
from models.transforms.preprocess import Dequantise
from tests.blank_pictures import blank_pictures, drawn_pictures  # noqa: F401  (fixtures)

VECTOR = {"num_layers": 4, "conditioner": {"kind": "mlp", "widths": [16]}}
GLOW = {"num_levels": 1, "num_steps": 2, "hidden_channels": 8}
QUICK = TrainingOptions(epochs=4, batch_rows=64, warmup_steps=5, save_seconds=0)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def moons() -> Dataset:
    return load("two_moons?rows=400")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits").take(np.arange(120))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    for key, value in left.items():
        assert torch.equal(value, right[key]), key


class Interrupted(Exception):
    """Stands for Ctrl-C."""


class StopAfter:
    """A listener that interrupts a run after some epochs; counts what it is told."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.steps = 0
        self.ended = 0

    def on_start(self, total_steps: int, done_steps: int, bits_scale: float | None) -> None:
        self.total_steps, self.done_steps = total_steps, done_steps
        self.bits_scale = bits_scale

    def on_step(self, nats: float) -> None:
        self.steps += 1
        if self.steps > self.epochs * self.total_steps // QUICK.epochs:
            raise Interrupted

    def on_epoch(self, number: int, epoch: object, *, is_best: bool) -> None:
        self.last_epoch = number

    def on_end(self) -> None:
        self.ended += 1


# ------------------------------------------------------------------ learning


@pytest.mark.usefixtures("drawn_pictures")
def test_it_learns_and_writes_a_complete_model_folder(tmp_path: Path, moons: Dataset) -> None:
    options = QUICK.model_copy(update={"epochs": 30, "learning_rate": 5e-3})
    out = tmp_path / "moons"
    report = train(moons, "realnvp", VECTOR, out, options=options)
    entropy = 0.5 * np.linalg.slogdet(2 * math.pi * math.e * np.cov(moons.x.T))[1]
    assert report.test.nats < entropy - 0.1, "no better than a Gaussian"

    names = {path.name for path in out.iterdir()}
    assert names == {
        "config.json", "model.safetensors", "golden.safetensors",
        "training.json", "README.md", "loss.png", "samples.png",
    }  # fmt: skip
    for picture in ("loss.png", "samples.png"):
        with Image.open(out / picture) as image:
            assert min(image.size) > 100
    assert TrainingReport.read(out) == report
    assert not state_path(out).exists()

    flow = models.load(out)
    assert flow.provenance["trained_on"] == "two_moons"
    golden = load_file(out / "golden.safetensors")["x"].numpy()
    rows = moons.x
    assert all((row == rows).all(1).any() for row in golden), "golden rows are not data"
    card = (out / "README.md").read_text()
    assert f"{report.test.nats:.3f}" in card
    assert "pushforward train --data 'two_moons?rows=400' --family realnvp" in card


def test_stored_weights_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    # 142 rows of 13 features are soon learnt by heart.
    wine = load("wine")
    options = QUICK.model_copy(
        update={"epochs": 60, "learning_rate": 2e-2, "schedule": "constant", "patience": 3}
    )
    out = tmp_path / "m"
    report = train(wine, "realnvp", VECTOR, out, options=options)
    validations = [epoch.validation_nats for epoch in report.history]
    assert report.best_epoch == int(np.argmin(validations)) + 1
    assert report.stopped_early == (len(validations) - report.best_epoch >= 3)
    assert report.stopped_early
    shorter = options.model_copy(update={"epochs": report.best_epoch})
    train(wine, "realnvp", VECTOR, tmp_path / "short", options=shorter)
    assert_same_weights(out, tmp_path / "short")


@pytest.mark.parametrize("ema_decay", [None, 0.9], ids=["plain", "ema"])
def test_one_seed_gives_the_same_weights(
    tmp_path: Path, digits: Dataset, ema_decay: float | None
) -> None:
    options = QUICK.model_copy(update={"epochs": 2, "ema_decay": ema_decay})
    for name in ("a", "b"):
        torch.rand(3)  # a different global state must not matter
        train(digits, "glow", GLOW, tmp_path / name, options=options)
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    other = options.model_copy(update={"seed": 1})
    train(digits, "glow", GLOW, tmp_path / "c", options=other)
    assert any(
        not torch.equal(value, weights(tmp_path / "c")[key])
        for key, value in weights(tmp_path / "a").items()
    )


def test_training_leaves_the_global_generator_alone(tmp_path: Path, moons: Dataset) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(moons, "realnvp", VECTOR, tmp_path / "m", options=QUICK)
    assert torch.equal(torch.rand(3), expected)


def test_class_conditional_training(tmp_path: Path, digits: Dataset) -> None:
    out = tmp_path / "m"
    report = train(digits, "glow", {**GLOW, "num_classes": 10}, out, options=QUICK)
    assert math.isfinite(report.test.nats)
    flow = models.load(out)
    assert flow.context_shape == (10,)
    assert load_file(out / "golden.safetensors")["context"].sum(1).eq(1).all()


@pytest.mark.usefixtures("drawn_pictures")
def test_pixels_are_reported_in_bits(tmp_path: Path, digits: Dataset) -> None:
    report = train(digits, "glow", GLOW, tmp_path / "m", options=QUICK)
    test = report.test
    assert test.bits_per_dim == pytest.approx(test.nats / (64 * math.log(2)))
    assert test.bits_per_dim_midpoint != test.bits_per_dim
    with Image.open(tmp_path / "m" / "samples.png") as image:
        assert image.mode == "L"


def test_charts_have_few_bytes(tmp_path: Path) -> None:
    chart = Image.effect_noise((320, 320), 30).convert("RGB")
    chart.paste((255, 120, 0), (0, 0, 160, 320))
    found = few_colours(chart)
    assert found.mode == "P"
    assert np.abs(np.asarray(found.convert("RGB"), int) - np.asarray(chart, int)).mean() < 0.5


def test_anomalies_are_held_out_and_ranked(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal((200, 3)), 4 + rng.standard_normal((30, 3))])
    anomaly = np.arange(230) >= 200
    data = Dataset("t", x, anomaly=anomaly)
    report = train(data, "realnvp", VECTOR, tmp_path / "m", options=QUICK)
    assert (report.data.train_rows, report.data.test_rows) == (160, 50)
    assert report.test.anomalies == 30
    assert report.test.auroc is not None
    assert report.test.auroc > 0.95
    flow = models.load(tmp_path / "m")
    np.testing.assert_allclose(flow.state_dict()["transforms.0.mean"].abs().max(), 0, atol=0.3)


# ------------------------------------------------------------------ resuming


@pytest.mark.parametrize(
    ("family", "config", "ema_decay"),
    [("realnvp", VECTOR, None), ("realnvp", VECTOR, 0.9), ("glow", GLOW, None)],
    ids=["plain", "ema", "actnorm-and-noise"],
)
def test_a_resumed_run_ends_where_an_unbroken_one_does(
    tmp_path: Path, digits: Dataset, family: str, config: Mapping[str, Any], ema_decay: float | None
) -> None:
    data = digits if family == "glow" else load("wine")
    options = QUICK.model_copy(update={"ema_decay": ema_decay, "batch_rows": 32})
    train(data, family, config, tmp_path / "whole", options=options)
    listener = StopAfter(epochs=2)
    with pytest.raises(Interrupted):
        train(data, family, config, tmp_path / "broken", options=options, listener=listener)
    assert listener.ended == 1
    assert state_path(tmp_path / "broken").is_file()
    rest = StopAfter(epochs=99)
    report = train(
        data, family, config, tmp_path / "broken", options=options, resume=True, listener=rest
    )
    assert rest.done_steps == rest.total_steps // 2
    assert len(report.history) == QUICK.epochs
    assert_same_weights(tmp_path / "whole", tmp_path / "broken")


@pytest.fixture
def broken(tmp_path: Path, moons: Dataset) -> Path:
    with pytest.raises(Interrupted):
        train(moons, "realnvp", VECTOR, tmp_path / "m", options=QUICK, listener=StopAfter(epochs=2))
    return tmp_path / "m"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": QUICK.model_copy(update={"learning_rate": 0.5})}, "another options"),
        ({"config": {**VECTOR, "num_layers": 6}}, "another config"),
        ({"data": "two_moons?rows=400&seed=9"}, "another"),
    ],
    ids=["options", "config", "data"],
)
def test_resuming_another_run_is_refused(
    broken: Path, moons: Dataset, change: dict[str, Any], message: str
) -> None:
    data = load(change["data"]) if "data" in change else moons
    config, options = change.get("config", VECTOR), change.get("options", QUICK)
    with pytest.raises(TrainingError, match=message):
        train(data, "realnvp", config, broken, options=options, resume=True)


@pytest.mark.parametrize("change", [{"seed": 5}, {"batch_rows": 16}], ids=["seed", "batch-rows"])
def test_resuming_with_another_course_is_refused(
    tmp_path: Path, moons: Dataset, change: dict[str, int]
) -> None:
    """Also where the configuration does not depend on the split, as standardising does."""
    config, options = {**VECTOR, "preprocessing": []}, QUICK.model_copy(update=change)
    with pytest.raises(Interrupted):
        train(moons, "realnvp", config, tmp_path, options=QUICK, listener=StopAfter(epochs=2))
    with pytest.raises(TrainingError, match="another options"):
        train(moons, "realnvp", config, tmp_path, options=options, resume=True)


def rewrite_recipe(state: Path, change: Callable[[dict[str, Any]], None]) -> None:
    old = read_state(state)
    recipe = json.loads(json.dumps(old.facts["recipe"]))
    change(recipe)
    write_state(state, State(old.tensors, {**old.facts, "recipe": recipe}))


def test_a_run_of_another_cpu_is_resumed(broken: Path, moons: Dataset) -> None:
    def move(recipe: dict[str, Any]) -> None:
        (step,) = recipe["config"]["preprocessing"]
        step["mean"] = np.nextafter(step["mean"], np.inf).tolist()
        step["std"] = np.nextafter(step["std"], np.inf).tolist()

    rewrite_recipe(state_path(broken), move)
    assert len(train(moons, "realnvp", VECTOR, broken, options=QUICK, resume=True).history) == 4


def test_a_run_of_other_statistics_is_not(broken: Path, moons: Dataset) -> None:
    def move(recipe: dict[str, Any]) -> None:
        recipe["config"]["preprocessing"][0]["mean"][0] += 1e-6

    rewrite_recipe(state_path(broken), move)
    with pytest.raises(TrainingError, match="another config"):
        train(moons, "realnvp", VECTOR, broken, options=QUICK, resume=True)


def test_a_run_that_names_generated_data_by_their_values_is_resumed(
    broken: Path, moons: Dataset
) -> None:
    rewrite_recipe(state_path(broken), lambda recipe: recipe.update(data=moons.values_digest()))
    assert len(train(moons, "realnvp", VECTOR, broken, options=QUICK, resume=True).history) == 4


def test_more_epochs_may_be_asked_for_on_resuming(broken: Path, moons: Dataset) -> None:
    options = QUICK.model_copy(update={"epochs": 6})
    report = train(moons, "realnvp", VECTOR, broken, options=options, resume=True)
    assert len(report.history) == 6


def test_a_damaged_state_is_refused(broken: Path, moons: Dataset) -> None:
    path = state_path(broken)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(TrainingError, match="damaged"):
        train(moons, "realnvp", VECTOR, broken, options=QUICK, resume=True)


def test_nothing_to_resume(tmp_path: Path, moons: Dataset) -> None:
    with pytest.raises(TrainingError, match="nothing to resume"):
        train(moons, "realnvp", VECTOR, tmp_path / "m", options=QUICK, resume=True)


# ------------------------------------------------------------------ refusals


def test_a_finished_model_is_not_overwritten(tmp_path: Path, moons: Dataset) -> None:
    train(moons, "realnvp", VECTOR, tmp_path / "m", options=QUICK)
    with pytest.raises(TrainingError, match="holds a model"):
        train(moons, "realnvp", VECTOR, tmp_path / "m", options=QUICK)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "epochs: .*greater than or equal to 1, got 0"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"schedule": "step"}, "schedule: .*'cosine' or 'constant'"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"momentum": 0.9}, "momentum"),
    ],
)
def test_bad_options(given: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        TrainingOptions.parse(given)


def test_constant_columns_are_refused(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((50, 2))
    x[:, 1] = 3
    with pytest.raises(DatasetError, match="column 1 'b' has one value only, 3"):
        train(Dataset("t", x, columns=("a", "b")), "realnvp", VECTOR, tmp_path / "m")


def test_a_loss_that_is_not_finite_stops_training(tmp_path: Path, moons: Dataset) -> None:
    flow = models.build("realnvp", fill_defaults("realnvp", VECTOR, moons))
    with torch.no_grad():
        next(flow.parameters()).fill_(math.nan)
    run = Run(flow, QUICK, {})
    x = torch.ones(4, 2)
    assert [run.update(x, None) for _ in range(19)] == [None] * 19
    with pytest.raises(TrainingError, match="not finite 20 steps in a row"):
        run.update(x, None)


# ------------------------------------------------------------------ the parts


def test_rate_warms_up_then_falls_like_a_cosine() -> None:
    options = TrainingOptions(warmup_steps=10)
    rates = np.array([learning_rate_factor(step, 110, options) for step in range(110)])
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    assert rates[60] == pytest.approx(0.5)
    assert (np.diff(rates[10:]) < 0).all()
    assert rates[-1] < 1e-3
    constant = options.model_copy(update={"schedule": "constant"})
    assert learning_rate_factor(109, 110, constant) == 1


def test_actnorm_is_set_from_the_training_rows(digits: Dataset) -> None:
    flow = models.build("glow", fill_defaults("glow", GLOW, digits))
    Run(flow, QUICK, {}).initialise(digits)
    first = next(module for module in flow.modules() if isinstance(module, ActNorm))
    assert not torch.equal(first.log_scale, torch.zeros_like(first.log_scale))


def test_ema_follows_the_weights() -> None:
    flow = models.build("realnvp", {"event_shape": [2], **VECTOR})
    ema = EMA(flow, decay=0.9)
    start = next(ema.flow.parameters()).clone()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 1
    ema.update(flow, step=0)  # d = 1 / 10
    torch.testing.assert_close(next(ema.flow.parameters()), start + 0.9)
    ema.update(flow, step=10**6)  # d = 0.9
    torch.testing.assert_close(next(ema.flow.parameters()), start + 0.91)


def test_fill_defaults_fills_in_what_the_data_say(digits: Dataset) -> None:
    table = Dataset("t", np.array([[1.0, 10.0], [3.0, 30.0]]))
    filled = fill_defaults("realnvp", {}, table)
    assert filled["event_shape"] == [2]
    assert filled["preprocessing"] == [
        {"kind": "standardise", "mean": [2.0, 20.0], "std": [1.0, 10.0]}
    ]
    assert fill_defaults("realnvp", {"preprocessing": []}, table)["preprocessing"] == []
    kinds = [step["kind"] for step in fill_defaults("glow", {}, digits)["preprocessing"]]
    assert kinds == ["dequantise", "shift_scale"]
    kinds = [step["kind"] for step in fill_defaults("realnvp_image", {}, digits)["preprocessing"]]
    assert kinds == ["dequantise", "shift_scale", "logit"]
    (noise, _) = fill_defaults("glow", {}, load("digits"))["preprocessing"]
    assert noise == {"kind": "dequantise", "levels": 17}


def test_redrawn_pixels_fill_their_bins_evenly() -> None:
    x = torch.arange(256.0).repeat(200, 1)
    drawn = redraw(x, bits=5)
    assert torch.equal(drawn, drawn.floor())
    assert torch.equal((drawn / 8).floor(), (x / 8).floor())
    counts = torch.bincount(drawn.flatten().long(), minlength=256)
    # 51,200 pixels over 256 values: mean 200, standard deviation 13.
    assert 200 - 6 * 13 < counts.min() <= counts.max() < 200 + 6 * 13
    assert torch.equal(redraw(x, bits=8), x)


def test_coarse_pixels_are_seeded_and_only_for_8_bit_pixels(
    tmp_path: Path, digits: Dataset, moons: Dataset
) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(60, 1, 4, 4), dtype=np.uint8)
    data = Dataset("t", pixels, num_levels=256)
    options = QUICK.model_copy(update={"coarse_bits": 3, "epochs": 2})
    for name in ("a", "b"):
        train(data, "glow", GLOW, tmp_path / name, options=options)
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    for other, config, family in ((digits, GLOW, "glow"), (moons, VECTOR, "realnvp")):
        with pytest.raises(TrainingError, match="expected pixels with 256 levels"):
            train(other, family, config, tmp_path / "c", options=options)


def test_command_of_the_card_names_only_what_was_chosen(tmp_path: Path, moons: Dataset) -> None:
    report = train(moons, "realnvp", VECTOR, tmp_path / "m", options=QUICK)
    words = train_command(report, "m")
    assert "--set num_layers=4" in words
    assert "--epochs 4" in words
    assert "preprocessing" not in words
    assert "--seed" not in words


def test_progress_shows_nats_and_bits(
    tmp_path: Path, digits: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    options = QUICK.model_copy(update={"epochs": 1})
    train(digits, "glow", GLOW, tmp_path / "m", options=options, listener=ProgressBar())
    shown = capsys.readouterr().out
    assert "nats" in shown
    assert "bits/dim" in shown


@pytest.mark.usefixtures("drawn_pictures")
def test_pictures_of_many_channels_show_the_first(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(256, size=(40, 4, 4, 4), dtype=np.uint8)
    data = Dataset("bands", x, num_levels=256)
    train(data, "glow", {**GLOW, "num_steps": 1}, tmp_path / "m", options=TrainingOptions(epochs=1))
    with Image.open(tmp_path / "m" / "samples.png") as image:
        assert image.mode == "L"


def test_pixels_become_bytes_over_their_own_range() -> None:
    pixels = np.array([-3.0, 0.4, 8.2, 16.0, 40.0])
    assert to_bytes(pixels, 17).tolist() == [0, 0, 128, 255, 255]


# ------------------------------------------------------------------ evaluation


@pytest.mark.parametrize(
    ("normal", "anomalous", "expected"),
    [
        ([0, 1], [2, 3], 1.0),
        ([2, 3], [0, 1], 0.0),
        ([1, 1], [1, 1], 0.5),
        ([0, 2], [1, 3], 0.75),
        ([-math.inf, 0], [math.inf, math.inf], 1.0),
    ],
)
def test_area_under_roc(normal: list[float], anomalous: list[float], expected: float) -> None:
    assert area_under_roc(np.array(normal, float), np.array(anomalous, float)) == expected


def test_area_under_roc_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    normal, anomalous = rng.integers(6, size=40) * 1.0, 1.0 + rng.integers(6, size=25)
    expected = roc_auc_score(np.arange(65) >= 40, np.concatenate([normal, anomalous]))
    assert area_under_roc(normal, anomalous) == pytest.approx(expected, abs=1e-12)


def identity_flow(features: int) -> Flow:
    from models.transforms.preprocess import Standardise

    return Flow([Standardise([0.0] * features, [1.0] * features)], (features,))


def test_evaluation_of_a_known_density() -> None:
    x = np.random.default_rng(0).standard_normal((5000, 2))
    figures = evaluate(identity_flow(2), Dataset("t", x))
    assert figures.nats == pytest.approx(math.log(2 * math.pi) + 1, abs=0.05)
    assert figures.nats_standard_error == pytest.approx(1 / math.sqrt(5000), rel=0.1)
    assert figures.round_trip_max_error == 0
    assert figures.float32_max_error < 1e-5
    assert (figures.bits_per_dim, figures.auroc, figures.non_finite_rows) == (None, None, 0)


def test_rows_outside_the_support_are_counted(digits: Dataset) -> None:
    flow = models.build(
        "realnvp_image", {**fill_defaults("realnvp_image", {}, digits), "num_blocks": 0}
    )
    outside = Dataset("t", digits.x.astype(float) + 40)
    assert evaluate(flow, outside.take(np.arange(3))).non_finite_rows == 3


def test_dequantization_noise_is_seeded_and_leaves_no_trace(digits: Dataset) -> None:
    flow = models.build("glow", fill_defaults("glow", GLOW, digits))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    one, same, other = (log_probs(flow, digits, noise_seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(2), expected)
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert not any(m.training for m in flow.modules() if isinstance(m, Dequantise))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Dataset("t", np.zeros((3, 5))), r"rows have shape \(5,\), the model takes \(2,\)"),
        (
            Dataset("t", np.zeros((3, 2)), anomaly=np.ones(3, bool)),
            "no normal row",
        ),
    ],
    ids=["shape", "anomalies-only"],
)
def test_evaluation_refuses(data: Dataset, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        evaluate(identity_flow(2), data)


def test_a_conditional_model_needs_labels(digits: Dataset) -> None:
    flow = models.build("glow", fill_defaults("glow", {**GLOW, "num_classes": 10}, digits))
    unlabelled = Dataset("t", digits.x, num_levels=17)
    with pytest.raises(DatasetError, match="conditional on 10 classes, the data have 0"):
        evaluate(flow, unlabelled)
