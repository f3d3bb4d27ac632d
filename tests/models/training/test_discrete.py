"""Dequantised columns: a bounded likelihood, and figures that bound that of the integers."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from models.checkpoints.folder import load
from models.datasets import Dataset, DatasetError
from models.flow import Flow
from models.registry import build
from models.training import TrainingOptions, TrainingReport, train
from models.training.evaluate import check_fits, evaluate, importance_weighted, noisy_log_probs
from tests.blank_pictures import blank_pictures  # noqa: F401  (fixtures)
from tests.cases import perturb

RNG = np.random.default_rng(0)
SMALL = {"num_layers": 4, "conditioner": {"kind": "mlp", "widths": [16]}}
OPTIONS = TrainingOptions(epochs=60, batch_rows=128, learning_rate=5e-3, patience=60)
ROWS = 800
SMOKER = RNG.random(ROWS) < 0.3
TABLE = np.stack([SMOKER, RNG.random(ROWS) < np.where(SMOKER, 0.8, 0.1)], axis=1).astype(float)
DATA = Dataset(name="habits", x=TABLE, columns=("smoker", "drinker"), discrete=(0, 1))

# One process for all: what they share is made once.
pytestmark = pytest.mark.xdist_group("discrete")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingReport]:
    out = tmp_path_factory.mktemp("models") / "habits"
    return out, train(DATA, "realnvp", SMALL, out, options=OPTIONS)


def entropy(x: np.ndarray) -> float:
    """Of the empirical distribution of rows: no model of integers has a larger mean log P."""
    _, counts = np.unique(x, axis=0, return_counts=True)
    share = counts / counts.sum()
    return float(-(share * np.log(share)).sum())


def test_the_likelihood_of_integers_is_bounded(
    trained: tuple[Path, TrainingReport], tmp_path: Path
) -> None:
    out, report = trained
    figures = evaluate(load(out), DATA)
    assert figures.log_likelihood_bound is not None
    assert entropy(TABLE) - 0.01 < figures.nats < entropy(TABLE) + 0.5
    assert -figures.nats <= figures.log_likelihood_bound <= -entropy(TABLE) + 0.01
    # Without the mark a density piles up on the values, and beats every distribution of integers.
    loose = Dataset(name="habits", x=TABLE, columns=("smoker", "drinker"))
    before = train(loose, "realnvp", SMALL, tmp_path / "loose", options=OPTIONS)
    assert before.test.nats < entropy(TABLE) - 1
    assert len(before.data.warnings) == 1
    assert report.data.warnings == ()


def test_rounded_samples_have_the_shares_of_the_data(trained: tuple[Path, TrainingReport]) -> None:
    flow = load(trained[0]).eval()
    with torch.no_grad():
        x, _ = flow.sample(4000, seed=1)
    rounded = x.round().numpy()
    assert np.isin(rounded, (0, 1)).mean() > 0.93
    assert rounded.clip(0, 1).mean(0) == pytest.approx(TABLE.mean(0), abs=0.06)


def test_rows_are_served_at_the_middle_of_their_bins(trained: tuple[Path, TrainingReport]) -> None:
    out, _ = trained
    flow = load(out).double().eval()
    assert flow.facts.discrete == (0, 1)
    x = torch.tensor([[0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    with torch.no_grad():
        z, _ = flow.encode(x)
        back, _ = flow.decode(z)
        shifted = flow.chain[0].encode(x)[0]
    assert torch.allclose(back, x, atol=1e-9)
    assert torch.equal(shifted, x + 0.5)


def test_folder_and_card_say_both_numbers(trained: tuple[Path, TrainingReport]) -> None:
    out, report = trained
    provenance = json.loads((out / "config.json").read_text())["provenance"]
    assert [column["discrete"] for column in provenance["columns"]] == [True, True]
    assert provenance["test_log_density_midpoint"] == report.test.log_density_midpoint
    assert provenance["test_log_likelihood_bound"] == report.test.log_likelihood_bound
    assert provenance["test_bound_draws"] == 16
    card = (out / "README.md").read_text()
    assert f"as served, nats a row | {report.test.log_density_midpoint:.3f} |" in card
    assert f"16 draws of noise, nats a row | {report.test.log_likelihood_bound:.3f} |" in card
    assert "Discrete: `smoker`, `drinker`." in card
    assert TrainingReport.read(out) == report


def mixed_flow() -> Flow:
    """Over a whole number and a real one, far from trained: bins are not flat."""
    steps = [
        {"kind": "dequantise_columns", "columns": [0]},
        {"kind": "standardise", "mean": [1.5, 0.0], "std": [1.1, 1.0]},
    ]
    config = {**SMALL, "event_shape": [2], "preprocessing": steps}
    torch.manual_seed(0)
    return perturb(build("realnvp", config).double(), 0.3).eval()


@torch.no_grad()
def log_masses(
    flow: Flow, integers: np.ndarray, others: np.ndarray, points: int = 400
) -> np.ndarray:
    """log of the integral of the density over each bin, by the midpoint rule."""
    offsets = (np.arange(points) + 0.5) / points - 0.5
    rows = np.stack(
        [(integers[:, None] + offsets).ravel(), np.repeat(others, len(offsets))], axis=1
    )
    log_density = flow.log_prob(torch.from_numpy(rows)).numpy().reshape(len(integers), -1)
    return np.asarray(np.logaddexp.reduce(log_density, axis=1) - math.log(len(offsets)))


def test_the_bounds_are_below_the_likelihood_and_in_order() -> None:
    flow = mixed_flow()
    x = np.stack([RNG.integers(-1, 4, 600), RNG.normal(size=600)], axis=1)
    draws = noisy_log_probs(flow, Dataset(name="mixed", x=x), draws=32)
    assert draws.shape == (32, 600)
    true = log_masses(flow, x[:, 0], x[:, 1])
    average, weighted = draws.mean(0), importance_weighted(draws)
    assert (average <= weighted + 1e-12).all()
    error = (weighted - true).std() / math.sqrt(len(x))
    assert weighted.mean() <= true.mean() + 3 * error
    assert weighted.mean() == pytest.approx(true.mean(), abs=0.05)
    assert average.mean() < weighted.mean() - 1e-3


def test_the_masses_of_all_integers_sum_to_the_density_of_the_rest() -> None:
    flow = mixed_flow()
    integers, places = np.arange(-10.0, 14.0), np.linspace(-10, 10, 161)
    rows = np.tile(integers, len(places)), np.repeat(places, len(integers))
    masses = np.exp(log_masses(flow, *rows, points=50))
    assert masses.sum() * (places[1] - places[0]) == pytest.approx(1, abs=2e-3)


def test_rows_that_are_no_integers_are_refused() -> None:
    halves = Dataset(name="halves", x=np.array([[1.0, 0.3], [0.5, 0.1]]), columns=("a", "b"))
    with pytest.raises(DatasetError, match=r"halves: discrete: .* column 'a', row 1 holds 0.5"):
        check_fits(mixed_flow(), halves)


def test_a_preprocessing_that_knows_nothing_of_the_mark_is_refused(tmp_path: Path) -> None:
    config = {**SMALL, "preprocessing": []}
    with pytest.raises(DatasetError, match=r"dequantises the columns \[\], the data mark \[0, 1\]"):
        train(DATA, "realnvp", config, tmp_path / "m", options=OPTIONS)
