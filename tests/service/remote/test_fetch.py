"""The cache of what is behind URIs: whole or not at all, resumed, shared, and without a network."""

import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from service.contracts import SourceStatus
from service.remote.cache import CacheEntry, name_of_uri
from service.remote.digests import key_of
from service.remote.fetch import FetchOptions, fetch
from service.remote.index import INDEX_FILE, IndexEntry, write_index
from service.remote.store import BadUri, StoreError, open_store
from tests.service.remote.test_s3 import every

URI = "memory://bucket/models"
MODEL = {"moons/config.json": b"{}", "moons/model.safetensors": b"weights" * 1000}


@pytest.fixture
def bucket() -> Iterator[MemoryFileSystem]:
    system = fsspec.filesystem("memory")
    put(system, MODEL)
    yield system
    system.rm("/bucket", recursive=True)


def put(system: MemoryFileSystem, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        system.pipe(f"/bucket/models/{path}", content)


def options(folder: Path, *, is_offline: bool = False) -> FetchOptions:
    return FetchOptions(folder / "cache", 5.0, is_offline, every)


def get(folder: Path, **given: bool) -> SourceStatus:
    return fetch(URI, options(folder, **given))


def held(folder: Path) -> dict[str, bytes]:
    """What the cache serves of the URI."""
    link = CacheEntry.of(folder / "cache", URI).link
    found = (path for path in link.rglob("*") if path.is_file())
    return {path.relative_to(link).as_posix(): path.read_bytes() for path in found}


def test_models_are_copied_and_nothing_else(bucket: MemoryFileSystem, tmp_path: Path) -> None:
    put(bucket, {"moons/run.py": b"evil", ".git/config.json": b"", "a/b/c/config.json": b""})
    assert get(tmp_path).is_ok
    assert held(tmp_path) == MODEL


def test_a_change_is_a_new_snapshot_with_the_other_files_as_they_were(
    bucket: MemoryFileSystem, tmp_path: Path
) -> None:
    get(tmp_path)
    link = CacheEntry.of(tmp_path / "cache", URI).link
    before = link.resolve(), (link / "moons/model.safetensors").stat()
    assert get(tmp_path).is_ok
    assert link.resolve() == before[0]
    for content in (b"{ }", b"{  }", b"{   }"):
        put(bucket, {"moons/config.json": content})
        assert get(tmp_path).is_ok
    after = (link / "moons/model.safetensors").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before[1].st_ino, before[1].st_mtime_ns)
    assert held(tmp_path)["moons/config.json"] == b"{   }"
    snapshots = list((link.parent / ".snapshots").iterdir())
    blobs = list((link.parent / ".blobs").iterdir())
    assert (len(snapshots), len(blobs)) == (2, 3), "what nobody needs any more is removed"


def test_a_wrong_digest_leaves_what_there_was(bucket: MemoryFileSystem, tmp_path: Path) -> None:
    get(tmp_path)
    weights = b"other weights"
    entry = IndexEntry("config.json", 2, hashlib.sha256(b"{}").hexdigest())
    wrong = IndexEntry("model.safetensors", len(weights), "0" * 64)
    put(bucket, {"moons/model.safetensors": weights})
    put(bucket, {f"moons/{INDEX_FILE}": write_index([entry, wrong])})
    failed = get(tmp_path)
    assert not failed.is_ok
    assert failed.reason.startswith("moons/model.safetensors: expected the SHA-256 000")
    assert held(tmp_path) == MODEL
    right = wrong._replace(sha256=hashlib.sha256(weights).hexdigest())
    put(bucket, {f"moons/{INDEX_FILE}": write_index([entry, right])})
    again = get(tmp_path)
    assert (again.is_ok, again.reason, again.since >= failed.since) == (True, "", True)
    assert held(tmp_path)["moons/model.safetensors"] == weights


def test_a_change_while_it_is_read_leaves_what_there_was(
    bucket: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get(tmp_path)
    put(bucket, {"moons/config.json": b"{1}", "moons/model.safetensors": b"weights 1"})
    read = MemoryFileSystem.cat_file

    def cat_file(self: MemoryFileSystem, path: str, *rest: object, **named: object) -> bytes:
        content: bytes = read(self, path, *rest, **named)
        put(bucket, {"moons/config.json": b"{2}"})
        return content

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    assert "was changed while the others were read" in get(tmp_path).reason
    assert held(tmp_path) == MODEL


def test_an_interrupted_copy_is_gone_on_with(
    bucket: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = (one for one in open_store(URI, 5.0).list() if one.path.endswith("tensors"))
    entry = CacheEntry.of(tmp_path / "cache", URI)
    entry.folder.mkdir(parents=True)
    entry.blob(file).with_name(f"{key_of(file)}.partial").write_bytes(MODEL[file.path][:3000])
    starts = []
    read = MemoryFileSystem.cat_file

    def cat_file(self: MemoryFileSystem, path: str, start: int, end: int) -> bytes:
        starts.append((path.rpartition("/")[2], start))
        content: bytes = read(self, path, start, end)
        return content

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    assert get(tmp_path).is_ok
    assert ("model.safetensors", 3000) in starts
    assert held(tmp_path) == MODEL


def test_processes_that_share_a_cache_copy_once(
    bucket: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = []
    read = MemoryFileSystem.cat_file

    def cat_file(self: MemoryFileSystem, path: str, *rest: object, **named: object) -> bytes:
        paths.append(path)
        content: bytes = read(self, path, *rest, **named)
        return content

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    threads = [threading.Thread(target=get, args=(tmp_path,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(paths) == sorted(f"/bucket/models/{path}" for path in MODEL)
    assert held(tmp_path) == MODEL


def test_another_look_within_the_time_asks_nobody(bucket: MemoryFileSystem, tmp_path: Path) -> None:
    get(tmp_path)
    put(bucket, {"moons/config.json": b"{ }"})
    assert fetch(URI, options(tmp_path), max_age_seconds=60).is_ok
    assert held(tmp_path) == MODEL


def test_without_a_network_the_cache_is_served(bucket: MemoryFileSystem, tmp_path: Path) -> None:
    refused = get(tmp_path, is_offline=True)
    assert not refused.is_ok
    assert "--offline: it is not in the cache" in refused.reason
    get(tmp_path)
    put(bucket, {"moons/config.json": b"{ }"})
    assert get(tmp_path, is_offline=True).is_ok
    assert held(tmp_path) == MODEL


def test_a_disk_that_is_too_small_is_told(
    bucket: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    assert "free bytes, there are 100" in get(tmp_path).reason
    assert held(tmp_path) == {}


def test_an_upload_that_stalls_ends(
    bucket: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_bytes(b"{}")
    released = threading.Event()
    monkeypatch.setattr(MemoryFile, "write", lambda *_: released.wait(5))
    try:
        with pytest.raises(StoreError, match=r"config.json cannot be written: no answer within"):
            open_store(URI, 0.05).upload([("config.json", tmp_path / "config.json")], [])
    finally:
        released.set()


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("s3://bucket/models/moons", "moons"),
        ("s3://bucket/models/moons/", "moons"),
        ("s3://bucket", "bucket"),
        ("hf://org/flow@v1.0", "flow"),
        ("hf://org/flow@v1.0/moons", "moons"),
        ("https://user:word@host:8443/a/moons?key=1", "moons"),
        ("https://me:word@host:8443", "host"),
    ],
)
def test_a_model_is_called_as_its_uri_ends(uri: str, name: str) -> None:
    assert name_of_uri(uri) == name


@pytest.mark.parametrize(
    ("uri", "other", "is_same"),
    [
        ("https://me:word@host/m?sig=a", "https://me:other@host/m/?sig=b", True),
        ("https://me:word@host/m", "https://you:word@host/m", False),
        ("s3://bucket/m", "s3://bucket/m/", True),
        ("abfs://one@account/m", "abfs://two@account/m", False),
        ("github://me:one@main/m", "github://me:two@main/m", False),
        ("hf://org/flow@v1", "hf://org/flow@v2", False),
    ],
)
def test_another_password_or_signature_finds_what_was_fetched(
    uri: str, other: str, is_same: bool, tmp_path: Path
) -> None:
    folders = {CacheEntry.of(tmp_path, one).folder for one in (uri, other)}
    assert len(folders) == 2 - is_same


@pytest.mark.parametrize("uri", ["s3://", "s3://bucket/.."])
def test_a_uri_without_a_name_is_refused(uri: str) -> None:
    with pytest.raises(BadUri):
        name_of_uri(uri)


@pytest.mark.parametrize(("content", "verify"), [(b"", False), (b"WEIGHTS" * 1000, True)])
def test_what_is_damaged_in_the_cache_is_copied_anew(
    content: bytes, verify: bool, bucket: MemoryFileSystem, tmp_path: Path
) -> None:
    entries = [
        IndexEntry(path.rpartition("/")[2], len(data), hashlib.sha256(data).hexdigest())
        for path, data in MODEL.items()
    ]
    put(bucket, {f"moons/{INDEX_FILE}": write_index(entries)})
    get(tmp_path)
    weights = CacheEntry.of(tmp_path / "cache", URI).link / "moons/model.safetensors"
    weights.write_bytes(content)
    assert fetch(URI, options(tmp_path), verify=verify).is_ok
    assert held(tmp_path) == MODEL


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("at_fault", ["service.remote.cache.write_file", "filelock.FileLock"])
def test_on_a_full_disk_what_was_fetched_is_served(
    at_fault: str, bucket: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get(tmp_path)
    monkeypatch.setattr(at_fault, full_disk)
    failed = get(tmp_path)
    assert not failed.is_ok
    assert "No space left on device" in failed.reason
    assert held(tmp_path) == MODEL


def test_a_cache_that_holds_nothing_and_cannot_be_written_is_told(
    bucket: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("filelock.FileLock", full_disk)
    with pytest.raises(StoreError, match="cannot be written: No space left on device; name"):
        get(tmp_path)


def test_who_looks_now_and_then_waits_for_no_other(
    bucket: MemoryFileSystem, tmp_path: Path
) -> None:
    get(tmp_path)
    found: list[SourceStatus] = []

    def look() -> None:
        found.append(fetch(URI, options(tmp_path), max_age_seconds=1e-9))

    with CacheEntry.of(tmp_path / "cache", URI).locked(wait=True):
        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        thread.join(5)
        assert [status.is_ok for status in found] == [True]
