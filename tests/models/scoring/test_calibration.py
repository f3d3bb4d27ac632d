"""A calibration: what decides for which rows, and what answers say of it."""

import json
import subprocess
import sys

import numpy as np
import pytest

from models.scoring.calibration import calibrate
from models.scoring.conformal import fpr_upper, p_values, threshold
from models.scoring.errors import CalibrationError, TooFewRows
from models.scoring.explain import quantile_grid
from tests.models.scoring.cases import BACKGROUND, WEIGHTS, calibrated, evidence

SETTINGS = {"weights": WEIGHTS, "dtype": "float32", "dataset": "held-out rows"}
LABELS = np.repeat([0, 1, 2], [1200, 999, 801])


def test_scores_are_those_of_the_rows_in_order() -> None:
    assert calibrated(100).scores.tolist() == sorted(-evidence(100).log_prob)
    assert calibrated(100).rows == 100
    typicality = calibrated(100, statistic="typicality")
    assert typicality.parameters.keys() == {"median"}
    assert typicality.scores.tolist() == sorted(typicality.scores)


def test_a_class_has_scores_of_its_own_where_there_are_enough() -> None:
    by_class = calibrated(3000, labels=LABELS)
    own = -evidence(3000).log_prob
    assert by_class.class_scores.keys() == {0, 1}
    for label in (0, 1):
        assert by_class.scores_of(label).tolist() == sorted(own[label == LABELS])
    for label in (2, 7, None):
        assert by_class.scores_of(label) is by_class.scores
    scores, labels = np.float64([3, 3, 3, 3, np.nan]), np.array([0, 2, 1, 0, 1])
    p = by_class.p_values(scores, labels)
    for index in range(4):
        expected = p_values(by_class.scores_of(int(labels[index])), scores[index : index + 1])
        assert p[index] == expected[0]
    assert np.isnan(p[4])
    assert len({p[0], p[1], p[2]}) == 3
    assert (by_class.p_values(scores[:4]) == p[1]).all()
    assert (calibrated(3000).p_values(scores[:4], labels[:4]) == p[1]).all()


def test_the_least_rate_is_that_of_the_smallest_class() -> None:
    by_class = calibrated(3000, labels=LABELS)
    assert by_class.least_alpha() == by_class.least_alpha(np.array([2])) == 1 / 3001
    assert by_class.least_alpha(np.array([2, 0])) == 1 / 1201
    assert by_class.least_alpha(np.array([0, 1])) == 1 / 1000
    assert calibrated(100).least_alpha(np.array([0])) == 1 / 101


def test_what_an_answer_says() -> None:
    calibration = calibrated(1000)
    assert calibration.describe() == {
        "id": calibration.id,
        "rows": 1000,
        "statistic": "neg_log_prob",
        "direction": "higher_is_more_anomalous",
        "threshold": None,
        "p_floor": 1 / 1001,
        "fpr_upper95": None,
        "dataset": "held-out rows",
        "created": "2026-11-28T12:00:00+00:00",
    }
    decided = calibration.describe(0.01)
    assert decided["threshold"] == threshold(calibration.scores, 0.01)
    assert decided["fpr_upper95"] == fpr_upper(1000, 0.01)
    with pytest.raises(TooFewRows, match=r"alpha 0\.0005 needs 1999 calibration rows, got 1000"):
        calibration.describe(0.0005)
    with pytest.raises(ValueError, match="alpha"):
        calibration.describe(1.0)


def test_what_an_answer_says_of_classes() -> None:
    calibration = calibrated(3000, labels=LABELS)
    own = calibration.describe(0.01, 1)
    assert (own["class"], own["rows"], own["p_floor"]) == (1, 999, 1 / 1000)
    assert own["threshold"] == threshold(calibration.scores_of(1), 0.01)
    assert "classes" not in own
    together = calibration.describe(0.01, 2)
    assert (together["rows"], "class" in together, "classes" in together) == (3000, False, False)
    both = calibration.describe(0.01)
    assert both["rows"] == 3000
    facts = ("rows", "threshold", "p_floor", "fpr_upper95")
    assert both["classes"] == {
        str(label): {name: calibration.describe(0.01, label)[name] for name in facts}
        for label in (0, 1)
    }
    # What the classes cannot promise, all rows together can.
    assert calibration.describe(0.0005)["classes"]["0"]["threshold"] is None
    json.dumps(calibration.describe(0.02, np.int64(1)))  # type: ignore[arg-type]


def test_descriptions_are_remembered_and_not_shared() -> None:
    calibration = calibrated(1000)
    first = calibration.describe(0.01)
    first["id"] = "changed"
    assert calibration.describe(0.01)["id"] == calibration.id
    assert calibration.describe(0.01) is not calibration.describe(0.01)
    many = [calibration.describe(alpha)["fpr_upper95"] for alpha in np.linspace(0.01, 0.9, 600)]
    assert many == sorted(many)


def test_facts_say_what_each_rate_costs_or_needs() -> None:
    report = {"probes": [{"name": "noise"}], "warnings": ["so"], "anomalies": {"auroc": 1.0}}
    facts = calibrated(500, report=report).facts()
    assert [row["alpha"] for row in facts["thresholds"]] == [0.05, 0.01, 0.001]
    scores = calibrated(500).scores
    for row in facts["thresholds"][:2]:
        assert row == {
            "alpha": row["alpha"],
            "threshold": threshold(scores, row["alpha"]),
            "fpr_upper95": fpr_upper(500, row["alpha"]),
        }
    assert facts["thresholds"][2] == {
        "alpha": 0.001,
        "threshold": None,
        "fpr_upper95": None,
        "reason": "needs 999 rows",
    }
    assert {name: facts[name] for name in report} == report
    assert facts["rows"] == 500
    assert "reason" not in calibrated(999).facts()["thresholds"][2]


def test_a_rate_below_the_share_outside_the_support_has_no_threshold() -> None:
    """Their scores are infinite: no score is above, and none may be flagged."""
    rows = evidence(1000)
    rows.log_prob[:20] = -np.inf
    calibration = calibrate(rows, **SETTINGS, statistic="neg_log_prob")
    assert calibration.describe(0.01)["threshold"] is None
    assert calibration.p_values(np.float64([np.inf])).tolist() == [21 / 1001]
    json.dumps(calibration.facts(), allow_nan=False)


def test_the_grid_is_of_the_finite_rows_of_a_table() -> None:
    rows = evidence(1000)
    rows.x[7], rows.log_prob[7] = np.inf, -np.inf
    calibration = calibrate(rows, **SETTINGS, statistic="neg_log_prob")
    assert calibration.grid is not None
    assert (calibration.grid == quantile_grid(np.delete(rows.x, 7, 0))).all()
    assert np.isfinite(calibration.grid).all()
    images = evidence(20, shape=(1, 4, 4), levels=256)
    assert calibrate(images, **SETTINGS, statistic="complexity").grid is None


def test_the_id_is_of_all_that_decides() -> None:
    labels = np.arange(1000) % 2
    kinds = [
        calibrated(1000),
        calibrated(1001),
        calibrated(1000, weights=BACKGROUND),
        calibrated(1000, dtype="float64"),
        calibrated(1000, statistic="typicality"),
        calibrated(1000, statistic="ratio:a", background=WEIGHTS),
        calibrated(1000, statistic="ratio:a", background=BACKGROUND),
        calibrated(1000, statistic="ratio:b", background=BACKGROUND),
        calibrated(1000, labels=labels, class_rows=500),
        calibrated(1000, dataset="others"),
    ]
    ids = [kind.id for kind in kinds]
    assert len(set(ids)) == len(kinds)
    assert all(len(text) == 12 and int(text, 16) >= 0 for text in ids)
    # Made again, it is the same; so is a martingale's bag.
    assert calibrated(1000, created="2027-01-01T00:00:00+00:00", report={"a": 1}).id == ids[0]


@pytest.mark.parametrize(
    ("log_prob", "reason"),
    [
        ([np.nan, 1, 2], "1 of 3 rows have no score"),
        ([-np.inf] * 3, "finite score, got none of 3"),
        ([np.nan] * 3, "finite score, got none of 3"),
        ([], "finite score, got none of 0"),
    ],
)
def test_rows_that_cannot_calibrate(log_prob: list[float], reason: str) -> None:
    rows = evidence(3)._replace(log_prob=np.array(log_prob, np.float64))
    for statistic in ("neg_log_prob", "typicality", "latent"):
        with pytest.raises(CalibrationError, match=reason):
            calibrate(rows, **SETTINGS, statistic=statistic)


def test_scoring_imports_neither_torch_nor_scipy_stats() -> None:
    """A server of graphs has no torch; scipy.stats would take 75 MB of every process."""
    program = (
        "import sys, models.scoring.storage, models.scoring.detection\n"
        "from models.scoring.conformal import fpr_upper\n"
        "fpr_upper(1000, 0.01)\n"
        "assert not {'torch', 'scipy.stats'} & set(sys.modules), 'imported'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=".")
