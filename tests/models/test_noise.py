"""The base: one seed gives one endless table of noise; its log-density is the same everywhere."""

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.noise import (
    MAX_SEED,
    base_log_prob,
    base_log_prob_of_row,
    base_log_prob_torch,
    base_noise,
    set_noise_threads,
)


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    return base_noise(1000, 3, seed=5)


@pytest.mark.parametrize(
    ("first", "rows"),
    [(0, 1), (3, 10), (250, 10), (255, 1), (256, 1), (256, 256), (200, 800), (999, 1)],
)
def test_any_rows_are_those_of_the_whole_draw(table: np.ndarray, first: int, rows: int) -> None:
    part = base_noise(rows, 3, seed=5, first_row=first)
    np.testing.assert_array_equal(part, table[first : first + rows])


def test_no_number_comes_twice(table: np.ndarray) -> None:
    assert len(np.unique(table)) == table.size
    far = base_noise(2, 3, seed=5, first_row=2**62)
    assert not np.isin(far, table).any()


def test_blocks_are_independent_normals() -> None:
    z = base_noise(4096, 8, seed=1)
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / z.size)
    first, second = z[:256].ravel(), z[256:512].ravel()
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(first.size)


def test_the_first_block_is_numpys_own_stream(table: np.ndarray) -> None:
    plain = np.random.Generator(np.random.Philox(5)).standard_normal((256, 3))
    np.testing.assert_array_equal(table[:256], plain)


def test_temperature_scales(table: np.ndarray) -> None:
    np.testing.assert_array_equal(base_noise(1000, 3, seed=5, temperature=0.5), 0.5 * table)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_draw_the_same_bits(threads: int) -> None:
    alone = base_noise(900, 130, seed=5, first_row=200, temperature=0.7)
    set_noise_threads(threads)
    try:
        together = base_noise(900, 130, seed=5, first_row=200, temperature=0.7)
        names = [thread.name for thread in threading.enumerate()]
    finally:
        set_noise_threads(1)
    np.testing.assert_array_equal(together, alone)
    assert any(name.startswith("noise") for name in names)


def test_without_a_seed_every_draw_differs() -> None:
    assert not np.array_equal(base_noise(300, 2), base_noise(300, 2))


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_a_seed_outside_its_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="seed"):
        base_noise(1, 1, seed=seed)


# ---------------------------------------------------------------------- log N(z; 0, I)


def _latents(dtype: Any, features: int = 5) -> np.ndarray:
    return (3 * base_noise(40, features, seed=3)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_density_is_that_of_torchs_own_normal(dtype: Any) -> None:
    z = _latents(dtype)
    wide = torch.from_numpy(z).double()
    normal = torch.distributions.Normal(torch.zeros(5).double(), torch.ones(5).double())
    expected = normal.log_prob(wide).sum(1).numpy()
    found = base_log_prob(z)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    np.testing.assert_allclose(base_log_prob_torch(wide).numpy(), expected, rtol=1e-14)
    assert base_log_prob(np.zeros((1, 2)))[0] == -math.log(2 * math.pi)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("features", [1, 2, 7, 64, 784])
def test_log_density_of_a_row_has_the_bits_of_the_batch(dtype: Any, features: int) -> None:
    z = _latents(dtype, features)
    alone = [base_log_prob_of_row(row) for row in z]
    np.testing.assert_array_equal(alone, base_log_prob(z))
    np.testing.assert_array_equal([base_log_prob(row[None])[0] for row in z], base_log_prob(z))


def test_the_constant_of_the_base_is_written_once() -> None:
    root = Path(__file__).resolve().parents[2]
    files = [path for folder in ("models", "service") for path in (root / folder).rglob("*.py")]
    found = [path for path in files if "log(2 * math.pi)" in path.read_text("utf-8")]
    assert found == [root / "models/noise.py"]


def test_log_density_of_a_tensor_keeps_its_dtype() -> None:
    z = torch.full((2, 3), 1e4)
    assert base_log_prob_torch(z).dtype == torch.float32
