"""The scoring benchmark's arithmetic, and that what docs/scoring.md shows is what it measured."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.bench_scoring import OUT, sections_of
from benchmarks.scoring.measures import halves, measure
from benchmarks.scoring.promise import check_promise

PAGE = Path(__file__).parents[1] / "docs" / "scoring.md"
RANDOM = np.random.default_rng(5)
SIZES = (1_500, 1_000)


def test_a_promise_holds_for_rows_like_the_others() -> None:
    pool = RANDOM.normal(size=5_000)
    for alpha in (0.05, 0.01):
        promise = check_promise("pool", pool, alpha, SIZES)
        assert promise["holds"], promise
        assert promise["expected_rate"] == pytest.approx(alpha, rel=0.01)


def test_a_promise_is_seen_to_break() -> None:
    """Rows that a flow was trained on score a little lower."""
    pool = RANDOM.normal(size=5_000)
    promise = check_promise("pool", pool, 0.05, SIZES, training=0.93 * pool)
    assert not promise["holds"]
    assert promise["standard_errors"] > 3
    assert promise["chi_square_p"] < 0.001


def test_rates_are_those_of_the_calibration_rows() -> None:
    normal = np.arange(2_000.0)
    first, second = halves(len(normal))
    assert sorted([*first, *second]) == list(range(2_000))
    found = measure(normal[first], normal[second], np.full(10, 5_000.0))
    assert found["auroc"] == found["average_precision"] == 1.0
    assert [at["tpr"] for at in found["at"]] == [1.0, 1.0, 1.0]
    assert all(at["fpr"] == pytest.approx(at["alpha"], abs=0.02) for at in found["at"])
    assert measure(normal[:100], normal, normal)["at"][2] == {
        "alpha": 0.001,
        "tpr": None,
        "fpr": None,
    }


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((OUT / "results.json").read_text("utf-8"))
    return found


def test_the_page_shows_what_was_measured(results: dict[str, Any]) -> None:
    page, kept = PAGE.read_text("utf-8"), (OUT / "results.md").read_text("utf-8")
    for title, table in sections_of(results).items():
        assert table in kept, title
        assert table in page, title


def test_what_must_hold_was_measured(results: dict[str, Any]) -> None:
    held_out = [one for one in results["promise"] if one["calibrated_on"] == "held-out rows"]
    assert len(held_out) == 6
    assert all(one["holds"] for one in held_out)
    assert not any(one["holds"] for one in results["promise"] if one not in held_out)
    ours = [one for one in results["explanations"] if "/score" in one["method"]]
    assert [one["table"] for one in ours] == ["magic", "shuttle"]
    assert all(one["named_first"] >= 0.8 and one["nearer"] >= 0.8 for one in ours)
