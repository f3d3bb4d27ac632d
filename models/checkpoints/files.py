"""Files that are there whole or not at all: written beside their place, then renamed."""

import errno
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# A fresh volume of some file systems has this folder in its root; it is nobody's data.
NO_CONTENT = frozenset({"lost+found"})

_CHUNK_BYTES = 2**20


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Give a path to write to; what was written takes the place of `path` when all went well.

    A device, a pipe or a socket is written to as it is, and a link is followed: `/dev/stdout` stays
    what it is.

    Raises:
        OSError: the file cannot be written; what lay at `path` before is still there.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        yield path
        return
    # Not the name of the file: with more letters it may be too long.
    fresh = target.parent / f".{secrets.token_hex(8)}.partial"
    try:
        yield fresh
        fresh.replace(target)
    except OSError as error:
        # The name that the user knows.
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        fresh.unlink(missing_ok=True)


def write_file(path: Path, content: bytes) -> None:
    """Write a file in one step.

    Raises:
        OSError: it cannot be written; what lay there before is still there.
    """
    with written(path) as fresh:
        fresh.write_bytes(content)


def try_file(path: Path) -> None:
    """Try, by doing it, whether a file can be written; leave nothing behind.

    Raises:
        OSError: what went wrong.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    target = Path(os.path.realpath(path))
    if not target.exists():
        write_file(target, b"")
        target.unlink()
    elif target.is_file():
        trial = target.parent / f".{secrets.token_hex(8)}.partial"
        try:
            trial.touch()
        finally:
            trial.unlink(missing_ok=True)


def check_regular(path: Path, most_bytes: int) -> None:
    """See, before it is opened, that a path is a file (a pipe would be waited for) and its size.

    Raises:
        OSError: it is none, or larger than `most_bytes`, or cannot be looked at.
    """
    info = path.stat()
    if not stat.S_ISREG(info.st_mode):
        raise OSError(None, "expected a file, got a folder, a device or a pipe")
    if info.st_size > most_bytes:
        raise OSError(None, f"expected at most {most_bytes} bytes, got {info.st_size}")


def sha256(path: Path) -> str:
    """Digest of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_of(folder: Path) -> list[Path]:
    """What lies in a folder, but for what a fresh volume has; nothing where there is no folder."""
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.name not in NO_CONTENT]


def is_filled_in_place(folder: Path) -> bool:
    """Whether a folder that exists must be written into, since it cannot be exchanged for another.

    A mount point cannot (a volume of a container is one), nor a folder whose parent is read-only.
    """
    return folder.is_dir() and (os.path.ismount(folder) or not os.access(folder.parent, os.W_OK))


def write_folder(folder: Path, files: Mapping[str, bytes], *, last: str) -> None:
    """Make a folder of files, or exchange it for the one before, in one step.

    An empty folder is filled, so that it may be a mount point; so is a complete one that cannot be
    exchanged: its files then take the places of the old ones.

    Args:
        folder: to be written.
        files: their contents by name, in the order in which they come.
        last: the name whose presence makes the folder complete.

    Raises:
        OSError: it cannot be written; a folder that was exchanged is put back.
    """
    try:
        _write_folder(folder, files, last)
    except OSError as error:  # of a full disk it names no file
        raise OSError(error.errno, error.strerror or str(error), str(folder)) from error


def _write_folder(folder: Path, files: Mapping[str, bytes], last: str) -> None:
    is_complete = (folder / last).is_file()
    is_filled = folder.is_dir() and (not is_complete or is_filled_in_place(folder))
    place = folder if is_filled else folder.parent
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place, prefix=".model-") as scratch:
        fresh = Path(scratch) / "model"
        fresh.mkdir()
        for name, content in files.items():
            (fresh / name).write_bytes(content)
        if not is_filled:
            _exchange(fresh, folder)
            return
        (folder / last).unlink(missing_ok=True)
        for name in files:
            (fresh / name).replace(folder / name)


def _exchange(fresh: Path, folder: Path) -> None:
    if not folder.exists():
        fresh.rename(folder)
        return
    old = fresh.parent / "old"
    folder.rename(old)
    try:
        fresh.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old)


def try_folder(folder: Path, num_bytes: int = 0) -> None:
    """Try, by doing it, whether a folder can be made or filled; leave nothing behind but parents.

    Args:
        folder: does not exist or is empty.
        num_bytes: how much will be written.

    Raises:
        OSError: what went wrong, with the folder's name.
    """
    try:
        if folder.is_dir():
            _try(
                folder / f".{secrets.token_hex(8)}", folder / f".{secrets.token_hex(8)}", num_bytes
            )
            return
        if folder.parent.exists() and not folder.parent.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        folder.parent.mkdir(parents=True, exist_ok=True)
        _try(folder.parent / f".{secrets.token_hex(8)}", folder, num_bytes)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(folder)) from error


def _try(first: Path, second: Path, num_bytes: int) -> None:
    """Make a folder with a file in it, rename it, and remove both."""
    there = first
    first.mkdir()
    try:
        with (first / "content").open("wb") as file:
            for start in range(0, max(num_bytes, 1), _CHUNK_BYTES):
                file.write(bytes(min(_CHUNK_BYTES, num_bytes - start) if num_bytes else 1))
        first.rename(second)
        there = second
    finally:
        (there / "content").unlink(missing_ok=True)
        there.rmdir()
