"""The folder of one URI in the cache: its blobs, its snapshots, and what is thrown away."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from service.remote.cache import CacheEntry, CacheState
from service.remote.digests import git_sha1, is_damaged, key_of
from service.remote.store import RemoteFile


@pytest.fixture
def entry(tmp_path: Path) -> CacheEntry:
    entry = CacheEntry.of(tmp_path, "memory://bucket/models")
    entry.folder.mkdir()
    return entry


def put(entry: CacheEntry, path: str, content: bytes) -> RemoteFile:
    """A file whose content is in the cache."""
    file = RemoteFile(path, len(content), "", hashlib.sha256(content).hexdigest())
    entry.blob(file).write_bytes(content)
    return file


def publish(entry: CacheEntry, state: CacheState, *files: RemoteFile) -> CacheState:
    return entry.publish({file.path: key_of(file) for file in files}, state)


def test_the_snapshot_before_is_kept_and_no_other(entry: CacheEntry) -> None:
    state, snapshots = CacheState(), []
    for content in (b"1", b"2", b"3", b"4"):
        state = publish(entry, state, put(entry, "config.json", content))
        snapshots.append(entry.link.resolve())
    assert {*(entry.folder / ".snapshots").iterdir()} == {*snapshots[-2:]}
    kept = {(one / "config.json").read_bytes() for one in snapshots[-2:]}
    assert kept == {path.read_bytes() for path in (entry.folder / ".blobs").iterdir()}
    assert kept == {b"3", b"4"}


def test_what_is_being_copied_is_kept_for_a_week(entry: CacheEntry) -> None:
    fresh, stale = (entry.blob_of(f"{name}.partial") for name in ("fresh", "stale"))
    for path in (fresh, stale):
        path.write_bytes(b"a part")
    week = time.time() - 8 * 86_400
    os.utime(stale, (week, week))
    publish(entry, CacheState(), put(entry, "config.json", b"{}"))
    assert fresh.exists()
    assert not stale.exists()


def test_a_link_that_leads_there_already_is_left(entry: CacheEntry) -> None:
    file = put(entry, "config.json", b"{}")
    state = publish(entry, CacheState(), file)
    before = entry.link.lstat()
    publish(entry, state, file)
    after = entry.link.lstat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_without_hard_links_files_are_copied(
    entry: CacheEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    file = put(entry, "1/config.json", b"{}")
    os.utime(entry.blob(file), (1, 1))
    state = publish(entry, CacheState(), file)
    copied = entry.link / "1" / "config.json"
    before = copied.stat()
    assert (copied.read_bytes(), before.st_nlink, before.st_mtime) == (b"{}", 1, 1)
    publish(entry, state, file)
    assert copied.stat().st_ino == before.st_ino, "a copy that is right is left"
    copied.write_bytes(b"damaged")
    publish(entry, state, file)
    assert copied.read_bytes() == b"{}"


def test_a_snapshot_takes_what_was_copied_anew(entry: CacheEntry) -> None:
    files = [put(entry, "config.json", b"{}"), put(entry, "README.md", b"words")]
    state = publish(entry, CacheState(), *files)
    served = entry.link / "config.json"
    served.write_bytes(b"[]")
    (entry.link / "README.md").unlink()
    assert entry.discard_damaged() == [files[0].sha256]
    put(entry, "config.json", b"{}")
    publish(entry, state, *files)
    assert served.read_bytes() == b"{}"
    assert (entry.link / "README.md").read_bytes() == b"words"


def test_a_file_without_all_its_bytes_is_not_there(entry: CacheEntry) -> None:
    file = put(entry, "config.json", b"{}")
    assert entry.holds(file)
    entry.blob(file).write_bytes(b"")
    assert not entry.holds(file)
    entry.blob(file).unlink()
    assert not entry.holds(file)


def test_what_is_known_by_its_digest_can_be_damaged(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"{}")
    file = RemoteFile("config.json", 2, "tag")
    digests = (
        file._replace(sha256=hashlib.sha256(b"{}").hexdigest()),
        file._replace(git_sha1=git_sha1(path)),
    )
    keys = [key_of(one) for one in (file, *digests)]
    assert [is_damaged(path, key) for key in keys] == [False, False, False]
    path.write_bytes(b"[]")
    assert [is_damaged(path, key) for key in keys] == [False, True, True]
    assert len(set(keys)) == 3
