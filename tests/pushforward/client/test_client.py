"""The client over ASGI, and against servers that misbehave."""

import asyncio
import inspect
import io
import json
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from pushforward.client import (
    AccessDenied,
    AsyncClient,
    Client,
    ClientError,
    ConnectionFailed,
    DeadlineExceeded,
    NotFound,
    NotReady,
    Overloaded,
    RequestRefused,
    ResponseError,
    ServerFailed,
    TimedOut,
    UnreadableAnswer,
    retries,
)
from tests.service.fake_repository import SCALE, URL, FakeRepository, app_over, log_normal

X = np.array([[0.5, 1.0, -2.0], [3.0, 0.25, 8.0]], np.float32)


def ask(
    repository: FakeRepository, model: str, call: Callable[[AsyncClient], Any], **settings: Any
) -> Any:
    async def exchange() -> Any:
        transport = httpx.ASGITransport(app_over(repository, **settings))
        async with AsyncClient(URL, model=model, transport=transport) as client:
            return await call(client)

    return asyncio.run(exchange())


async def collect(client: AsyncClient, rows: int, chunk: int, **options: Any) -> list[Any]:
    return [part async for part in client.stream(rows, chunk_rows=chunk, **options)]


def test_arrays_go_in_and_come_out() -> None:
    repository = FakeRepository()
    encoded = ask(repository, "line", lambda client: client.encode(X))
    np.testing.assert_array_equal(encoded.z, X / SCALE)
    assert encoded.z.dtype == np.float32
    assert (encoded.model, encoded.version) == ("line", "3")
    decoded = ask(repository, "line", lambda client: client.decode(encoded.z))
    np.testing.assert_array_equal(decoded.x, X)
    np.testing.assert_allclose(decoded.log_det, -encoded.log_det)
    scores = ask(repository, "line", lambda client: client.log_prob(X.tolist()))
    np.testing.assert_allclose(scores, log_normal(X / SCALE) + encoded.log_det, rtol=1e-6)


@pytest.mark.parametrize("context", [2, [1, 3], [[0.0, 1.0, 0.0, 0.0]]], ids=str)
def test_contexts_travel(context: Any) -> None:
    repository = FakeRepository()
    x = np.zeros((2, 2), np.float32)
    ask(repository, "labelled", lambda client: client.encode(x, context=context))
    (_, given), *_ = repository.queue("labelled", "encode").calls
    assert given is not None
    wide = np.eye(4)[context] if np.ndim(context) < 2 else np.asarray(context)
    np.testing.assert_array_equal(given, np.broadcast_to(wide, (2, 4)))


def test_a_draw_in_chunks_is_the_draw_of_one_request() -> None:
    repository = FakeRepository()
    whole = ask(repository, "line", lambda client: client.sample(700, seed=7, temperature=0.5))
    parts = ask(
        repository, "line", lambda client: collect(client, 700, 150, seed=7, temperature=0.5)
    )
    assert [len(part.x) for part in parts] == [150] * 4 + [100]
    assert {part.seed for part in parts} == {7}
    np.testing.assert_array_equal(np.concatenate([part.x for part in parts]), whole.x)
    np.testing.assert_array_equal(np.concatenate([part.log_prob for part in parts]), whole.log_prob)


@pytest.mark.parametrize(
    ("model", "context"),
    [
        pytest.param("labelled", np.arange(10) % 4, id="labels"),
        pytest.param("labelled", 3, id="label"),
        pytest.param("steered", np.arange(20.0).reshape(10, 2), id="rows"),
        pytest.param("steered", np.array([1.0, 2.0]), id="one-row"),
    ],
)
def test_a_chunk_has_the_contexts_of_its_rows(model: str, context: Any) -> None:
    repository = FakeRepository()
    whole = ask(repository, model, lambda client: client.sample(10, seed=1, context=context))
    parts = ask(repository, model, lambda client: collect(client, 10, 4, seed=1, context=context))
    np.testing.assert_array_equal(np.concatenate([part.x for part in parts]), whole.x)


def test_a_stream_begins_where_it_is_told() -> None:
    repository = FakeRepository()
    whole = ask(repository, "line", lambda client: client.sample(9, seed=7, first_row=5))
    parts = ask(repository, "line", lambda client: collect(client, 9, 4, seed=7, first_row=5))
    np.testing.assert_array_equal(np.concatenate([part.x for part in parts]), whole.x)
    early = ask(repository, "line", lambda client: client.sample(14, seed=7))
    np.testing.assert_array_equal(early.x[5:], whole.x)


def test_one_row_of_context_for_all_is_no_row_each() -> None:
    repository = FakeRepository()
    context = np.array([1.0, 2.0])  # as long as the draw
    whole = ask(repository, "steered", lambda client: client.sample(2, seed=1, context=context))
    parts = ask(
        repository, "steered", lambda client: collect(client, 2, 1, seed=1, context=context)
    )
    np.testing.assert_array_equal(np.concatenate([part.x for part in parts]), whole.x)


def test_a_stream_without_a_seed_has_one_for_all_its_chunks() -> None:
    parts = ask(FakeRepository(), "line", lambda client: collect(client, 9, 3))
    assert len({part.seed for part in parts}) == 1
    assert len(np.unique(np.concatenate([part.x for part in parts]))) == 27


def test_chunks_of_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="chunk_rows"):
        ask(FakeRepository(), "line", lambda client: collect(client, 9, 0))


def test_pictures_come_and_go_as_bytes() -> None:
    repository = FakeRepository()
    png = ask(repository, "grey", lambda client: client.sample_picture(4, seed=1, scale=2))
    assert Image.open(io.BytesIO(png)).size == (2 * 2 * 5, 2 * 2 * 4)
    one = ask(repository, "grey", lambda client: client.decode_picture(np.full((1, 20), 40.0)))
    encoded = ask(repository, "grey", lambda client: client.encode(one))
    np.testing.assert_array_equal(encoded.z, np.full((1, 20), 40.0))


def test_models_are_described() -> None:
    repository = FakeRepository()
    described = ask(repository, "line", lambda client: client.models())
    assert "line" in {model["name"] for model in described}
    assert ask(repository, "line", lambda client: client.describe("grey"))["num_levels"] == 256
    assert ask(repository, "line", lambda client: client.is_ready())
    repository.is_ready = False
    assert not ask(repository, "line", lambda client: client.is_ready())


@pytest.mark.parametrize(
    ("call", "code"),
    [
        pytest.param(lambda client: client.encode(X[:, :2]), "shape_mismatch", id="shape"),
        pytest.param(lambda client: client.encode(X, context=[1]), "invalid_parameter", id="ctx"),
        pytest.param(lambda client: client.sample(0), "out_of_range", id="no-samples"),
        pytest.param(lambda client: client.sample(10**6), "too_large", id="too-many"),
    ],
)
def test_a_refusal_says_why(call: Callable[[AsyncClient], Any], code: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        ask(FakeRepository(), "line", call)
    assert caught.value.code == code
    assert caught.value.request_id in str(caught.value)


def test_an_unknown_model_is_not_found() -> None:
    with pytest.raises(NotFound, match="nobody"):
        ask(FakeRepository(), "nobody", lambda client: client.encode(X))


@pytest.mark.parametrize("value", [["a"], [None], b"no picture", [1j]], ids=repr)
def test_what_is_no_array_is_refused_at_home(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        ask(FakeRepository(), "line", lambda client: client.encode(value))


# Any operation, by name.


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.log_prob(np.zeros((2, 3)), invald="null"),
        lambda client: client.decode(np.zeros((2, 3)), model="line"),
        lambda client: client.sample(2, temprature=0.5),
        lambda client: collect(client, 4, 2, progress=print),
    ],
)
def test_a_keyword_that_no_call_has_is_refused(call: Callable[[AsyncClient], Any]) -> None:
    with pytest.raises(TypeError, match=r"unexpected keyword '(invald|model|temprature|progress)'"):
        ask(FakeRepository(), "line", call)


def test_a_call_by_name_is_the_call_of_that_name() -> None:
    repository = FakeRepository()
    typed = ask(repository, "line", lambda client: client.encode(X))
    named = ask(repository, "line", lambda client: client.call("encode", x=X))
    assert set(named) == {"model", "version", "z", "log_det"}
    np.testing.assert_array_equal(named["z"], typed.z)
    np.testing.assert_array_equal(named["log_det"], typed.log_det)
    assert (named["model"], named["version"]) == (typed.model, typed.version)


def test_fields_are_numbers_flags_and_arrays() -> None:
    call: Callable[[AsyncClient], Any] = lambda client: client.call(  # noqa: E731
        "sample", num_samples=3, seed=7, temperature=0.5, context=np.array([1.0, 2.0])
    )
    named = ask(FakeRepository(), "steered", call)
    typed = ask(
        FakeRepository(),
        "steered",
        lambda client: client.sample(3, seed=7, temperature=0.5, context=[1.0, 2.0]),
    )
    np.testing.assert_array_equal(named["x"], typed.x)
    assert named["seed"] == 7
    assert type(named["seed"]) is int


def test_the_model_may_be_a_field() -> None:
    named = ask(FakeRepository(), "nobody", lambda client: client.call("encode", x=X, model="line"))
    assert named["model"] == "line"


def test_pictures_are_fields_too() -> None:
    repository = FakeRepository()
    png = ask(repository, "grey", lambda client: client.decode_picture(np.full((1, 20), 40.0)))
    named = ask(repository, "grey", lambda client: client.call("encode", x=png))
    np.testing.assert_array_equal(named["z"], np.full((1, 20), 40.0))


def sent(**fields: Any) -> httpx.Request:
    """What a call of a new operation sends."""
    script = Script(httpx.Response(200, json={"model": "m", "version": "1"}))
    with Client(URL, model="m", transport=httpx.MockTransport(script)) as client:
        client.call("new_one", **fields)
    (request,) = script.requests
    assert request.url.path == "/new_one"
    assert request.headers["accept"] == "application/x-npz, application/json;q=0.5"
    return request


@pytest.mark.parametrize(
    ("fields", "params", "media"),
    [
        ({}, {}, "application/json"),
        ({"x": X}, {}, "application/x-npy"),
        ({"x": [[1, 2]], "explain": 3}, {"explain": "3"}, "application/x-npy"),
        ({"y": X}, {}, "application/x-npz"),
        ({"x": X, "context": [1, 2]}, {}, "application/x-npz"),
        ({"x": X, "context": 1}, {"context": "1"}, "application/x-npy"),
        ({"x": X, "context": None}, {}, "application/x-npy"),
        ({"alpha": np.float64(0.5), "k": np.int64(2)}, {"alpha": "0.5", "k": "2"}, ""),
        ({"word": "null", "flag": True}, {"word": '"null"', "flag": "true"}, ""),
        ({"invalid": "null"}, {"invalid": "null"}, ""),
    ],
    ids=str,
)
def test_how_fields_travel(fields: dict[str, Any], params: dict[str, str], media: str) -> None:
    request = sent(**fields)
    assert dict(request.url.params) == {"model": "m", **params}
    assert request.headers["content-type"] == (media or "application/json")


@pytest.mark.parametrize(
    "fields",
    [
        {"x": [{"mass": 1.0, "speed": 2.0}]},
        {"x": [[1.0, 2.0]], "columns": ["speed", "mass"]},
        {"x": [[1.0, None]]},
        {"x": [[1.0], [1.0, 2.0]]},
    ],
    ids=str,
)
def test_what_is_no_array_travels_as_json(fields: dict[str, Any]) -> None:
    request = sent(**fields)
    assert json.loads(request.content) == {"model": "m", **fields}
    assert dict(request.url.params) == {}


def test_what_json_cannot_hold_is_refused_at_home() -> None:
    with pytest.raises(TypeError, match="got object"):
        sent(x=[[object()]])


def test_an_answer_in_json_is_read_too() -> None:
    answer = {
        "model": "m",
        "version": "2",
        "score": [1.0, None],
        "rows": [[1, 2], [3, 4]],
        "explanation": [["a"], []],
        "names": ["1", "2"],
        "labels": ["1", None],
        "ragged": [[1], [1, 2]],
        "flags": [True, False],
        "calibration": {"rows": 5},
        "non_finite": [1],
        "nothing": [],
    }
    script = Script(httpx.Response(200, json=answer))
    with Client(URL, transport=httpx.MockTransport(script)) as client:
        found = client.call("score", x=X)
    np.testing.assert_array_equal(found.pop("score"), [1.0, np.nan])
    np.testing.assert_array_equal(found.pop("rows"), [[1, 2], [3, 4]])
    assert found.pop("non_finite").dtype.kind == "i"
    assert found == {name: answer[name] for name in found}
    assert set(found) == set(answer) - {"score", "rows", "non_finite"}


# Retries: a server that is a list of answers.


class Script:
    """Gives one outcome a request, and remembers the requests."""

    def __init__(self, *outcomes: httpx.Response | type[httpx.RequestError]) -> None:
        self.outcomes = list(outcomes)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, httpx.Response):
            return outcome
        raise outcome("as told")


GOOD = {"content-type": "application/x-npy"}


def npy(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def good() -> httpx.Response:
    return httpx.Response(200, headers=GOOD, content=npy(np.array([1.5])))


def failed(status: int, **headers: str) -> httpx.Response:
    problem = {"detail": "no", "code": "some_code", "request_id": "r-1"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=named, json=problem)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long clients would have slept."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("pushforward.client.clients.time.sleep", slept.append)
    monkeypatch.setattr("pushforward.client.async_client.asyncio.sleep", sleep)
    monkeypatch.setattr(retries.random, "uniform", lambda low, high: high)
    return slept


def score(script: Script, **options: Any) -> Any:
    with Client(URL, transport=httpx.MockTransport(script), **options) as client:
        return client.log_prob(X)


@pytest.mark.parametrize(
    "outcome",
    [
        *(pytest.param(failed(status), id=str(status)) for status in (408, 429, 500, 502, 503)),
        httpx.ConnectError,
        httpx.ConnectTimeout,
        httpx.ReadError,
        httpx.RemoteProtocolError,
    ],
)
def test_what_may_pass_is_tried_again(outcome: Any, pauses: list[float]) -> None:
    script = Script(outcome, outcome, good())
    assert score(script) == [1.5]
    assert len(script.requests) == 3
    assert pauses == [0.5, 1.0]


def test_the_asynchronous_client_tries_again_too(pauses: list[float]) -> None:
    script = Script(failed(503, retry_after="3"), httpx.ConnectError, good())

    async def exchange() -> Any:
        async with AsyncClient(URL, transport=httpx.MockTransport(script)) as client:
            return await client.log_prob(X)

    assert asyncio.run(exchange()) == [1.5]
    assert pauses == [3.0, 1.0]


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 415, 422])
def test_what_will_not_pass_is_not_tried_again(status: int, pauses: list[float]) -> None:
    with pytest.raises(RequestRefused) as caught:
        score(Script(failed(status)))
    assert caught.value.status_code == status
    assert pauses == []


def test_readiness_is_asked_once(pauses: list[float]) -> None:
    for outcome in (failed(503), httpx.ConnectError):
        script = Script(outcome, httpx.Response(200, json={"ready": True}))
        with Client(URL, transport=httpx.MockTransport(script)) as client:
            assert not client.is_ready()
        assert len(script.requests) == 1
    assert pauses == []


def test_no_connection_in_time_is_no_late_answer(pauses: list[float]) -> None:
    with pytest.raises(ConnectionFailed, match="ConnectTimeout") as caught:
        score(Script(httpx.ConnectTimeout), max_retries=0)
    assert type(caught.value) is ConnectionFailed


def test_a_timeout_is_not_tried_again(pauses: list[float]) -> None:
    with pytest.raises(TimedOut, match="ReadTimeout"):
        score(Script(httpx.ReadTimeout))
    assert pauses == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, AccessDenied),
        (403, AccessDenied),
        (404, NotFound),
        (422, RequestRefused),
        (429, Overloaded),
        (500, ServerFailed),
        (503, NotReady),
        (504, DeadlineExceeded),
    ],
)
def test_every_status_has_its_error(status: int, kind: type[ResponseError]) -> None:
    with pytest.raises(ResponseError) as caught:
        score(Script(failed(status)), max_retries=0)
    assert type(caught.value) is kind
    assert isinstance(caught.value, ClientError)
    assert (caught.value.code, caught.value.request_id) == ("some_code", "r-1")


def test_when_the_retries_are_used_up_the_last_error_is_told(pauses: list[float]) -> None:
    with pytest.raises(ConnectionFailed, match="ConnectError"):
        score(Script(*[httpx.ConnectError] * 6), max_retries=5)
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize(
    ("value", "pause"),
    [
        ("7", 7.0),
        ("60", 60.0),
        ("61", None),
        ("soon", 0.5),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_obeyed_while_it_is_short(
    value: str, pause: float | None, pauses: list[float]
) -> None:
    script = Script(failed(429, retry_after=value), good())
    if pause is None:
        with pytest.raises(Overloaded):
            score(script)
        assert pauses == []
    else:
        score(script)
        assert pauses == [pause]


def test_a_date_to_come_back_at_is_obeyed(pauses: list[float]) -> None:
    at = formatdate(time.time() + 20, usegmt=True)
    score(Script(failed(429, retry_after=at), good()))
    assert 15 < pauses[0] <= 20, "a date has whole seconds"


def test_clients_that_failed_together_do_not_come_back_together() -> None:
    drawn = {retries.pause_before_retry(failed(503), 0, 2) for _ in range(100)}
    assert len(drawn) > 50
    assert all(pause is not None and 0.375 <= pause <= 0.5 for pause in drawn)


def test_a_retried_draw_keeps_its_seed(pauses: list[float]) -> None:
    script = Script(failed(503), failed(500), failed(404))
    with Client(URL, transport=httpx.MockTransport(script)) as client, pytest.raises(NotFound):
        client.sample(2)
    assert len({request.url.params["seed"] for request in script.requests}) == 1


def test_key_deadline_and_model_go_with_every_request() -> None:
    script = Script(good())
    score(script, api_key="secret", timeout=1.5, model="m")
    (request,) = script.requests
    assert request.headers["authorization"] == "Bearer secret"
    assert request.headers["x-timeout-seconds"] == "1.500"
    assert request.url.params["model"] == "m"
    assert request.extensions["timeout"]["read"] == 1.5


def test_the_base_url_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSHFORWARD_BASE_URL", "http://elsewhere:9/flows")
    script = Script(good())
    with Client(transport=httpx.MockTransport(script)) as client:
        client.log_prob(X)
    assert str(script.requests[0].url) == "http://elsewhere:9/flows/log_prob"


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, content=npy(X)),
        httpx.Response(200, headers=GOOD, content=npy(X)[:-1]),
        httpx.Response(200, headers=GOOD, content=npy(np.array([{}], object))),
        httpx.Response(200, headers=GOOD, content=b""),
        httpx.Response(200, html="<p>hello</p>"),
    ],
    ids=["no-type", "truncated", "pickled", "empty", "page"],
)
def test_an_answer_that_is_none_is_told_as_such(answer: httpx.Response) -> None:
    with pytest.raises(UnreadableAnswer):
        score(Script(answer))


def test_an_error_from_a_proxy_is_told_as_it_is() -> None:
    with pytest.raises(ServerFailed, match="Bad Gateway") as caught:
        score(Script(httpx.Response(502, text="Bad Gateway")), max_retries=0)
    assert caught.value.code == ""


def test_both_clients_have_the_same_methods() -> None:
    def signatures(kind: type) -> dict[str, Any]:
        public = {n: m for n, m in inspect.getmembers(kind) if not n.startswith("_")}
        return {name: inspect.signature(method).parameters for name, method in public.items()}

    assert json.dumps(signatures(Client), default=str) == json.dumps(
        signatures(AsyncClient), default=str
    )
