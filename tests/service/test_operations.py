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

from models.noise import base_noise
from service.app import create_app
from service.settings import Settings
from service.telemetry.access_log import ACCESS_LOGGER, AccessLog
from tests.service.fake_repository import (
    SCALE,
    FakeRepository,
    app_over,
    ask,
    card,
    log_normal,
    post,
)

LOG_2 = math.log(SCALE)
NPY, NPZ, PNG = "application/x-npy", "application/x-npz", "image/png"


@pytest.fixture
def house() -> FakeRepository:
    return FakeRepository()


@pytest.fixture
def app(house: FakeRepository) -> FastAPI:
    return app_over(house)


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


def test_log_prob(app: FastAPI) -> None:
    x = [[0.0, 1.0, 2.0], [-4.0, 0.5, 0.25]]
    answer = content(post(app, "/log_prob", json={"model": "line", "x": x}))
    assert answer.keys() == {"model", "version", "log_prob"}
    assert (answer["model"], answer["version"]) == ("line", "3")
    expected = log_normal(np.array(x) / SCALE) - 3 * LOG_2
    np.testing.assert_allclose(answer["log_prob"], expected, rtol=1e-6)


def test_log_prob_of_pixels_has_bits_per_dim(app: FastAPI) -> None:
    x = np.arange(40.0).reshape(2, 1, 4, 5).tolist()
    answer = content(post(app, "/log_prob", json={"model": "grey", "x": x}))
    expected = -np.array(answer["log_prob"]) / (20 * math.log(2))
    np.testing.assert_allclose(answer["bits_per_dim"], expected, rtol=1e-6)


@pytest.mark.parametrize("call", ["log_prob", "encode"])
def test_whole_numbers_that_are_no_pixels_are_refused(app: FastAPI, call: str) -> None:
    body = saved(np.full((1, 1, 4, 4), 17, np.uint8))
    headers = {"Content-Type": "application/x-npy"}
    answer = post(app, f"/{call}?model=digits", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "out_of_range")


def test_encode(app: FastAPI) -> None:
    answer = content(
        post(app, "/encode", json={"model": "grey", "x": np.ones((2, 1, 4, 5)).tolist()})
    )
    assert answer["z"] == [[0.5] * 20] * 2
    np.testing.assert_allclose(answer["log_det"], -20 * LOG_2, rtol=1e-6)


def test_decode(app: FastAPI) -> None:
    answer = content(post(app, "/decode", json={"model": "grey", "z": [[0.5] * 20]}))
    assert answer["x"] == np.ones((1, 1, 4, 5)).tolist()
    np.testing.assert_allclose(answer["log_det"], [20 * LOG_2], rtol=1e-6)


def test_sample(app: FastAPI) -> None:
    request = {"model": "line", "num_samples": 5, "seed": 7, "temperature": 0.5}
    answer = content(post(app, "/sample", json=request))
    z = base_noise(5, 3, seed=7, temperature=0.5).astype(np.float32)
    np.testing.assert_array_equal(np.array(answer["x"], np.float32), z * np.float32(SCALE))
    np.testing.assert_allclose(answer["log_prob"], log_normal(z) - 3 * LOG_2, rtol=1e-6)
    assert answer["seed"] == 7


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


def test_temperature_zero_is_the_mode(app: FastAPI) -> None:
    request = {"model": "line", "num_samples": 2, "temperature": 0}
    answer = content(post(app, "/sample", json=request))
    assert np.abs(answer["x"]).max() == 0
    np.testing.assert_allclose(answer["log_prob"], log_normal(np.zeros((2, 3))) - 3 * LOG_2)


@pytest.mark.parametrize("seed", [0, 2**53 + 1, 2**64 - 1])
def test_all_seeds_come_back_whole(app: FastAPI, seed: int) -> None:
    assert content(post(app, "/sample", json={"model": "line", "seed": seed}))["seed"] == seed


def test_null_counts_as_absent(app: FastAPI) -> None:
    request = {"model": "line", "num_samples": None, "seed": None, "context": None}
    assert len(content(post(app, "/sample", json=request))["x"]) == 1


def test_float64_models_are_served_in_float64(app: FastAPI, house: FakeRepository) -> None:
    x = [[0.1, 1 / 3]]
    answer = content(post(app, "/encode", json={"model": "wide", "x": x}))
    assert answer["z"] == [[0.05, 1 / 6]]
    assert house.queue("wide", "encode").calls[0][0].dtype == np.float64


def test_rows_reach_the_queue_in_the_models_dtype(app: FastAPI, house: FakeRepository) -> None:
    post(app, "/encode", json={"model": "line", "x": [[1, 2, 3]]})
    rows, context = house.queue("line", "encode").calls[0]
    assert rows.dtype == np.float32
    assert rows.flags.writeable
    assert context is None


def test_non_finite_results_are_null_and_named(app: FastAPI) -> None:
    answer = content(post(app, "/decode", json={"model": "line", "z": [[1, 2, 3], [3e38, 0, 0]]}))
    assert answer["x"] == [[2, 4, 6], None]
    assert answer["non_finite"] == [1]
    assert None not in answer["log_det"]


def test_a_density_of_zero_is_null_and_named(app: FastAPI) -> None:
    answer = content(post(app, "/log_prob", json={"model": "line", "x": [[3e38, 0, 0], [0, 0, 0]]}))
    assert answer["log_prob"][0] is None
    assert answer["log_prob"][1] is not None
    assert answer["non_finite"] == [0]


# Models and contexts


def test_the_model_may_be_left_out_where_there_is_a_default() -> None:
    app = app_over(FakeRepository(default="line"))
    assert content(post(app, "/sample", json={}))["model"] == "line"


@pytest.mark.parametrize(
    ("model", "context", "sums"),
    [
        ("labelled", 2, [1, 1]),
        ("labelled", [3, 0], [1, 1]),
        ("labelled", [[0.5, 0.25, 0, 0], [1, 1, 1, 1]], [0.75, 4]),
        ("steered", [[1, 2]], [3, 3]),
        ("steered", [1, 2], [3, 3]),
        ("steered", [[1, 2], [3, 4]], [3, 7]),
    ],
)
def test_contexts_reach_the_model(
    app: FastAPI, model: str, context: Any, sums: list[float]
) -> None:
    request = {"model": model, "x": [[0, 0], [0, 0]], "context": context}
    z = np.array(content(post(app, "/encode", json=request))["z"])
    np.testing.assert_allclose(z, -np.array(sums)[:, None] / SCALE * np.ones((1, 2)))
    draw = {"model": model, "num_samples": 2, "temperature": 0, "context": context}
    x = np.array(content(post(app, "/sample", json=draw))["x"])
    np.testing.assert_allclose(x, np.array(sums)[:, None] * np.ones((1, 2)))


def test_labels_become_one_hot_rows(app: FastAPI, house: FakeRepository) -> None:
    post(app, "/encode", json={"model": "labelled", "x": [[0, 0], [0, 0]], "context": [3, 1]})
    context = house.queue("labelled", "encode").calls[0][1]
    assert context is not None
    assert context.tolist() == [[0, 0, 0, 1], [0, 1, 0, 0]]


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


@pytest.mark.parametrize(
    ("path", "body", "names"),
    [
        ("/log_prob", {"x": [[1, 2, 3]]}, {"log_prob"}),
        ("/encode", {"x": [[1, 2, 3]]}, {"z", "log_det"}),
        ("/decode", {"z": [[1, 2, 3]]}, {"x", "log_det"}),
        ("/sample", {"seed": 2**64 - 1}, {"x", "log_prob", "seed"}),
    ],
)
def test_npz_answers_hold_all_outputs(
    app: FastAPI, path: str, body: dict[str, Any], names: set[str]
) -> None:
    request = {"model": "line", **body}
    expected = content(post(app, path, json=request))
    answer = post(app, path, json=request, headers={"Accept": NPZ})
    arrays = loaded(answer)
    assert set(arrays.files) == names
    for name in names:
        np.testing.assert_allclose(arrays[name], expected[name], rtol=1e-6)
    if path == "/sample":
        assert answer.headers["x-seed"] == str(2**64 - 1)


def test_npz_requests_bring_rows_and_context(app: FastAPI) -> None:
    body = archived(x=np.zeros((2, 2)), context=np.array([0, 3], np.uint8))
    answer = post(app, "/encode?model=labelled", content=body, headers={"Content-Type": NPZ})
    assert content(answer)["z"] == [[-0.5, -0.5], [-0.5, -0.5]]
    body = archived(context=np.array([[1.0, 2.0]]))
    path = "/sample?model=steered&num_samples=2&temperature=0"
    answer = post(app, path, content=body, headers={"Content-Type": NPZ})
    assert content(answer)["x"] == [[3, 3], [3, 3]]


def test_binary_answers_carry_what_json_cannot(app: FastAPI) -> None:
    body = {"model": "line", "z": [[3e38, 0, 0], [0, 0, 0]]}
    answer = post(app, "/decode", json=body, headers={"Accept": NPY})
    assert loaded(answer)[0, 0] == np.inf
    assert answer.headers["x-non-finite"] == "1"


def test_all_fields_may_stand_in_the_query_string(app: FastAPI) -> None:
    answer = content(post(app, "/sample?model=labelled&num_samples=3&seed=5&context=2"))
    body = {"model": "labelled", "num_samples": 3, "seed": 5, "context": 2}
    assert content(post(app, "/sample", json=body)) == answer


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


def test_one_sample_is_one_picture(app: FastAPI) -> None:
    body = {"model": "grey", "seed": 3, "temperature": 20}
    answer = post(app, "/sample", json=body, headers={"Accept": PNG})
    x = np.array(content(post(app, "/sample", json=body))["x"])
    np.testing.assert_array_equal(picture(answer), np.clip(np.rint(x[0, 0]), 0, 255))
    assert answer.headers["x-seed"] == "3"
    assert answer.headers["x-model"] == "grey"


def test_many_rows_are_a_grid_and_pixels_may_be_larger(app: FastAPI) -> None:
    z = np.repeat(np.arange(5.0)[:, None], 60, axis=1)
    answer = post(
        app, "/decode?scale=2", json={"model": "colour", "z": z.tolist()}, headers={"Accept": PNG}
    )
    pixels = picture(answer)
    assert pixels.shape == (2 * 4 * 2, 3 * 5 * 2, 3)
    corners = pixels[::8, ::10, 0]
    assert corners.tolist() == [[0, 2, 4], [6, 8, 0]]


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
    house = FakeRepository((card("one", (2,)),), default="one")
    assert ask(app_over(house), "GET", "/models").json()["default"] == "one"


def test_health_follows_the_repository(app: FastAPI, house: FakeRepository) -> None:
    for path in ("/health", "/health/ready"):
        assert ask(app, "GET", path).json() == {"ready": True}
    assert ask(app, "GET", "/health/live").json() == {"live": True}
    house.is_ready = False
    for path in ("/health", "/health/ready"):
        answer = ask(app, "GET", path)
        assert answer.status_code == 503
        assert answer.json()["ready"] is False
        assert answer.json()["code"] == "not_ready"
        assert int(answer.headers["retry-after"]) >= 1
    assert ask(app, "GET", "/health/live").status_code == 200
    answer = post(app, "/sample", json={"model": "line"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    house.is_alive = False
    answer = ask(app, "GET", "/health/live")
    assert (answer.status_code, answer.json()["live"]) == (503, False)


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
        f'{prefix}{{code="200",model="line",op="sample"}} 1.0',
        f'{prefix}{{code="422",model="line",op="sample"}} 1.0',
        f'{prefix}{{code="404",model="",op="sample"}} 1.0',
        f'{prefix}{{code="200",model="",op="/models/{{name}}"}} 1.0',
        f'{prefix}{{code="404",model="",op="none"}} 1.0',
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
    counted = 'pushforward_requests_total{code="200",model="line",op="sample"} 1.0'
    metrics = ask(app, "GET", "/metrics").text.splitlines()
    assert [line for line in metrics if line.startswith("pushforward_requests_total{")] == [counted]
