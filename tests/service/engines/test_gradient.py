"""The gradient of log p by pixels: right by finite differences, and refused with a reason."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from models.checkpoints.loading import load
from models.checkpoints.manifest import digest
from models.checkpoints.tensor_file import read_arrays
from service.engines.flow_on_demand import FlowOnDemand, FlowUnavailable
from service.engines.gradient import PixelGradient
from service.repository.folders import zoo_folder


def gradient_of(folder: Path, dtype: str = "float64", weights: str | None = None) -> PixelGradient:
    weights = digest(folder) if weights is None else weights
    flow = FlowOnDemand(folder, weights=weights, dtype=dtype, device="cpu", threads=1)
    return PixelGradient(flow)


def rows_of(folder: Path) -> np.ndarray:
    arrays, _ = read_arrays(folder / "golden.safetensors")
    return np.rint(arrays["x"][:2].astype(np.float64))


@pytest.mark.parametrize(
    ("name", "step", "tolerance"), [("digits-glow", 1e-5, 1e-5), ("digits-ffjord", 1e-2, 2e-3)]
)
def test_it_is_what_finite_differences_say(name: str, step: float, tolerance: float) -> None:
    folder = zoo_folder() / name
    x = rows_of(folder) + 0.25  # between levels, so that a step leaves none
    given = x.copy()
    gradient, log_prob = gradient_of(folder)(x, None)
    np.testing.assert_array_equal(x, given)
    assert gradient.shape == x.shape
    flow = load(folder, dtype=torch.float64)
    flat = x[0].size
    pixels = np.random.default_rng(0).choice(flat, 6, replace=False)
    moved = np.repeat(x, 2 * len(pixels), axis=0).reshape(2, len(pixels), 2, flat)
    for index, pixel in enumerate(pixels):
        moved[:, index, :, pixel] += [step, -step]
    with torch.no_grad():
        scored = flow.log_prob(torch.from_numpy(moved.reshape(-1, *x.shape[1:]))).numpy()
        np.testing.assert_allclose(log_prob, flow.log_prob(torch.from_numpy(x)).numpy())
    scored = scored.reshape(2, len(pixels), 2)
    expected = (scored[:, :, 0] - scored[:, :, 1]) / (2 * step)
    found = gradient.reshape(2, flat)[:, pixels]
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_a_row_has_its_gradient_beside_others() -> None:
    gradient = gradient_of(zoo_folder() / "digits-glow")
    x = rows_of(zoo_folder() / "digits-glow")
    together, _ = gradient(x, None)
    for index in range(len(x)):
        alone, _ = gradient(x[index : index + 1], None)
        np.testing.assert_allclose(alone[0], together[index], rtol=1e-9, atol=1e-9)


def test_it_says_that_torch_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    gradient = gradient_of(zoo_folder() / "digits-ffjord")
    assert gradient.refusal == ""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "the server has no torch, which computes gradients: pip install" in gradient.refusal


def test_it_says_that_the_weights_are_missing(tmp_path: Path) -> None:
    folder = shutil.copytree(zoo_folder() / "digits-ffjord", tmp_path / "m")
    gradient = gradient_of(folder)
    (folder / "model.safetensors").unlink()
    assert "no model.safetensors: it is served by its graphs alone" in gradient.refusal


def test_other_weights_than_are_served_are_refused_once_and_for_all() -> None:
    folder = zoo_folder() / "digits-ffjord"
    gradient = gradient_of(folder, weights="0" * 64)
    for _ in range(2):
        with pytest.raises(FlowUnavailable, match="other weights than are served"):
            gradient(rows_of(folder), None)
    assert "other weights" in gradient.refusal
