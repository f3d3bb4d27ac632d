"""The error tree, and how it is rendered wherever it comes from."""

import inspect
import re

import orjson
import pytest

from service import errors
from service.errors import Fault, ServiceError
from service.problem import from_status, problem
from tests.service.fake_repository import FakeRepository, app_over, ask, post

MEMBERS = {"type", "title", "status", "code", "detail", "error", "request_id"}


KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, ServiceError)
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_is_rfc_9457_and_open_inference_protocol(kind: type[ServiceError]) -> None:
    body, headers = problem(kind("what was wrong"), "id-1")
    content = orjson.loads(body)
    assert content.keys() >= MEMBERS
    assert content["type"] == f"/problems/{kind.code}"
    assert content["status"] == kind.status
    assert content["detail"] == content["error"] == "what was wrong"
    assert content["request_id"] == "id-1"
    named = dict(headers)
    assert named[b"content-type"] == b"application/problem+json"
    assert named[b"content-length"] == str(len(body)).encode()
    assert named[b"x-request-id"] == b"id-1"


def test_codes_are_distinct_snake_case_and_titles_say_the_same() -> None:
    all_kinds = [kind for kind in KINDS if kind not in (ServiceError, errors.InternalError)]
    codes = [kind.code for kind in all_kinds]
    assert len(set(codes)) == len(codes)
    for kind in all_kinds:
        assert re.fullmatch(r"[a-z_]+", kind.code)
        assert kind.title.lower().replace(" ", "_").replace("-", "_").startswith(kind.code[:6])
        assert 400 <= kind.status < 600


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "malformed_body"),
        (413, "too_large"),
        (422, "shape_mismatch"),
        (422, "bad_dtype"),
        (422, "non_finite"),
        (404, "model_not_found"),
        (429, "overloaded"),
        (500, "engine_error"),
        (503, "not_ready"),
        (504, "deadline_exceeded"),
    ],
)
def test_the_promised_codes_exist(status: int, code: str) -> None:
    assert status in {kind.status for kind in KINDS if kind.code == code}


def test_faults_and_retry_after_are_rendered() -> None:
    body, _ = problem(errors.ShapeMismatch("x: wrong", at="/x/3"), "i")
    assert orjson.loads(body)["errors"] == [{"pointer": "/x/3", "detail": "x: wrong"}]
    body, _ = problem(errors.NonFinite("x", faults=[Fault("/x/1", "a"), Fault("/x/2", "b")]), "i")
    assert [fault["pointer"] for fault in orjson.loads(body)["errors"]] == ["/x/1", "/x/2"]
    _, headers = problem(errors.Overloaded("full", retry_after=3), "i")
    assert dict(headers)[b"retry-after"] == b"3"
    _, headers = problem(errors.NotReady("loading"), "i")
    assert dict(headers)[b"retry-after"] == b"1"


@pytest.mark.parametrize(
    ("status", "code"), [(404, "not_found"), (405, "method_not_allowed"), (418, "i'm_a_teapot")]
)
def test_bare_statuses_become_ours(status: int, code: str) -> None:
    error = from_status(status, "detail", [("Allow", "POST")])
    assert (error.status, error.code) == (status, code)
    assert (b"allow", b"POST") in problem(error, "i")[1]
    assert ServiceError.status == 500, "the class itself must not change"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/encode/", 404, "not_found"),
        ("GET", "/encode", 405, "method_not_allowed"),
        ("PUT", "/sample", 405, "method_not_allowed"),
        ("POST", "/models", 405, "method_not_allowed"),
        ("GET", "/models/unheard-of", 404, "model_not_found"),
        ("GET", "/models/..%2f..%2fetc", 404, "not_found"),
    ],
)
def test_errors_of_the_framework_look_the_same(
    method: str, path: str, status: int, code: str
) -> None:
    answer = ask(app_over(FakeRepository()), method, path, headers={"X-Request-Id": "mine"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    content = answer.json()
    assert content.keys() >= MEMBERS
    assert (content["status"], content["code"]) == (status, code)
    assert content["request_id"] == answer.headers["x-request-id"] == "mine"
    if status == 405:
        assert answer.headers["allow"] == ("GET, HEAD" if path == "/models" else "POST")
        assert answer.headers["allow"] in content["detail"]


def test_an_unforeseen_exception_says_nothing_but_its_request_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    repository = FakeRepository()
    app = app_over(repository)
    repository.queue("line", "encode").failure = RuntimeError("secret path /srv/weights")
    answer = post(app, "/encode", json={"model": "line", "x": [[1, 2, 3]]})
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal_error"
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] in answer.json()["detail"]
    assert "secret path" in caplog.text, "the log has all of it"
    assert answer.headers["x-request-id"] in caplog.text


def test_an_unforeseen_exception_in_an_ordinary_route_too(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = FakeRepository()
    app = app_over(repository)
    monkeypatch.setattr(repository, "models", lambda: 1 / 0)
    answer = ask(app, "GET", "/models")
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal_error"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "ZeroDivisionError" in caplog.text
    assert "division" not in answer.text
