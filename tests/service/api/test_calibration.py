"""GET /models/NAME/calibration: the scores of the calibration rows in short."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI

from models.scoring.calibration import Calibration
from service.api.schemas import CalibrationInfo
from tests.service.fake_repository import FakeRepository, app_over, ask, card

KEY = "0123456789abcdef"
SCORES = np.sort(np.random.default_rng(5).standard_gamma(3, 5_000))
OF_TABLE = Calibration(
    statistic="neg_log_prob",
    parameters={},
    weights="",
    dtype="float32",
    scores=SCORES,
    dataset="held-out rows",
    created="2026-11-28T12:00:00+00:00",
)
OUTSIDE = replace(OF_TABLE, scores=np.r_[SCORES, [np.inf] * 20])
BY_CLASS = replace(OF_TABLE, class_scores={1: SCORES[4_000:]})
CARDS = (
    card("table", (3,), calibration=OF_TABLE),
    card("bounded", (3,), calibration=OUTSIDE),
    card("classes", (3,), context_shape=(2,), num_classes=2, calibration=BY_CLASS),
    card("plain", (3,)),
)


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return app_over(FakeRepository(CARDS))


def told(app: FastAPI, name: str, query: str = "") -> dict[str, Any]:
    answer = ask(app, "GET", f"/models/{name}/calibration{query}")
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def test_it_says_which_calibration_and_how_its_scores_lie(app: FastAPI) -> None:
    answer = told(app, "table")
    facts = OF_TABLE.describe()
    assert {name: answer[name] for name in facts} == facts
    assert (answer["model"], answer["version"], answer["threshold"]) == ("table", "3", None)
    shape = answer["histogram"]
    edges = np.array(shape["edges"])
    assert np.diff(edges) == pytest.approx(edges[1] - edges[0])
    assert shape["counts"] == np.histogram(SCORES, edges)[0].tolist()
    assert 10 < len(shape["counts"]) <= 60
    assert 0 < shape["below"] == np.count_nonzero(edges[0] > SCORES) < 20
    assert 0 < shape["above"] == np.count_nonzero(edges[-1] < SCORES) < 20
    for row in answer["quantiles"]:
        assert np.mean(row["score"] >= SCORES) == pytest.approx(row["share"], abs=1e-3)
        assert row["score"] in SCORES


def test_alpha_has_its_threshold_and_what_it_promises(app: FastAPI) -> None:
    answer, facts = told(app, "table", "?alpha=0.01"), OF_TABLE.describe(0.01)
    assert (answer["threshold"], answer["fpr_upper95"]) == (
        facts["threshold"],
        facts["fpr_upper95"],
    )
    assert np.mean(answer["threshold"] < SCORES) <= 0.01


def test_scores_outside_of_the_support_lie_above(app: FastAPI) -> None:
    answer = told(app, "bounded")
    shape = answer["histogram"]
    assert sum(shape["counts"]) + shape["below"] + shape["above"] == answer["rows"] == 5_020
    assert shape["above"] >= 20
    assert answer["quantiles"][-1] == {"share": 0.999, "score": None}


def test_a_class_has_its_own_scores(app: FastAPI) -> None:
    assert told(app, "classes")["classes"]["1"]["rows"] == 1_000
    own, shared = told(app, "classes", "?class=1"), told(app, "classes", "?class=0")
    assert (own["class"], own["rows"], shared["rows"]) == (1, 1_000, 5_000)
    assert own["histogram"]["edges"][0] >= SCORES[4_000]
    assert "class" not in shared
    assert shared["histogram"] == told(app, "table")["histogram"]


@pytest.mark.parametrize(
    ("path", "status", "code", "detail"),
    [
        ("plain", 422, "not_calibrated", "run `pushforward calibrate plain --data HELD-OUT`"),
        ("nothing", 404, "model_not_found", "expected one of"),
        ("table?alpha=0.0001", 422, "out_of_range", "that needs 9999 rows"),
        ("classes?alpha=0.0005&class=1", 422, "out_of_range", "1000 calibration rows of class 1"),
        ("table?alpha=1", 422, "invalid_request", "/query/alpha"),
        ("table?alpha=x", 422, "invalid_request", "/query/alpha"),
        ("table?class=0", 422, "invalid_parameter", "table has no classes"),
        ("table?bogus=1", 422, "unknown_field", "'bogus': no such field, expected alpha, class"),
        ("table?alpha=.05&alpha=.1", 422, "invalid_parameter", "alpha: given twice"),
        ("classes?class=2", 422, "out_of_range", "expected 0 .. 1, got 2"),
    ],
)
def test_what_has_no_answer(app: FastAPI, path: str, status: int, code: str, detail: str) -> None:
    name, _, query = path.partition("?")
    answer = ask(app, "GET", f"/models/{name}/calibration?{query}")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert detail in answer.json()["detail"]


def test_it_wants_a_key_and_is_documented() -> None:
    app = app_over(FakeRepository(CARDS), api_keys=KEY)
    path = "/models/table/calibration"
    assert ask(app, "GET", path).status_code == 401
    answer = ask(app, "GET", path, headers={"X-API-Key": KEY})
    CalibrationInfo.model_validate_json(answer.content)
    document = ask(app, "GET", "/openapi.json", headers={"X-API-Key": KEY}).json()
    call = document["paths"]["/models/{name}/calibration"]["get"]
    assert [one["name"] for one in call["parameters"]] == ["name", "alpha", "class"]
    schema = call["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/CalibrationInfo"}


def test_scores_that_are_all_alike_have_a_histogram() -> None:
    alike = replace(OF_TABLE, scores=np.full(30, 2.5))
    shape = told(app_over(FakeRepository((card("flat", (3,), calibration=alike),))), "flat")
    assert sum(shape["histogram"]["counts"]) == 30
