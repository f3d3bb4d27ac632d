"""What POST /score leaves behind beside its answer: a counter, and a log without rows."""

import io
import json
import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models.scoring.calibration import Calibration
from service.app import create_app
from service.settings import Settings
from service.telemetry import Metrics
from tests.service.fake_repository import FakeRepository, app_over, ask, card, post

CALIBRATION = Calibration(
    statistic="neg_log_prob",
    parameters={},
    weights="",
    dtype="float32",
    scores=np.arange(1.0, 100.0),
    dataset="held-out rows",
    created="2026-11-28T12:00:00+00:00",
)
CARDS = (card("line", (3,), calibration=CALIBRATION), card("plain", (3,)))
# Scores of about 4, 7204 and 4.
ROWS = [[0, 1, 0], [240, 0, 0], [1, 0, 0]]


def score(fields: dict[str, Any], path: str = "/score") -> tuple[Any, Metrics]:
    metrics = Metrics()
    app = create_app(Settings(log_level="error"), FakeRepository(CARDS), metrics)
    return post(app, path, json=fields, headers={"X-Request-Id": "mine"}), metrics


def counted(metrics: Metrics) -> dict[str, float]:
    lines = [line.rsplit(" ", 1) for line in metrics.render().decode().splitlines()]
    return {
        name: float(value)
        for name, value in lines
        if name.startswith("pushforward_anomalies_total")
    }


@pytest.mark.parametrize(
    ("decision", "anomalies"),
    [
        ({"alpha": 0.05}, 1),
        ({"fdr": 0.1}, 1),
        ({"threshold": 4}, 3),
        ({"threshold": 1e9}, 0),
        ({}, 0),
    ],
)
def test_anomalies_are_counted_by_model(decision: dict[str, float], anomalies: int) -> None:
    answer, metrics = score({"model": "line", "x": ROWS, **decision})
    assert answer.status_code == 200, answer.text
    assert sum(answer.json().get("is_anomaly", [])) == anomalies
    name = 'pushforward_anomalies_total{model="line",version="3"}'
    assert counted(metrics) == ({name: float(anomalies)} if anomalies else {})


def test_anomalies_are_logged_once_a_request_without_its_rows(
    caplog: pytest.LogCaptureFixture,
) -> None:
    inputs = [{"name": "x", "shape": [3, 3], "datatype": "FP32", "data": ROWS}]
    parameters = {"operation": "score", "alpha": 0.05}
    with caplog.at_level(logging.INFO, "service.operations.score"):
        score({"model": "line", "x": ROWS, "alpha": 0.05})
        score({"inputs": inputs, "parameters": parameters}, "/v2/models/line/infer")
        score({"model": "plain", "x": ROWS[1:2], "threshold": 4})
        score({"model": "line", "x": ROWS[:1], "alpha": 0.05})
    mine = "request mine: 1 of 3 rows are anomalies, model line 3, calibration"
    assert [record.getMessage() for record in caplog.records] == [
        f"{mine} {CALIBRATION.id}",
        f"{mine} {CALIBRATION.id}",
        "request mine: 1 of 1 rows are anomalies, model plain 3, calibration None",
    ]


@pytest.mark.parametrize(
    ("model", "output", "parameters", "code", "detail"),
    [
        ("plain", "p_value", {"alpha": 0.1}, "not_calibrated", "p_value: model plain has no"),
        ("plain", "p_value", {}, "not_calibrated", "`pushforward calibrate plain --data"),
        ("plain", "q_value", {"fdr": 0.1}, "not_calibrated", "q_value: model plain has no"),
        ("line", "q_value", {"alpha": 0.1}, "unknown_field", "q_value: it is answered with fdr"),
        ("line", "is_anomaly", {}, "unknown_field", "answered with alpha, fdr or threshold"),
        ("line", "bits_per_dim", {}, "unknown_field", "no such field, expected score"),
    ],
)
def test_an_output_by_name_that_is_not_answered_is_refused_saying_what_it_needs(
    model: str, output: str, parameters: dict[str, float], code: str, detail: str
) -> None:
    inputs = [{"name": "x", "shape": [3, 3], "datatype": "FP32", "data": ROWS}]
    body = {
        "inputs": inputs,
        "outputs": [{"name": output}],
        "parameters": {"operation": "score", **parameters},
    }
    answer, _ = score(body, f"/v2/models/{model}/infer")
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert detail in answer.json()["detail"]


@pytest.mark.parametrize(("classes", "is_told"), [(2, True), (60, False)])
def test_a_calibration_of_many_classes_is_no_header(classes: int, is_told: bool) -> None:
    """Proxies refuse answers whose headers are long."""
    by_class = {label: CALIBRATION.scores for label in range(classes)}
    known = card(
        "line",
        (3,),
        context_shape=(classes,),
        num_classes=classes,
        calibration=replace(CALIBRATION, class_scores=by_class),
    )
    fields = {"model": "line", "x": ROWS, "context": [0, 1, 1], "alpha": 0.05}
    app = app_over(FakeRepository((known,)))
    answer = post(app, "/score", json=fields, headers={"Accept": "application/x-npz"})
    assert answer.status_code == 200, answer.text
    assert ("x-calibration" in answer.headers) == is_told
    said = json.loads(str(np.load(io.BytesIO(answer.content))["calibration"]))
    assert len(said["classes"]) == classes


def test_an_alpha_that_no_rows_promise_is_refused_in_few_words() -> None:
    answer, _ = score({"model": "line", "x": ROWS, "alpha": 5e-324})
    assert "that needs more than 1,000,000,000 rows" in answer.json()["detail"]


def test_a_model_shows_its_calibration() -> None:
    app = app_over(FakeRepository(CARDS))
    facts = ask(app, "GET", "/models/line").json()["calibration"]
    assert facts == CALIBRATION.facts()
    assert [one.get("reason") for one in facts["thresholds"]] == [None, None, "needs 999 rows"]
    assert ask(app, "GET", "/models/plain").json()["calibration"] is None


def test_the_example_of_a_calibrated_model_has_an_alpha() -> None:
    document = ask(app_over(FakeRepository(CARDS)), "GET", "/openapi.json").json()
    call = document["paths"]["/score"]["post"]
    (asked, *_) = call["requestBody"]["content"]["application/json"]["examples"].values()
    (shown,) = call["responses"]["200"]["content"]["application/json"]["examples"].values()
    assert asked["value"]["alpha"] == 0.05
    assert shown["value"]["calibration"]["id"] == CALIBRATION.id
    answer = post(app_over(FakeRepository(CARDS)), "/score", json=asked["value"]).json()
    assert answer.keys() == shown["value"].keys()
