"""One file from a store: continued where it was cut off, bounded in time, verified, renamed."""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from service.remote.digests import WrongContent, check_digest
from service.remote.store import ChangedError, RemoteFile, Store, StoreError, as_store_error

# Attempts in a row that bring nothing new, attempts in all, and the delay after the first.
ATTEMPTS = 3
_MOST_ATTEMPTS = 20
DELAY_SECONDS = 0.2

_T = TypeVar("_T")


def within(seconds: float, call: Callable[[], _T], what: str) -> _T:
    """Make a call that may never end, and wait for it so long at most; its thread is left to it.

    Raises:
        StoreError: there is no answer, or the system refuses what the call asks of it.
    """
    results: queue.SimpleQueue[tuple[_T | None, Exception | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            results.put((call(), None))
        except Exception as error:
            results.put((None, error))

    threading.Thread(target=work, name="store", daemon=True).start()
    try:
        result, error = results.get(timeout=seconds)
    except queue.Empty:
        raise StoreError(f"{what}: no answer within {seconds:g} s") from None
    if isinstance(error, OSError) and not isinstance(error, StoreError):
        raise as_store_error(error, what) from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


def copy_file(
    store: Store,
    file: RemoteFile,
    target: Path,
    timeout_seconds: float,
    note_progress: Callable[[], None],
) -> None:
    """Copy a file; what an interrupted copy has left is gone on with.

    Args:
        store: gives the file.
        file: to be copied.
        target: where it is to be, complete and verified, or not at all.
        timeout_seconds: of each part.
        note_progress: called when a part came.

    Raises:
        StoreError: it cannot be had, or is not what was listed.
    """
    partial = target.with_name(f"{target.name}.partial")
    failures = 0
    is_begun_again = False
    for attempt in range(1, _MOST_ATTEMPTS + 1):
        before = _size(partial)
        try:
            _append(store, file, partial, timeout_seconds, note_progress)
            check_digest(file, partial)
            break
        except ChangedError:
            partial.unlink(missing_ok=True)
            raise
        except WrongContent:
            partial.unlink()
            # What was there of it before may have been of something else.
            if not before or is_begun_again or attempt == _MOST_ATTEMPTS:
                raise
            is_begun_again = True
        except StoreError:
            failures = 1 if _size(partial) > before else failures + 1
            if failures == ATTEMPTS or attempt == _MOST_ATTEMPTS:
                raise
            time.sleep(DELAY_SECONDS * failures)
    with partial.open("rb") as opened:
        os.fsync(opened.fileno())
    partial.replace(target)


def _append(
    store: Store,
    file: RemoteFile,
    partial: Path,
    timeout_seconds: float,
    note_progress: Callable[[], None],
) -> None:
    """Read on from the end of what is there."""
    if _size(partial) > file.size:
        partial.unlink()
    written = _size(partial)
    with partial.open("ab") as opened:
        parts = store.read(file, written) if written < file.size else iter(())
        while part := within(timeout_seconds, lambda: next(parts, b""), file.path):
            written += len(part)
            if written > file.size:
                raise ChangedError(f"{file.path}: expected {file.size} bytes, got more")
            opened.write(part)
            note_progress()
            # So that it is not in memory beside the next.
            part = b""
    if written < file.size:
        raise StoreError(f"{file.path}: expected {file.size} bytes, it ended after {written}")


def read_whole(store: Store, file: RemoteFile, most_bytes: int, timeout_seconds: float) -> bytes:
    """Read a small file.

    Raises:
        StoreError: it cannot be had, or is larger.
    """
    if file.size > most_bytes:
        raise StoreError(f"{file.path}: expected at most {most_bytes} bytes, got {file.size}")
    content = b""
    parts: Iterator[bytes | memoryview] = store.read(file, 0)
    while part := within(timeout_seconds, lambda: next(parts, b""), file.path):
        content += part
        if len(content) > file.size:
            break
    if len(content) != file.size:
        raise StoreError(f"{file.path}: expected {file.size} bytes, got {len(content)}")
    return content


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
