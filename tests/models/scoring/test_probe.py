"""The direction probe: the rows it makes, what it measures, and what it says in words."""

import numpy as np
import pytest

from models.scoring.probe import make_probes, measure, warnings_of

RNG = np.random.default_rng(5)
IMAGES = RNG.integers(1, 200, size=(40, 1, 6, 6)).astype(np.uint8)
TABLE = RNG.normal(size=(60, 3)) * [1, 10, 100]
GOOD = {"rows": 9, "auroc": 0.9, "low": 0.8, "high": 0.95}
REVERSED = {"rows": 9, "auroc": 0.02, "low": 0.01, "high": 0.03}


def by_name(x: np.ndarray, num_levels: int | None, **options: object) -> dict:
    return {probe.name: probe for probe in make_probes(x, num_levels, **options)}


def test_images_are_probed_blank_with_noise_upside_down_and_shuffled() -> None:
    probes = by_name(IMAGES, 256, rows=30)
    assert list(probes) == ["constants", "noise", "flipped", "permuted"]
    assert all(probe.x.shape == (30, 1, 6, 6) for probe in probes.values())
    assert all(probe.x.dtype == np.uint8 for probe in probes.values())
    blank = probes["constants"].x.reshape(30, -1)
    assert (blank == blank[:, :1]).all()
    assert (blank.min(), blank.max()) == (0, 255)
    source = IMAGES[probes["flipped"].source]
    assert np.array_equal(probes["flipped"].x, source[:, :, ::-1])
    shuffled = probes["permuted"].x.reshape(30, -1)
    assert not np.array_equal(shuffled, source.reshape(30, -1))
    assert np.array_equal(np.sort(shuffled, 1), np.sort(source.reshape(30, -1), 1))
    assert probes["noise"].x.max() > 200


def test_images_with_channels_last_are_turned_about_their_rows_too() -> None:
    x = np.moveaxis(np.concatenate([IMAGES] * 3, axis=1), 1, 3)
    probe = by_name(x, 256)["flipped"]
    assert np.array_equal(probe.x, x[probe.source][:, ::-1])


def test_tables_are_probed_with_noise_in_their_range_and_columns_shuffled() -> None:
    probes = by_name(TABLE, None)
    assert list(probes) == ["noise", "permuted"]
    noise = probes["noise"].x
    assert (noise >= TABLE.min(0)).all()
    assert (noise <= TABLE.max(0)).all()
    assert (np.ptp(noise, axis=0) > np.ptp(TABLE, axis=0) / 2).all()
    shuffled = probes["permuted"].x
    assert np.array_equal(np.sort(shuffled, 0), np.sort(TABLE, 0))
    rows = {tuple(row) for row in TABLE}
    assert sum(tuple(row) in rows for row in shuffled) < 10


def test_noise_is_whole_where_a_column_is() -> None:
    x = np.column_stack([TABLE[:, 0], np.arange(60) % 7])
    noise = by_name(x, None, discrete=(1,))["noise"].x
    assert np.array_equal(noise[:, 1], np.rint(noise[:, 1]))
    assert not np.array_equal(noise[:, 0], np.rint(noise[:, 0]))


def test_a_single_column_has_nothing_to_shuffle() -> None:
    assert list(by_name(TABLE[:, :1], None)) == ["noise"]


def test_the_probes_of_the_same_rows_are_the_same() -> None:
    one, other = by_name(TABLE, None, rows=20), by_name(TABLE, None, rows=20)
    assert all(np.array_equal(one[name].x, other[name].x) for name in one)


def test_a_measure_counts_rows_with_a_score_and_states_rates_where_they_can_be() -> None:
    normal = np.arange(99.0)
    found = measure(normal, np.array([200.0, 50.0, np.nan]), is_full=True)
    assert found["rows"] == 2
    assert found["auroc"] == pytest.approx((99 + 50.5) / 198)
    assert found["low"] < found["auroc"] < found["high"]
    assert found["tpr"] == {"0.05": 0.5, "0.01": 0.5, "0.001": None}
    assert measure(normal, np.array([np.nan]))["auroc"] is None


def test_a_model_that_finds_blank_images_likely_says_so_in_words() -> None:
    lines = warnings_of("blank images", {"neg_log_prob": REVERSED}, "neg_log_prob")
    assert lines == [
        "this model finds blank images more likely than its own data: AUROC of -log p 0.02 (0.01 "
        "to 0.03)"
    ]
    measured = {"neg_log_prob": REVERSED, "complexity": GOOD}
    [line] = warnings_of("blank images", measured, "complexity")
    assert line.endswith("; of complexity, which is calibrated, 0.90 (0.80 to 0.95)")


@pytest.mark.parametrize("high", [0.5, 0.6])
def test_an_interval_that_reaches_a_half_says_nothing(high: float) -> None:
    measured = {"neg_log_prob": {**REVERSED, "high": high}}
    assert warnings_of("blank images", measured, "neg_log_prob") == []


def test_the_calibrated_statistic_is_named_where_it_is_the_one_that_fails() -> None:
    measured = {"neg_log_prob": GOOD, "typicality": REVERSED}
    [line] = warnings_of("rows of noise", measured, "typicality")
    assert line.startswith("this model finds rows of noise less anomalous than its own data by typ")
