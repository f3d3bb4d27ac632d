"""Counts in bins, of whatever scores a calibration has."""

import numpy as np
import pytest

from models.scoring.histogram import histogram

NORMAL = np.random.default_rng(3).standard_normal(2_000)
NEXT = np.nextafter(1.0, 2.0)


@pytest.mark.parametrize(
    "scores",
    [
        [1.0, NEXT],
        [*[1.0] * 500, *[NEXT] * 500],
        1 + np.spacing(1.0) * np.arange(90),
        [2.0, 2.0],
        [0.0, 1.0],
        [-np.inf, 0.0, np.inf],
        1 + 1e-13 * NORMAL,
    ],
    ids=["two", "an ulp apart", "ulps apart", "alike", "few", "infinite", "close"],
)
def test_every_score_is_counted_once(scores: list[float]) -> None:
    found = histogram(np.array(scores))
    assert sum(found["counts"]) + found["below"] + found["above"] == len(scores)
    assert len(found["edges"]) == len(found["counts"]) + 1
    assert sum(found["counts"]) > 0


def test_outliers_leave_the_bins_to_the_others() -> None:
    found = histogram(np.concatenate([NORMAL, [1e6] * 20, [-1e9] * 20]))
    assert np.count_nonzero(found["counts"]) > 20
    assert (found["below"], found["above"]) == (20, 20)
