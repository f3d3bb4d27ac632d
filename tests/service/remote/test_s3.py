"""S3: models are pushed, listed and fetched; what fails on the way leaves the version before."""

import os
import time
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import obstore
import pytest
from moto.server import ThreadedMotoServer

from service.remote.cache import CacheEntry
from service.remote.fetch import FetchOptions, fetch
from service.remote.index import INDEX_FILE
from service.remote.push import push
from service.remote.store import FIRST_RANGE_BYTES, BadUri, open_store
from service.remote.transfer import copy_file
from tests.service.remote.s3_server import BUCKET, FAULTS, Bucket, loses_connection, s3_server

URI = f"s3://{BUCKET}/models"
WEIGHTS = bytes(range(256)) * 400


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "moons"
    folder.mkdir()
    (folder / "config.json").write_bytes(b"{}")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "notes.txt").write_bytes(b"mine")
    return folder


def every(folder: str, settings: Path | None, found: Collection[int]) -> Collection[int]:
    """Copy all versions."""
    return found


def upload(folder: Path, uri: str, *, force: bool = False) -> bool:
    (done,) = push(folder, open_store(uri, 5.0), timeout_seconds=5.0, force=force)
    return done.is_new


def held(cache: Path, uri: str = URI) -> dict[str, bytes]:
    link = CacheEntry.of(cache, uri).link
    found = (path for path in link.rglob("*") if path.is_file())
    return {path.relative_to(link).as_posix(): path.read_bytes() for path in found}


@contextmanager
def moto() -> Iterator[Bucket]:
    """A bucket of moto's server."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    httpx.put(f"{url}/{BUCKET}").raise_for_status()
    try:
        yield Bucket(url)
    finally:
        server.stop()


@pytest.mark.parametrize("kind", ["own", "moto"])
def test_what_is_pushed_is_fetched(
    kind: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server() if kind == "own" else moto() as found:
        for name, value in found.variables.items():
            monkeypatch.setenv(name, value)
        assert upload(model, f"{URI}/moons/1")
        assert not upload(model, f"{URI}/moons/1")
        (model / "config.json").write_bytes(b'{"": 2}')
        with pytest.raises(BadUri, match="another model lies there"):
            upload(model, f"{URI}/moons/1")
        with pytest.raises(BadUri, match="versions of a model lie there"):
            upload(model, f"{URI}/moons")
        assert upload(model, f"{URI}/moons/2")
        status = fetch(URI, FetchOptions(tmp_path / "cache", 5.0, choose=every))
        assert status.is_ok, status
        expected = {"moons/1/config.json": b"{}", "moons/2/config.json": b'{"": 2}'}
        weights = dict.fromkeys(("moons/1/model.safetensors", "moons/2/model.safetensors"), WEIGHTS)
        assert held(tmp_path / "cache") == expected | weights
        with pytest.raises(BadUri, match="NoSuchBucket"):
            open_store("s3://other/models", 5.0).list()


def test_the_index_comes_last_and_what_is_replaced_goes(bucket: Bucket, model: Path) -> None:
    (model / "calibration.json").write_bytes(b"{}")
    upload(model, f"{URI}/moons")
    (model / "calibration.json").unlink()
    (model / "config.json").write_bytes(b'{"": 2}')
    bucket.requests.clear()
    assert upload(model, f"{URI}/moons", force=True)
    written = [(kind, key.rpartition("/")[2]) for kind, key in bucket.requests if kind != "GET"]
    assert written == [
        ("PUT", INDEX_FILE),  # that fits nothing yet
        *(("PUT", "model.safetensors"), ("PUT", "config.json"), ("PUT", INDEX_FILE)),
        ("DELETE", "calibration.json"),
    ]


@pytest.mark.parametrize(("fault", "said"), FAULTS)
def test_what_fails_leaves_the_version_before(
    fault: object, said: str, bucket: Bucket, tmp_path: Path
) -> None:
    options = FetchOptions(tmp_path, 0.3, choose=every)
    first = {"flow/1/config.json": b"{}", "flow/1/model.safetensors": b"one"}
    second = {"flow/2/config.json": b"{}", "flow/2/model.safetensors": WEIGHTS}
    bucket.objects |= {f"models/{path}": content for path, content in first.items()}
    assert fetch(URI, options).is_ok
    bucket.objects |= {f"models/{path}": content for path, content in second.items()}
    bucket.fault = fault  # type: ignore[assignment]
    began = time.monotonic()
    failed = fetch(URI, options)
    assert time.monotonic() - began < 10
    assert not failed.is_ok
    assert failed.reason.startswith("flow/2/model.safetensors")
    assert said in failed.reason
    assert held(tmp_path) == first
    bucket.fault = lambda *_: False
    bucket.objects["models/flow/2/model.safetensors"] = WEIGHTS
    assert fetch(URI, options).is_ok
    assert held(tmp_path) == first | second


def test_a_connection_that_is_lost_is_gone_on_with(bucket: Bucket, tmp_path: Path) -> None:
    """Each time a third of what is left comes: in parts, all of it."""
    bucket.objects = {"models/2/config.json": b"{}", "models/2/model.safetensors": WEIGHTS}
    losses = []

    def once(*given: object) -> bool:
        is_lost = len(losses) < 2 and loses_connection(*given)  # type: ignore[arg-type]
        losses.extend([True] * is_lost)
        return is_lost

    bucket.fault = once
    assert fetch(URI, FetchOptions(tmp_path, 5.0, choose=every)).is_ok
    assert len(losses) == 2
    assert held(tmp_path)["2/model.safetensors"] == WEIGHTS


@pytest.mark.parametrize(
    "keys",
    [
        ["moons//x"],
        ["../evil/config.json", "./config.json", "/etc/config.json"],
        ["moons/1/../../../../tmp/config.json"],
        ["moons/1//x", "moons/2/deep/er//x"],
        ["na me/config.json", "%2e%2e/config.json", "moons/", "", "moons/config.json/x"],
    ],
)
def test_keys_that_are_no_paths_are_left_alone(
    keys: list[str], bucket: Bucket, tmp_path: Path
) -> None:
    model = {"moons/1/config.json": b"{}", "moons/2/config.json": b"{ }", "a/config.json": b"a"}
    bucket.objects |= {f"models/{path}": content for path, content in model.items()}
    bucket.objects |= {f"models/{key}": b"{}" for key in keys}
    status = fetch(URI, FetchOptions(tmp_path, 5.0, choose=every))
    assert status.is_ok, status
    assert held(tmp_path) == model


def test_a_large_object_is_read_in_ranges_that_grow(bucket: Bucket, tmp_path: Path) -> None:
    weights = os.urandom(4 * FIRST_RANGE_BYTES)
    bucket.objects |= {"models/config.json": b"{}", "models/model.safetensors": weights}
    assert fetch(URI, FetchOptions(tmp_path, 60.0)).is_ok
    assert held(tmp_path)["model.safetensors"] == weights
    assert bucket.requests.count(("GET", "models/model.safetensors")) == 3


def test_no_credentials_are_told_of(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.objects["models/config.json"] = b"{}"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    (found,) = open_store(URI, 5.0).list()
    assert found.path == "config.json"


def test_of_a_file_that_is_copied_one_part_is_in_memory(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Part(bytearray):
        """Can be watched."""

    parts: list[weakref.ref[Part]] = []
    get = obstore.get

    def watched(*asked: Any, **options: Any) -> Any:
        assert [one for one in parts if one() is not None] == []
        part = Part(get(*asked, **options).bytes())
        parts.append(weakref.ref(part))
        # It is held by who is given it alone.
        return SimpleNamespace(bytes=iter([part]).__next__)

    monkeypatch.setattr(obstore, "get", watched)
    content = bytes(range(256)) * (FIRST_RANGE_BYTES // 64)
    bucket.objects["models/flow/config.json"] = content
    store = open_store(URI, 5.0)
    copy_file(store, store.list()[0], tmp_path / "copy", 5.0, lambda: None)
    assert (tmp_path / "copy").read_bytes() == content
    assert len(parts) == 3
