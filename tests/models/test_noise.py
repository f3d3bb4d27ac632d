"""One seed gives one endless table of noise, from which any rows can be had."""

import numpy as np
import pytest

from models.noise import MAX_SEED, base_noise


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


def test_without_a_seed_every_draw_differs() -> None:
    assert not np.array_equal(base_noise(300, 2), base_noise(300, 2))


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_a_seed_outside_its_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="seed"):
        base_noise(1, 1, seed=seed)
