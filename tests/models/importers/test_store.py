"""Imported flows as model folders: nothing is lost, and they prove themselves when loaded."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import models
from models.importers.likelihood import source_number
from models.importers.run import Request, run
from models.importers.store import save_import
from tests.models.importers.golden import load


@pytest.mark.parametrize("name", ["rosinality_mixed_lu", "normflows_glow_sigmoid_inv_logit"])
@torch.no_grad()
def test_a_folder_holds_the_flow_to_the_last_bit(tmp_path: Path, name: str) -> None:
    case = load(name)
    save_import(case.flow("none"), tmp_path / "model")
    loaded = models.load(tmp_path / "model", dtype=torch.float64)
    x, context = case.arrays["x"], case.context()
    assert torch.equal(loaded.log_prob(x, context), case.flow("none").log_prob(x, context))


def test_copied_weights_are_float32_and_computed_ones_float64(tmp_path: Path) -> None:
    save_import(load("rosinality_mixed_lu").flow("none"), tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    assert weights["transforms.3.conditioner.layers.0.weight"].dtype == torch.float32
    # The last level has its convolutions in LU form, multiplied out.
    product = next(
        value
        for key, value in weights.items()
        if ".rest." in key and key.endswith("transforms.2.weight")
    )
    assert product.dtype == torch.float64


def test_it_is_served_in_float32_and_says_how_well(tmp_path: Path) -> None:
    save_import(load("y0ast_glow_b").flow("source"), tmp_path / "model")
    flow = models.load(tmp_path / "model")
    assert flow.dtype == torch.float32
    assert flow.accuracy["golden_rows"] == 8
    assert flow.accuracy["log_prob_max_abs_error"] < 1e-2


def test_the_likelihood_has_the_sources_number_of_the_golden_rows(tmp_path: Path) -> None:
    flow = load("y0ast_glow_b").flow("source")
    save_import(flow, tmp_path / "model")
    assert "on_golden_rows" not in flow.provenance["likelihood"]
    likelihood = models.load(tmp_path / "model").provenance["likelihood"]
    rows = likelihood["on_golden_rows"]
    ours = torch.tensor(rows["log_prob"], dtype=torch.float64)
    assert rows["source_number"] == pytest.approx(float(source_number(likelihood, ours)))
    assert rows["bits_per_dim"] == pytest.approx(float(flow.bits_per_dim(ours)))


def test_a_flow_that_overflows_far_out_is_proved_closer_in(tmp_path: Path) -> None:
    """Models that were hardly trained can decode their own noise to infinity."""
    case = load("rosinality_additive")
    state = torch.load(case.checkpoint, weights_only=True)
    for key, value in state.items():
        if key.endswith("coupling.net.4.scale"):
            value.fill_(1.6)  # multiplies what the networks give by exp(4.8)
    torch.save(state, tmp_path / "model.pt")
    flow, _ = run(tmp_path / "model.pt", Request(None, case.config, "none"))
    save_import(flow, tmp_path / "model")
    assert models.load(tmp_path / "model").accuracy["golden_rows"] == 8
