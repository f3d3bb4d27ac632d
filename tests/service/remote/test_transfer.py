"""One file from a store: gone on with, begun again where it is another one, and bounded in time."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from service.remote.digests import WrongContent, git_sha1
from service.remote.local_store import LocalStore
from service.remote.store import (
    FIRST_RANGE_BYTES,
    RANGE_BYTES,
    ChangedError,
    RemoteFile,
    StoreError,
    as_store_error,
    next_range_bytes,
)
from service.remote.transfer import copy_file, within

CONTENT = b"0123456789"
PLAIN = RemoteFile("m/config.json", len(CONTENT), "tag")
PROVED = PLAIN._replace(sha256=hashlib.sha256(CONTENT).hexdigest())


class Scripted:
    """A store with one file, each of whose answers is told: bytes, and how it ends."""

    at_once = 1

    def __init__(self, *answers: tuple[bytes | None, Exception | None]) -> None:
        self._answers = list(answers)
        self.starts: list[int] = []

    def list(self) -> list[RemoteFile]:
        return [PLAIN]

    def read(self, file: RemoteFile, start: int) -> Iterator[bytes]:
        """Give the next answer; None is what the file holds from there on."""
        self.starts.append(start)
        part, error = self._answers.pop(0)
        yield CONTENT[start:] if part is None else part
        if error is not None:
            raise error

    def upload(self, files: Sequence[tuple[str, Path]], removed: Sequence[str]) -> None:
        raise AssertionError


@pytest.fixture(autouse=True)
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Delays between attempts, which are not waited for."""
    found: list[float] = []
    monkeypatch.setattr("time.sleep", found.append)
    return found


def copied(folder: Path, store: Scripted, file: RemoteFile, *, partial: bytes = b"") -> bytes:
    """What came of a copy that found this of an earlier one."""
    target = folder / "blob"
    if partial:
        target.with_name("blob.partial").write_bytes(partial)
    copy_file(store, file, target, 5.0, lambda: None)
    return target.read_bytes()


def test_attempts_that_bring_something_are_not_counted(tmp_path: Path, delays: list[float]) -> None:
    lost = StoreError("lost")
    store = Scripted(*((CONTENT[n : n + 1], lost) for n in range(8)), (None, None))
    assert copied(tmp_path, store, PLAIN) == CONTENT
    assert store.starts == [*range(9)]
    assert delays == [0.2] * 8


def test_three_attempts_that_bring_nothing_are_the_last(
    tmp_path: Path, delays: list[float]
) -> None:
    store = Scripted(*[(b"", StoreError("lost"))] * 4)
    with pytest.raises(StoreError, match="it ended after 0"):
        copied(tmp_path, store, PLAIN)
    assert len(store.starts) == 3
    assert delays == pytest.approx([0.2, 0.4])


@pytest.mark.parametrize("partial", [b"", b"0123"])
def test_of_a_file_that_was_changed_nothing_is_kept(tmp_path: Path, partial: bytes) -> None:
    store = Scripted((b"45", ChangedError("changed")))
    with pytest.raises(ChangedError):
        copied(tmp_path, store, PLAIN, partial=partial)
    assert [*tmp_path.iterdir()] == []


def test_more_than_was_listed_is_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ChangedError, match="expected 10 bytes, got more"):
        copied(tmp_path, Scripted((CONTENT + b"!", None)), PLAIN)
    assert [*tmp_path.iterdir()] == []


def test_a_partial_file_that_is_too_large_is_of_something_else(tmp_path: Path) -> None:
    store = Scripted((None, None))
    assert copied(tmp_path, store, PLAIN, partial=b"of something else") == CONTENT
    assert store.starts == [0]


def test_what_was_gone_on_with_and_is_wrong_is_begun_again(tmp_path: Path) -> None:
    store = Scripted((None, None), (None, None))
    assert copied(tmp_path, store, PROVED, partial=b"<html>") == CONTENT
    assert store.starts == [6, 0]


def test_a_wrong_answer_that_is_too_short_is_begun_again(tmp_path: Path) -> None:
    store = Scripted((b"<html>", None), (None, None), (None, None))
    assert copied(tmp_path, store, PROVED) == CONTENT
    assert store.starts == [0, 6, 0]


def test_a_whole_answer_that_is_wrong_is_read_once(tmp_path: Path) -> None:
    store = Scripted((b"9876543210", None))
    with pytest.raises(WrongContent, match=f"expected the SHA-256 {PROVED.sha256}, got "):
        copied(tmp_path, store, PROVED)
    assert [*tmp_path.iterdir()] == []


def test_it_is_begun_again_once(tmp_path: Path) -> None:
    lost = StoreError("lost")
    store = Scripted(*[(b"wrong", lost), (b"wrong", None)] * 2, (None, None))
    with pytest.raises(WrongContent):
        copied(tmp_path, store, PROVED)
    assert store.starts == [0, 5, 0, 5]


def test_a_digest_of_git_is_compared(tmp_path: Path) -> None:
    # printf 0123456789 | git hash-object --stdin
    file = PLAIN._replace(git_sha1="ad471007bd7f5983d273b9584e5629230150fd54")
    assert copied(tmp_path, Scripted((None, None)), file) == CONTENT
    assert git_sha1(tmp_path / "blob") == file.git_sha1
    with pytest.raises(WrongContent, match=f"expected the SHA-1 of git {file.git_sha1}, got "):
        copied(tmp_path, Scripted((b"9876543210", None)), file)


def test_what_the_system_refuses_a_store_is_told_as_the_stores(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"m/config\.json: .*No such file"):
        copy_file(LocalStore(tmp_path / "nowhere"), PLAIN, tmp_path / "blob", 5.0, lambda: None)

    def refused() -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    with pytest.raises(StoreError, match=r"cannot be listed: .*Connection refused"):
        within(5.0, refused, "cannot be listed")


@pytest.mark.parametrize(
    ("num_bytes", "seconds", "following"),
    [
        (FIRST_RANGE_BYTES, 0.1, 2 * FIRST_RANGE_BYTES),
        (FIRST_RANGE_BYTES, 8.0, FIRST_RANGE_BYTES),
        (RANGE_BYTES, 0.1, RANGE_BYTES),
    ],
)
def test_more_is_asked_for_where_it_comes_soon(
    num_bytes: int, seconds: float, following: int
) -> None:
    assert next_range_bytes(num_bytes, seconds, 30.0) == following


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "Generic S3 error: Error performing list request: Error performing GET "
            "http://me:word@host/b?sig=1 in 12.5ms - refused\nDebug source: ...",
            "it failed: Error performing GET http://host/b - refused",
        ),
        ("", "it failed: ValueError"),
        (
            "Server returned error: <?xml><Error><Code>NoSuchBucket</Code></Error>",
            "it failed: Server returned error (NoSuchBucket)",
        ),
    ],
)
def test_a_message_of_a_library_is_one_line_that_stays_the_same(text: str, told: str) -> None:
    assert str(as_store_error(ValueError(text), "it failed")) == told


def test_links_in_a_folder_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "config.json").write_bytes(b"{}")
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(CONTENT)
    (folder / "config.json").symlink_to(tmp_path / "secret" / "config.json")
    (folder / "linked").symlink_to(tmp_path / "secret")
    assert [one.path for one in LocalStore(folder).list()] == ["model.safetensors"]
