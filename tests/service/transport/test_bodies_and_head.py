"""HEAD: what GET would say of itself, without its body; and bodies that every route waits for."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from service.transport.request import ClientGone, ReceiveBudget, receive_body
from tests.service.fake_repository import FakeRepository, app_over, ask, pieces, post
from tests.service.transport.loopback import BODY, LoopbackServer, read, request, run

PATHS = (
    *("/", "/ui", "/docs", "/openapi.json", "/metrics", "/models", "/models/line"),
    *("/health", "/health/live", "/health/ready", "/v2", "/v2/health/live", "/v2/models/line"),
)


@pytest.mark.parametrize("path", PATHS)
def test_head_has_the_headers_of_get_and_no_body(path: str) -> None:
    app = app_over(FakeRepository())
    full, head = ask(app, "GET", path), ask(app, "HEAD", path)
    assert head.status_code == full.status_code
    assert head.content == b""
    shown = {"content-type", "content-length", "location"} - (
        {"content-length"} if path == "/metrics" else set()
    )
    assert {name: head.headers.get(name) for name in shown} == {
        name: full.headers.get(name) for name in shown
    }


def test_head_is_counted_and_refused_as_get_is() -> None:
    repository = FakeRepository()
    repository.is_ready = False
    app = app_over(repository)
    assert ask(app, "HEAD", "/health/ready").status_code == 503
    assert ask(app, "HEAD", "/nowhere").status_code == 404
    refused = ask(app, "HEAD", "/encode")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    guarded = app_over(repository, api_keys=("a-key-of-16-characters",))
    assert ask(guarded, "HEAD", "/metrics").status_code == 401


def test_a_connection_goes_on_after_head() -> None:
    async def play() -> None:
        async with LoopbackServer().client() as (reader, writer):
            writer.write(request("/models", b"", method="HEAD") + request())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert b"content-length: 0" not in head
            assert (await read(reader)).status == 200

    run(play)


ROUTES = (
    *("/encode", "/v2/models/line/infer", "/v2/repository/index"),
    *("/v2/repository/models/line/load", "/v2/repository/models/line/unload"),
)


@pytest.mark.parametrize("kept", [0, 5], ids=["nothing", "a_part"])
@pytest.mark.parametrize("path", ROUTES)
def test_a_body_that_does_not_come_is_408_on_every_route(path: str, kept: int) -> None:
    data = request(path, BODY)

    async def play() -> None:
        loopback = LoopbackServer(request_timeout_seconds=0.1, enable_model_control=True)
        async with loopback.client() as (reader, writer):
            writer.write(data[: len(data) - len(BODY) + kept])
            answer = await read(reader)
            # What would come then is the rest of the body, or is it the next request?
            assert answer.headers["connection"] == "close"
            writer.write(data[len(data) - len(BODY) + kept :] + request())
            assert await reader.read() == b""
        assert (answer.status, answer.json()["code"]) == (408, "body_timeout")
        assert loopback.all == 1
        assert not any("line" in event for event in loopback.repository.history)

    run(play)


EARLY = {
    "too_large": (request(Content_Length="999999999"), 413),
    "too_large_asks_first": (request(Content_Length="999999999", Expect="100-continue"), 413),
    "no_such_path": (request("/nowhere"), 404),
    "no_such_method": (request("/health/live"), 405),
}


@pytest.mark.parametrize(("data", "status"), EARLY.values(), ids=EARLY)
def test_an_answer_before_the_end_of_a_body_is_the_last(data: bytes, status: int) -> None:
    async def play() -> None:
        async with LoopbackServer().client() as (reader, writer):
            writer.write(data[: 1 - len(BODY)])
            answer = await read(reader)
            assert answer.status == status
            assert answer.headers["connection"] == "close"
            assert await reader.read() == b"", "it is not waited for without end"

    run(play)


def test_the_client_says_how_long_a_body_of_control_may_take() -> None:
    data = request("/v2/repository/index", b"{}", X_Timeout_Seconds="0.1")

    async def play() -> None:
        async with LoopbackServer().client() as (reader, writer):
            writer.write(data[:-1])
            assert (await read(reader)).status == 408

    run(play)


@pytest.mark.parametrize("length", ["0", "2", "200"])
@pytest.mark.parametrize("path", ["/encode", "/v2/models/line/infer", "/v2/repository/index"])
def test_a_body_is_as_long_as_it_says_whoever_brings_it(path: str, length: str) -> None:
    headers = [(b"content-length", length.encode()), (b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
    }
    coming = [{"type": "http.request", "body": BODY, "more_body": False}]
    sent = []

    async def receive() -> dict[str, object]:
        if not coming:
            await asyncio.Event().wait()
        return coming.pop()

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    asyncio.run(app_over(FakeRepository())(scope, receive, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 400
    assert b"malformed_body" in sent[1]["body"]  # type: ignore[operator]
    assert f"announces {length} bytes, got {len(BODY)}".encode() in sent[1]["body"]  # type: ignore[operator]


@pytest.mark.parametrize("pieces", [0, 1, 3])
def test_a_client_that_leaves_within_its_body_is_gone(pieces: int) -> None:
    coming = [{"type": "http.request", "body": b"{}", "more_body": True}] * pieces
    coming.append({"type": "http.disconnect"})

    async def receive() -> dict[str, object]:
        return coming.pop(0)

    with pytest.raises(ClientGone):
        asyncio.run(receive_body({}, receive, 1000, ReceiveBudget(1000)))
    assert coming == []


# Bodies that are not read, or not whole


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
    sent = raw(
        app_over(FakeRepository(), max_body_bytes=50_000),
        lambda: _never(None),
        {"content-length": "50001"},
    )
    assert sent[0]["status"] == 413


@pytest.mark.parametrize("length", ["-1", "1e3", "9" * 5000, "x"])
def test_unusable_content_lengths(length: str) -> None:
    sent = raw(
        app_over(FakeRepository(), max_body_bytes=50_000),
        lambda: _never(None),
        {"content-length": length},
    )
    assert sent[0]["status"] in (400, 413)


def test_an_endless_body_is_read_no_further_than_the_limit() -> None:
    read = 0

    async def receive() -> Any:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b" " * 1000, "more_body": True}

    assert raw(app_over(FakeRepository(), max_body_bytes=50_000), receive, {})[0]["status"] == 413
    assert read == 51


def test_a_body_in_too_many_pieces_is_refused() -> None:
    read = 0

    async def receive() -> Any:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"", "more_body": True}

    assert raw(app_over(FakeRepository(), max_body_bytes=50_000), receive, {})[0]["status"] == 413
    assert read <= 65_537


def test_a_body_in_many_pieces_is_joined() -> None:
    body = BODY
    answer = post(
        app_over(FakeRepository(), max_body_bytes=50_000),
        "/encode",
        content=pieces(*(bytes([byte]) for byte in body)),
        headers={"Content-Type": "application/json"},
    )
    assert answer.json()["z"] == [[1, 2, 3]]
