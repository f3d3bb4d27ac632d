"""The four operations as clients see them, over a repository of linear maps."""

import asyncio
import io
import json
import logging
import math
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image

from service.app import create_app
from service.settings import Settings
from service.telemetry.access_log import ACCESS_LOGGER, AccessLog
from tests.service.fake_repository import (
    SCALE,
    FakeRepository,
    app_over,
    ask,
    card,
    post,
)

LOG_2 = math.log(SCALE)
NPY, NPZ, PNG = "application/x-npy", "application/x-npz", "image/png"


@pytest.fixture
def repository() -> FakeRepository:
    return FakeRepository()


@pytest.fixture
def app(repository: FakeRepository) -> FastAPI:
    return app_over(repository)


def saved(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def archived(**values: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **values)
    return buffer.getvalue()


def loaded(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return np.load(io.BytesIO(answer.content), allow_pickle=False)


def content(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


# Answers in JSON


def test_a_sample_has_the_log_prob_that_log_prob_gives_it(app: FastAPI) -> None:
    sample = content(post(app, "/sample", json={"model": "wide", "num_samples": 4}))
    again = content(post(app, "/log_prob", json={"model": "wide", "x": sample["x"]}))
    np.testing.assert_allclose(again["log_prob"], sample["log_prob"], rtol=1e-12)


def test_a_seed_is_made_and_returned(app: FastAPI) -> None:
    first = content(post(app, "/sample", json={"model": "line", "num_samples": 2}))
    second = content(post(app, "/sample", json={"model": "line", "num_samples": 2}))
    assert first["seed"] != second["seed"]
    request = {"model": "line", "num_samples": 2, "seed": first["seed"]}
    assert content(post(app, "/sample", json=request)) == first


def test_a_longer_draw_begins_with_the_shorter_one(app: FastAPI) -> None:
    draws = [
        content(post(app, "/sample", json={"model": "line", "seed": 1, "num_samples": rows}))["x"]
        for rows in (2, 20_000 // 2)
    ]
    assert draws[1][:2] == draws[0], "large draws are made on a thread, from the same stream"


@pytest.mark.parametrize(("first", "rows"), [(0, 3), (7, 5), (250, 20), (2000, 1)])
def test_a_draw_can_begin_at_any_row(app: FastAPI, first: int, rows: int) -> None:
    draw = {"model": "line", "seed": 1}
    whole = content(post(app, "/sample", json=draw | {"num_samples": 2001}))
    part = content(post(app, "/sample", json=draw | {"num_samples": rows, "first_row": first}))
    assert part["x"] == whole["x"][first : first + rows]
    assert part["log_prob"] == whole["log_prob"][first : first + rows]


def test_rows_reach_the_queue_in_the_models_dtype(app: FastAPI, repository: FakeRepository) -> None:
    post(app, "/encode", json={"model": "line", "x": [[1, 2, 3]]})
    rows, context = repository.queue("line", "encode").calls[0]
    assert rows.dtype == np.float32
    assert rows.flags.writeable
    assert context is None


# Models and contexts


# Binary


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i4", "u1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_in_and_out(app: FastAPI, dtype: str, order: Any) -> None:
    x = np.array(np.arange(40).reshape(2, 1, 4, 5), dtype, order=order)
    answer = post(
        app,
        "/encode?model=grey",
        content=saved(x),
        headers={"Content-Type": NPY, "Accept": NPY},
    )
    assert answer.headers["content-type"] == NPY
    z = loaded(answer)
    assert z.dtype == np.float32
    np.testing.assert_array_equal(z, np.arange(40).reshape(2, 20) / SCALE)
    assert answer.headers["x-model"] == "grey"
    assert answer.headers["x-model-version"] == "3"


# Pictures


def picture(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == PNG
    return np.asarray(Image.open(io.BytesIO(answer.content)))


@pytest.mark.parametrize("model", ["grey", "colour", "digits"])
@pytest.mark.parametrize("path", ["/encode", "/log_prob"])
def test_a_picture_is_one_row(app: FastAPI, model: str, path: str) -> None:
    shape = FakeRepository().get(model).card.event_shape
    levels = 17 if model == "digits" else 256
    x = np.random.default_rng(3).integers(0, levels, shape)
    pixels = np.rint(x * (255 / (levels - 1))).astype(np.uint8).transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels if shape[0] == 3 else pixels[:, :, 0]).save(buffer, "PNG")
    answer = post(
        app, f"{path}?model={model}", content=buffer.getvalue(), headers={"Content-Type": PNG}
    )
    expected = post(app, path, json={"model": model, "x": x[None].tolist()})
    assert content(answer) == content(expected)


# Headers


def test_request_ids_come_back_and_are_made(app: FastAPI) -> None:
    given = {"X-Request-Id": "abc-123"}
    for path in ("/encode", "/sample"):
        answer = post(app, path, json={"model": "line", "x": [[1, 2, 3]]}, headers=given)
        assert answer.headers.get_list("x-request-id") == ["abc-123"]
    made = {ask(app, "GET", "/models").headers["x-request-id"] for _ in range(3)}
    made |= {post(app, "/sample", json={"model": "line"}).headers["x-request-id"] for _ in range(3)}
    assert len(made) == 6


@pytest.mark.parametrize("bad", ["a b", "x" * 129, "\x7f", "é"])
def test_unusable_request_ids_are_replaced(app: FastAPI, bad: str) -> None:
    headers = [(b"X-Request-Id", bad.encode())]
    answer = post(app, "/sample", json={"model": "line"}, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] != bad
    assert 1 <= len(answer.headers["x-request-id"]) <= 128


def test_server_timing(app: FastAPI) -> None:
    answer = post(app, "/sample", json={"model": "line"})
    assert answer.headers["server-timing"] == "queue;dur=1.000, compute;dur=2.000"


# The other routes


def test_models(app: FastAPI) -> None:
    listed = ask(app, "GET", "/models").json()
    assert listed["default"] is None
    assert [model["name"] for model in listed["models"]] == [
        served.card.name for served in FakeRepository().models()
    ]
    grey = ask(app, "GET", "/models/grey").json()
    assert grey in listed["models"]
    assert grey["event_shape"] == [1, 4, 5]
    assert grey["features"] == 20
    assert grey["num_levels"] == 256
    assert grey["support"] == [0, 256]
    assert grey["provenance"] == {"trained_on": "nothing"}


def test_the_only_model_is_the_default() -> None:
    repository = FakeRepository((card("one", (2,)),), default="one")
    assert ask(app_over(repository), "GET", "/models").json()["default"] == "one"


def test_health_follows_the_repository(app: FastAPI, repository: FakeRepository) -> None:
    for path in ("/health", "/health/ready"):
        assert ask(app, "GET", path).json() == {
            "ready": True,
            "unavailable": [
                {"name": "wide", "version": "4", "reason": "wide/4/config.json: cannot be read"}
            ],
        }
    assert ask(app, "GET", "/health/live").json() == {"live": True}
    repository.is_ready = False
    for path in ("/health", "/health/ready"):
        answer = ask(app, "GET", path)
        assert answer.status_code == 503
        assert answer.json()["ready"] is False
        assert answer.json()["code"] == "not_ready"
        assert int(answer.headers["retry-after"]) >= 1
    assert ask(app, "GET", "/health/live").status_code == 200
    answer = post(app, "/sample", json={"model": "line"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    repository.is_alive = False
    answer = ask(app, "GET", "/health/live")
    assert (answer.status_code, answer.json()["live"]) == (503, False)


@pytest.mark.parametrize("encoding", ["gzip", "identity", "gzip;q=0"])
def test_probes_are_counted_under_their_route(encoding: str) -> None:
    repository = FakeRepository()
    repository.is_ready = False
    app, headers = app_over(repository), {"Accept-Encoding": encoding}
    for method in ("GET", "HEAD"):
        assert ask(app, method, "/health/ready", headers=headers).status_code == 503
    text = ask(app, "GET", "/metrics").text
    counted = [line for line in text.splitlines() if line.startswith("pushforward_requests_total{")]
    labels = 'code="503",model="",op="/health/ready",version=""'
    assert counted == [f"pushforward_requests_total{{{labels}}} 2.0"]


def test_every_exchange_is_counted_once(app: FastAPI) -> None:
    post(app, "/sample", json={"model": "line"})
    post(app, "/sample", json={"model": "line", "seed": -1})
    post(app, "/sample", json={"model": "scanner-1"})
    ask(app, "GET", "/models/grey")
    ask(app, "GET", "/scanner-2")
    lines = ask(app, "GET", "/metrics").text.splitlines()
    counts = {line for line in lines if line.startswith("pushforward_requests_total{")}
    prefix = "pushforward_requests_total"
    assert counts == {
        f'{prefix}{{code="200",model="line",op="sample",version="3"}} 1.0',
        f'{prefix}{{code="422",model="line",op="sample",version="3"}} 1.0',
        f'{prefix}{{code="404",model="",op="sample",version=""}} 1.0',
        f'{prefix}{{code="200",model="",op="/models/{{name}}",version=""}} 1.0',
        f'{prefix}{{code="404",model="",op="none",version=""}} 1.0',
    }


def test_every_exchange_but_those_of_probes_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stream = io.StringIO()
    access = AccessLog("json", stream)
    app = create_app(Settings(), FakeRepository(), access=access)
    caplog.set_level(logging.INFO, ACCESS_LOGGER)
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    headers = {"X-Request-Id": "mine", "traceparent": parent}
    post(app, "/sample", json={"model": "line", "num_samples": 3}, headers=headers)
    post(app, "/encode", json={"model": "line", "x": [[1]]}, headers={"traceparent": "00-0-0-0"})
    ask(app, "GET", "/models")
    for path in ("/health/live", "/health/ready", "/health", "/metrics"):
        ask(app, "GET", path)
    access.flush()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["message"] for line in lines] == [
        "POST /sample 200",
        "POST /encode 422",
        "GET /models 200",
    ]
    assert lines[0]["request_id"] == "mine"
    assert lines[0]["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert (lines[0]["model"], lines[0]["op"], lines[0]["rows"]) == ("line", "sample", 3)
    assert lines[0]["version"] == "3"
    assert "trace_id" not in lines[1]


def test_the_page_is_served(app: FastAPI) -> None:
    start = ask(app, "GET", "/")
    assert start.status_code == 307
    page = ask(app, "GET", f"/{start.headers['location']}")
    assert page.status_code == 200
    assert "<title>pushforward</title>" in page.text
    assert "connect-src 'self'" in page.headers["content-security-policy"]


def test_a_root_path_is_stripped() -> None:
    app = app_over(FakeRepository())

    async def exchange() -> httpx.Response:
        transport = httpx.ASGITransport(app, root_path="/flows")
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.post("/flows/sample", json={"model": "line"})

    answer = asyncio.run(exchange())
    assert answer.status_code == 200
    assert len(answer.headers.get_list("x-request-id")) == 1
    labels = 'code="200",model="line",op="sample",version="3"'
    counted = f"pushforward_requests_total{{{labels}}} 1.0"
    metrics = ask(app, "GET", "/metrics").text.splitlines()
    assert [line for line in metrics if line.startswith("pushforward_requests_total{")] == [counted]
