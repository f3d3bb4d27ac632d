"""A web server: its index is believed, ranges are used where it gives them, secrets are kept."""

import logging
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from service.remote.cache import CacheEntry
from service.remote.digests import key_of
from service.remote.fetch import FetchOptions, fetch
from service.remote.local_store import LocalStore
from service.remote.push import push
from service.remote.store import BadUri, ChangedError, RemoteFile, StoreError, open_store
from tests.service.remote.test_s3 import every

WEIGHTS = bytes(range(256)) * 100


class Quiet(SimpleHTTPRequestHandler):
    """Whole files, whatever range is asked for, to who shows the password and the signature."""

    def log_message(self, *told: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        # me:word
        is_known = self.headers.get("Authorization") == "Basic bWU6d29yZA=="
        if is_known and self.path.endswith("?sig=a1"):
            super().do_GET()
        else:
            self.send_error(403)


@pytest.fixture
def uri(tmp_path: Path) -> Iterator[str]:
    """Of a folder to which two versions of a model were pushed."""
    for version in ("1", "2"):
        folder = tmp_path / "mine" / "flow" / version
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(version)
        (folder / "model.safetensors").write_bytes(WEIGHTS * int(version))
    store = LocalStore(tmp_path / "there")
    push(tmp_path / "mine", store, timeout_seconds=5.0, force=False)
    handler = partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://me:word@127.0.0.1:{server.server_port}/there?sig=a1"
        finally:
            server.shutdown()
            thread.join()


def test_what_the_index_names_is_fetched(
    uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    status = fetch(uri, FetchOptions(tmp_path / "cache", 5.0, choose=every))
    assert status.is_ok, status
    assert status.uri.startswith("http://127.0.0.1:")
    assert status.uri.endswith("/there")
    assert not any(secret in caplog.text for secret in ("word", "sig="))
    link = CacheEntry.of(tmp_path / "cache", uri).link
    assert (link / "flow/2/model.safetensors").read_bytes() == WEIGHTS * 2
    assert (link / "flow/1/config.json").read_text() == "1"


def test_a_server_without_ranges_is_gone_on_with(uri: str, tmp_path: Path) -> None:
    entry = CacheEntry.of(tmp_path / "cache", uri)
    entry.folder.mkdir(parents=True)
    file = next(one for one in open_store(uri, 5.0).list() if one.path.endswith("tensors"))
    entry.blob(file).with_name(f"{key_of(file)}.partial").write_bytes(WEIGHTS[:1000])
    assert fetch(uri, FetchOptions(tmp_path / "cache", 5.0, choose=every)).is_ok
    assert (entry.link / file.path).stat().st_size == file.size


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("/there", "/nowhere"), "expected pushforward-index.json there"),
        (("?sig=a1", "?sig=b2"), "status 403"),
    ],
)
def test_what_it_refuses_is_told_without_secrets(
    change: tuple[str, str], said: str, uri: str, tmp_path: Path
) -> None:
    status = fetch(uri.replace(*change), FetchOptions(tmp_path / "cache", 5.0, choose=every))
    assert said in status.reason
    assert not any(secret in str(status) for secret in ("word", "sig="))


def test_a_file_that_is_not_that_of_the_index_is_refused(uri: str, tmp_path: Path) -> None:
    (tmp_path / "there" / "flow" / "2" / "model.safetensors").write_bytes(WEIGHTS[::-1] * 2)
    status = fetch(uri, FetchOptions(tmp_path / "cache", 5.0, choose=every))
    assert "flow/2/model.safetensors: expected the SHA-256" in status.reason
    (tmp_path / "there" / "flow" / "2" / "model.safetensors").unlink()
    gone = fetch(uri, FetchOptions(tmp_path / "cache", 5.0, choose=every))
    assert "the index names it, and it is not there" in gone.reason
    assert [one.path for one in gone.held_back] == ["flow/2"]


class Told(BaseHTTPRequestHandler):
    """One answer, which is told: its status, its head, and the parts of its body, far apart."""

    protocol_version = "HTTP/1.1"
    status = 200
    head: ClassVar[dict[str, str]] = {}
    parts: ClassVar[list[bytes]] = []
    goes_on: ClassVar[threading.Event] = threading.Event()

    def log_message(self, *told: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.send_response(self.status)
        for name, value in {**self.head, "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        for number, part in enumerate(self.parts):
            if number:
                self.goes_on.wait(20)
            self.wfile.write(part)
            self.wfile.flush()


@pytest.fixture(scope="module")
def told_uri() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Told) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


FILE = RemoteFile("config.json", 10)


def answers(
    monkeypatch: pytest.MonkeyPatch, status: int, head: dict[str, str], *parts: bytes
) -> None:
    for name, value in {"status": status, "head": head, "parts": parts}.items():
        monkeypatch.setattr(Told, name, value)
    monkeypatch.setattr(Told, "goes_on", threading.Event())


@pytest.mark.parametrize(
    ("start", "status", "head", "error", "said"),
    [
        (0, 200, {"Content-Length": "7"}, StoreError, "expected 10 bytes, the server has 7"),
        (4, 200, {"Content-Length": "7"}, StoreError, "expected 10 bytes, the server has 7"),
        (4, 206, {"Content-Range": "bytes 0-6/10"}, StoreError, "from 4 on, got others"),
        (4, 206, {"Content-Range": "bytes 4-10/11"}, StoreError, "10 bytes, the server has 11"),
        (4, 206, {}, StoreError, "from 4 on, got others"),
        (
            *(4, 206, {"Content-Range": "bytes 4-9/10", "Content-Encoding": "gzip"}),
            *(ChangedError, "compressed"),
        ),
        (4, 416, {}, ChangedError, "was changed while it was read"),
    ],
)
def test_nothing_is_taken_of_what_is_another_file(
    start: int,
    status: int,
    head: dict[str, str],
    error: type[StoreError],
    said: str,
    told_uri: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers(monkeypatch, status, head, b"<html>!")
    with pytest.raises(StoreError, match=said) as raised:
        next(open_store(told_uri, 5.0).read(FILE, start))
    assert raised.type is error


@pytest.mark.parametrize(
    ("start", "status", "head", "body"),
    [
        (0, 200, {"Content-Length": "10"}, b"0123456789"),
        (0, 200, {}, b"0123456789"),
        (4, 200, {"Content-Length": "10"}, b"0123456789"),
        (4, 206, {"Content-Range": "bytes 4-9/10", "Content-Length": "6"}, b"456789"),
        (4, 206, {"Content-Range": "bytes 4-9/*"}, b"456789"),
    ],
)
def test_the_file_is_taken_from_a_byte_on(
    start: int,
    status: int,
    head: dict[str, str],
    body: bytes,
    told_uri: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers(monkeypatch, status, head, body)
    assert b"".join(open_store(told_uri, 5.0).read(FILE, start)) == b"0123456789"[start:]


def test_what_comes_slowly_is_taken_as_it_comes(
    told_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, 200, {"Content-Length": "10"}, b"012", b"3456789")
    parts = open_store(told_uri, 5.0).read(FILE, 0)
    assert next(parts) == b"012"
    Told.goes_on.set()
    assert b"".join(parts) == b"3456789"


def test_what_comes_fast_is_taken_in_large_parts(
    told_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytes(4 * 2**20)
    answers(monkeypatch, 200, {}, content)
    parts = [*open_store(told_uri, 5.0).read(FILE._replace(size=len(content)), 0)]
    assert b"".join(parts) == content
    assert len(parts) < 32, "a part is 64 kB where none are joined"


def test_a_host_that_refuses_is_told_in_one_line() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and nobody listens
        uri = f"http://me:word@127.0.0.1:{bound.getsockname()[1]}/m?sig=a1"
        with pytest.raises(StoreError, match=r"^config\.json cannot be read: ") as raised:
            next(open_store(uri, 5.0).read(FILE, 0))
    assert not any(secret in str(raised.value) for secret in ("word", "sig"))


def test_an_address_that_cannot_be_is_told() -> None:
    with pytest.raises(BadUri, match=r"config\.json: "):
        next(open_store("http://host\x00/m", 5.0).read(FILE, 0))
