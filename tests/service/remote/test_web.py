"""A web server: its index is believed, ranges are used where it gives them, secrets are kept."""

import logging
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from service.remote.cache import CacheEntry, key_of
from service.remote.fetch import FetchOptions, fetch
from service.remote.local_store import LocalStore
from service.remote.push import push
from service.remote.store import open_store
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
