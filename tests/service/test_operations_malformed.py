"""Everything that must not work: status, code and message of each, and a server that lives on."""

import asyncio
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from PIL import Image

from service.errors import (
    DeadlineExceeded,
    EngineError,
    NotReady,
    Overloaded,
    ServiceError,
    TooLarge,
)
from tests.service.fake_repository import FakeRepository, app_over, pieces, post

JSON = "application/json"
NPY, NPZ, PNG, JPEG = "application/x-npy", "application/x-npz", "image/png", "image/jpeg"

LIMITS = {"max_body_bytes": 50_000, "max_request_rows": 1000, "max_response_bytes": 20_000}


def saved(values: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, **options)
    return buffer.getvalue()


def picture(mode: str = "L", size: tuple[int, int] = (5, 4), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind)
    return buffer.getvalue()


@dataclass(frozen=True)
class Case:
    """One request that is refused; `request` is for httpx."""

    path: str
    status: int
    code: str
    message: str
    body: Any = None
    media: str | None = JSON
    headers: dict[str, str] = field(default_factory=dict)

    def send(self, app: Any) -> httpx.Response:
        body = self.body() if callable(self.body) else self.body
        if isinstance(body, dict):
            body = orjson.dumps(body)
        headers = dict(self.headers)
        if self.media is not None:
            headers["Content-Type"] = self.media
        return post(app, self.path, content=body, headers=headers)


def line(**fields: Any) -> dict[str, Any]:
    return {"model": "line", **fields}


CASES: dict[str, Case] = {
    # The body
    "empty body": Case("/encode", 400, "malformed_body", "not valid JSON", b""),
    "no JSON": Case("/encode", 400, "malformed_body", "not valid JSON", b"x=1"),
    "truncated JSON": Case("/encode", 400, "malformed_body", "end of data", b'{"x": [[1'),
    "byte order mark": Case("/encode", 400, "malformed_body", "BOM", b"\xef\xbb\xbf{}"),
    "invalid UTF-8": Case("/encode", 400, "malformed_body", "UTF-8", b'{"model": "\xff"}'),
    "no object": Case("/encode", 400, "malformed_body", "expected a JSON object", b"[[1, 2, 3]]"),
    "depth bomb": Case("/encode", 400, "malformed_body", "depth", b"[" * 49_000),
    "key twice": Case(
        "/encode", 400, "malformed_body", "'x' stands twice", b'{"x": [[1]], "x": [[2]]}'
    ),
    "long integer": Case(
        "/encode", 400, "malformed_body", "JSON", b'{"x": [[' + b"1" * 40_000 + b"]]}"
    ),
    # Fields
    "unknown field": Case(
        "/encode", 422, "unknown_field", "did you mean 'model'", {"modell": "line", "x": [[1]]}
    ),
    "field of another call": Case("/encode", 422, "unknown_field", "'z'", line(z=[[1, 2, 3]])),
    "missing rows": Case("/log_prob", 422, "missing_field", "x: expected the rows", line()),
    "rows are null": Case("/decode", 422, "missing_field", "z: expected the rows", line(z=None)),
    "model is a number": Case("/encode", 422, "invalid_parameter", "model", {"model": 1}),
    "unknown model": Case("/encode", 404, "model_not_found", "lune", {"model": "lune", "x": [[1]]}),
    "no model named": Case("/encode", 404, "model_not_found", "expected one of", {"x": [[1]]}),
    "model is a path": Case("/sample", 404, "model_not_found", "model", {"model": "../line"}),
    "model is empty": Case("/sample", 404, "model_not_found", "model", {"model": ""}),
    # Tensors
    "one event": Case(
        "/encode", 422, "shape_mismatch", "expected (*, 3), got (3,)", line(x=[1, 2, 3])
    ),
    "wrong width": Case(
        "/encode", 422, "shape_mismatch", "expected (*, 3), got (2, 2)", line(x=[[1, 2], [3, 4]])
    ),
    "wrong rank": Case("/encode", 422, "shape_mismatch", "(1, 1, 3)", line(x=[[[1, 2, 3]]])),
    "flat picture": Case(
        "/encode",
        422,
        "shape_mismatch",
        "expected (*, 1, 4, 5), got (1, 20)",
        {"model": "grey", "x": [[0] * 20]},
    ),
    "ragged": Case(
        "/encode", 422, "shape_mismatch", "row 1 has shape (2,)", line(x=[[1, 2, 3], [1, 2]])
    ),
    "no rows": Case("/encode", 422, "shape_mismatch", "at least one row", line(x=[])),
    "empty row": Case("/encode", 422, "shape_mismatch", "(1, 0)", line(x=[[]])),
    "latents in the shape of x": Case(
        "/decode",
        422,
        "shape_mismatch",
        "expected (*, 20)",
        {"model": "grey", "z": np.zeros((1, 1, 4, 5)).tolist()},
    ),
    "string in a row": Case("/encode", 422, "bad_dtype", "holds a string", line(x=[["1", 2, 3]])),
    "true in a row": Case("/encode", 422, "bad_dtype", "row 0 holds true", line(x=[[True, 2, 3]])),
    "null in a row": Case("/encode", 422, "bad_dtype", "row 0 holds null", line(x=[[None, 2, 3]])),
    "rows are text": Case("/encode", 422, "bad_dtype", "got a string", line(x="1,2,3")),
    "rows are an object": Case("/encode", 422, "bad_dtype", "got an object", line(x={"a": [1]})),
    "NaN": Case(
        "/encode", 422, "non_finite", "row 1 holds nan", b'{"model":"line","x":[[1,2,3],[1,NaN,3]]}'
    ),
    "minus infinity": Case(
        "/encode", 422, "non_finite", "row 0 holds -inf", b'{"model":"line","x":[[1,-Infinity,3]]}'
    ),
    "1e400": Case(
        "/encode", 422, "non_finite", "row 0 holds inf", b'{"model":"line","x":[[1,1e400,3]]}'
    ),
    "too large for float32": Case(
        "/encode", 422, "non_finite", "row 0 holds 1e+39", line(x=[[1, 1e39, 3]])
    ),
    # Contexts
    "context not wanted": Case(
        "/encode", 422, "invalid_parameter", "unconditional", line(x=[[1, 2, 3]], context=1)
    ),
    "context missing": Case(
        "/encode", 422, "missing_field", "labels 0 .. 3", {"model": "labelled", "x": [[1, 2]]}
    ),
    "label out of range": Case(
        "/sample",
        422,
        "out_of_range",
        "row 1 has 4",
        {"model": "labelled", "num_samples": 2, "context": [0, 4]},
    ),
    "contexts of another count": Case(
        "/sample",
        422,
        "shape_mismatch",
        "expected 3 rows or 1 for all, got 2",
        {"model": "steered", "num_samples": 3, "context": [[1, 2], [3, 4]]},
    ),
    # Draws
    "no samples": Case("/sample", 422, "out_of_range", "num_samples", line(num_samples=0)),
    "minus one sample": Case("/sample", 422, "out_of_range", "got -1", line(num_samples=-1)),
    "1.5 samples": Case("/sample", 422, "invalid_parameter", "1.5", line(num_samples=1.5)),
    "true samples": Case("/sample", 422, "invalid_parameter", "true", line(num_samples=True)),
    "text samples": Case("/sample", 422, "invalid_parameter", "'10'", line(num_samples="10")),
    "10^12 samples": Case("/sample", 413, "too_large", "at most 1000", line(num_samples=10**12)),
    "10^30 samples": Case("/sample", 422, "out_of_range", "num_samples", line(num_samples=1e30)),
    "answer too large": Case(
        "/sample", 413, "too_large", "ask for 333 at most", line(num_samples=334)
    ),
    "temperature -1": Case("/sample", 422, "out_of_range", "got -1", line(temperature=-1)),
    "temperature 1e308": Case("/sample", 422, "out_of_range", "0 .. 1000", line(temperature=1e308)),
    "temperature NaN": Case(
        "/sample", 422, "out_of_range", "got nan", b'{"model":"line","temperature":NaN}'
    ),
    "temperature text": Case("/sample", 422, "invalid_parameter", "'hot'", line(temperature="hot")),
    "seed -1": Case("/sample", 422, "out_of_range", "seed", line(seed=-1)),
    "seed 2^64": Case(
        "/sample", 422, "out_of_range", "seed", b'{"model":"line","seed":18446744073709551616}'
    ),
    "seed text": Case("/sample", 422, "invalid_parameter", "'x'", line(seed="x")),
    # Limits
    "body too large": Case(
        "/encode", 413, "too_large", "at most 50000 bytes", b" " * 50_001, headers={}
    ),
    "body too large, unannounced": Case(
        "/encode", 413, "too_large", "at most 50000 bytes", lambda: pieces(*[b" " * 10_000] * 6)
    ),
    "too many rows": Case(
        "/encode", 413, "too_large", "at most 1000 rows", line(x=[[1, 2, 3]] * 1001)
    ),
    # Media types
    "form": Case(
        "/encode",
        415,
        "unsupported_media_type",
        "expected application/json or",
        b"x=1",
        "application/x-www-form-urlencoded",
    ),
    "multipart": Case("/encode", 415, "unsupported_media_type", "form", b"", "multipart/form-data"),
    "latin-1": Case(
        "/encode",
        415,
        "unsupported_media_type",
        "UTF-8",
        b"{}",
        f"{JSON}; charset=latin-1",
    ),
    "gzip": Case(
        "/encode",
        415,
        "unsupported_media_type",
        "uncompressed",
        b"",
        headers={"Content-Encoding": "gzip"},
    ),
    "csv wanted": Case(
        "/sample",
        406,
        "not_acceptable",
        "answers with",
        line(),
        headers={"Accept": "text/csv"},
    ),
    "picture of a vector": Case(
        "/sample", 406, "not_acceptable", "application/x-npz", line(), headers={"Accept": PNG}
    ),
    "picture of a score": Case(
        "/log_prob",
        406,
        "not_acceptable",
        "image/png",
        {"model": "grey", "x": [[[[0] * 5] * 4]]},
        headers={"Accept": PNG},
    ),
    "scale without picture": Case(
        "/sample", 422, "invalid_parameter", "Accept: image/png", {"model": "grey", "scale": 2}
    ),
    "scale 17": Case(
        "/sample",
        422,
        "out_of_range",
        "1 .. 16",
        {"model": "grey", "scale": 17},
        headers={"Accept": PNG},
    ),
    "picture too large": Case(
        "/sample",
        413,
        "too_large",
        "image/png",
        {"model": "colour", "num_samples": 2, "scale": 16},
        headers={"Accept": PNG},
    ),
    # Query strings
    "field twice": Case(
        "/encode?model=line", 422, "invalid_parameter", "in the body", line(x=[[1, 2, 3]])
    ),
    "query twice": Case(
        "/sample?seed=1&seed=2", 422, "invalid_parameter", "given twice", b"", media=None
    ),
    "unknown query": Case(
        "/sample?modle=line", 422, "unknown_field", "did you mean 'model'", b"", media=None
    ),
    "tensor in the query": Case(
        "/encode?x=[[1,2,3]]", 422, "unknown_field", "'x'", {"model": "line"}
    ),
    "query no number": Case(
        "/sample?model=line&seed=abc", 422, "invalid_parameter", "'abc'", b"", media=None
    ),
    # Binary bodies
    "npy damaged": Case(
        "/encode?model=line", 400, "malformed_body", "announces", saved(np.ones((1, 3)))[:-1], NPY
    ),
    "npy pickled": Case(
        "/encode?model=line",
        415,
        "unsupported_media_type",
        "never read",
        saved(np.array([[{}]], object), allow_pickle=True),
        NPY,
    ),
    "npy complex": Case(
        "/encode?model=line", 422, "bad_dtype", "'<c16'", saved(np.ones((1, 3), complex)), NPY
    ),
    "npy NaN": Case(
        "/encode?model=line",
        422,
        "non_finite",
        "row 0 holds nan",
        saved(np.full((1, 3), np.nan, np.float32)),
        NPY,
    ),
    "npy of another shape": Case(
        "/encode?model=line", 422, "shape_mismatch", "got (1, 4)", saved(np.ones((1, 4))), NPY
    ),
    "npy for a draw": Case(
        "/sample?model=line", 415, "unsupported_media_type", "Content-Type", saved(np.ones(1)), NPY
    ),
    "npz damaged": Case("/encode?model=line", 400, "malformed_body", "npz", b"PK\x03\x04", NPZ),
    # Pictures
    "picture for a vector": Case(
        "/encode?model=line", 415, "unsupported_media_type", "takes no pictures", picture(), PNG
    ),
    "picture for latents": Case(
        "/decode?model=grey", 415, "unsupported_media_type", "Content-Type", picture(), PNG
    ),
    "picture of another size": Case(
        "/encode?model=grey",
        422,
        "shape_mismatch",
        "5 x 4 pixels (width x height), got 4 x 5",
        picture(size=(4, 5)),
        PNG,
    ),
    "picture with alpha": Case(
        "/encode?model=grey", 415, "unsupported_media_type", "alpha", picture("RGBA"), PNG
    ),
    "CMYK picture": Case(
        "/log_prob?model=colour",
        415,
        "unsupported_media_type",
        "CMYK",
        picture("CMYK", kind="JPEG"),
        JPEG,
    ),
    "damaged picture": Case(
        "/log_prob?model=grey", 400, "malformed_body", "PNG", picture()[:30], PNG
    ),
}

HOUSE = FakeRepository()
APP = app_over(HOUSE, **LIMITS)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_refused_with_a_reason_and_nothing_else_changes(case: Case) -> None:
    computed = sum(len(HOUSE.queue("line", op).calls) for op in ("encode", "decode"))
    answer = case.send(APP)
    assert answer.status_code == case.status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["code"], problem["status"]) == (case.code, case.status)
    assert case.message in problem["detail"]
    assert problem["error"] == problem["detail"]
    assert len(problem["detail"]) < 300
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert computed == sum(len(HOUSE.queue("line", op).calls) for op in ("encode", "decode"))

    control = post(APP, "/encode", json={"model": "line", "x": [[2, 4, 6]]})
    assert control.json()["z"] == [[1, 2, 3]]


def test_a_wrong_row_is_pointed_at() -> None:
    answer = post(APP, "/encode", json=line(x=[[1, 2, 3], [1, True, 3]]))
    (place,) = answer.json()["errors"]
    assert place["pointer"] == "/x/1"


@pytest.mark.parametrize(
    ("failure", "status", "retry_after"),
    [
        (Overloaded("the queue is full", retry_after=7), 429, "7"),
        (NotReady("draining", retry_after=2), 503, "2"),
        (DeadlineExceeded("too late"), 504, None),
        (EngineError("the engine failed"), 500, None),
        (TooLarge("more rows than the queue holds"), 413, None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_of_the_queue(failure: ServiceError, status: int, retry_after: str | None) -> None:
    house = FakeRepository()
    app = app_over(house)
    house.queue("line", "encode").failure = failure
    answer = post(app, "/log_prob", json=line(x=[[1, 2, 3]]))
    assert answer.status_code == status
    assert answer.json()["code"] == failure.code
    assert answer.headers.get("retry-after") == retry_after


async def _never(_: Any) -> None:
    raise AssertionError("nothing may be read or sent here")


def raw(app: Any, receive: Callable[[], Any], headers: dict[str, str]) -> Any:
    """Call the application without a client library, to see what it reads."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/encode",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(app(scope, receive, send))
    return sent


def test_an_announced_body_that_is_too_large_is_never_read() -> None:
    sent = raw(APP, lambda: _never(None), {"content-length": "50001"})
    assert sent[0]["status"] == 413


@pytest.mark.parametrize("length", ["-1", "1e3", "9" * 5000, "x"])
def test_unusable_content_lengths(length: str) -> None:
    sent = raw(APP, lambda: _never(None), {"content-length": length})
    assert sent[0]["status"] in (400, 413)


def test_an_endless_body_is_read_no_further_than_the_limit() -> None:
    read = 0

    async def receive() -> Any:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b" " * 1000, "more_body": True}

    assert raw(APP, receive, {})[0]["status"] == 413
    assert read == 51


def test_a_body_in_too_many_pieces_is_refused() -> None:
    read = 0

    async def receive() -> Any:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"", "more_body": True}

    assert raw(APP, receive, {})[0]["status"] == 413
    assert read <= 65_537


def test_a_body_in_many_pieces_is_joined() -> None:
    body = orjson.dumps(line(x=[[2, 4, 6]]))
    answer = post(
        APP,
        "/encode",
        content=pieces(*(bytes([byte]) for byte in body)),
        headers={"Content-Type": JSON},
    )
    assert answer.json()["z"] == [[1, 2, 3]]
