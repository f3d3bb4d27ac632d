"""File systems of fsspec: reached in time or not at all, and read in ranges."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from service.remote.cache import CacheEntry
from service.remote.fetch import FetchOptions, fetch
from service.remote.store import FIRST_RANGE_BYTES, RemoteFile, StoreError, open_store

CONTENT = bytes(range(256)) * (FIRST_RANGE_BYTES // 64)


@pytest.fixture
def file() -> Iterator[RemoteFile]:
    system = fsspec.filesystem("memory")
    system.pipe("/bucket/model.safetensors", CONTENT)
    yield RemoteFile("model.safetensors", len(CONTENT))
    system.rm("/bucket", recursive=True)


def test_a_host_that_refuses_is_not_the_cache(tmp_path: Path) -> None:
    status = fetch("ftp://127.0.0.1:1/models", FetchOptions(tmp_path, 5.0))
    assert status.reason.startswith("cannot be reached: ")
    assert status.reason.endswith("Connection refused")


def test_a_host_that_says_nothing_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    monkeypatch.setattr("fsspec.core.url_to_fs", lambda *_, **__: released.wait(20))
    try:
        status = fetch("sftp://host/models", FetchOptions(tmp_path, 0.1))
    finally:
        released.set()
    assert status.reason == "cannot be reached: no answer within 0.1 s"
    assert not CacheEntry.of(tmp_path, "sftp://host/models").is_filled


def test_ranges_grow_and_none_is_larger_than_was_asked_for(
    file: RemoteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = MemoryFileSystem.cat_file
    asked: list[int] = []
    added = b""

    def cat_file(self: MemoryFileSystem, path: str, start: int, end: int) -> Any:
        asked.append(end - start)
        return read(self, path, start, end) + added

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    store = open_store("memory://bucket", 60.0)
    assert b"".join(store.read(file, 0)) == CONTENT
    assert asked == [FIRST_RANGE_BYTES, 2 * FIRST_RANGE_BYTES, FIRST_RANGE_BYTES]
    added = b"!"
    with pytest.raises(StoreError, match="expected 10 bytes, got 11"):
        next(store.read(file, len(CONTENT) - 10))


def test_each_look_connects_anew() -> None:
    """A connection that was lost is not used again."""
    made = []

    class Counted(MemoryFileSystem):
        protocol = "counted"

        def __init__(self, **options: object) -> None:
            made.append(options)
            super().__init__()

    fsspec.register_implementation("counted", Counted, clobber=True)
    for _ in range(3):
        open_store("counted://host/models", 5.0)
    assert len(made) == 3
