"""Files of rows: which there are, what tells that one has changed, and how one is opened."""

import functools
import glob
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from models.datasets.dataset import optional_package

TEXT_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
ARROW_SUFFIXES = (".arrow", ".feather", ".ipc")
SUFFIXES = (".parquet", *ARROW_SUFFIXES, ".npy", *TEXT_SUFFIXES)

_HEADER = re.compile(r"(.*)\?header=(yes|no)", re.DOTALL)
_BLOCK_BYTES = 2**18
_WILD = re.compile(r"[*?\[]")
# What tells of a remote file that it has changed, by the names that file systems have for it.
_VERSIONS = (
    *("ETag", "etag", "md5", "md5Hash", "Content-MD5", "Digest", "generation"),
    *("LastModified", "last_modified", "Last-Modified", "mtime", "modify", "updated", "created"),
)
_WEB = ("http://", "https://")


class InputName(NamedTuple):
    """A file of rows: its path or URL, and what is said of its first line."""

    path: str
    header: str | None = None

    @property
    def is_remote(self) -> bool:
        """Whether it is reached by fsspec."""
        return "://" in self.path

    @property
    def suffix(self) -> str:
        """The end of its name by which its kind is told."""
        name = without_query(self.path).lower()
        return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")

    def check(self) -> None:
        """See that it is there, where that is soon known.

        Raises:
            OSError: it is not.
        """
        if not self.is_remote:
            os.stat(self.path)

    def version(self, is_stopped: Callable[[], bool] = lambda: False) -> dict[str, Any]:
        """What tells its content from another: of a remote file, what its file system says of it.

        Where that says nothing, the file is copied, and what it holds is digested.

        Args:
            is_stopped: asked now and then; once it is so, nobody wants the answer any more.

        Raises:
            OSError: it is not there.
        """
        header = {} if self.header is None else {"header": self.header}
        if not self.is_remote:
            return {"name": self.path, **header, **_digest(self.path, is_stopped)}
        system, path = _remote(self.path)
        info = system.info(path)
        versions = [str(info[name]) for name in _VERSIONS if info.get(name)]
        told = {"url": without_query(self.path), **header}
        if not versions:
            return {**told, **_digest(str(self.local()), is_stopped)}
        return {**told, "bytes": info.get("size"), "versions": versions}

    def open(self) -> IO[bytes]:
        """Open it for reading anywhere in it."""
        if not self.is_remote:
            return open(self.path, "rb")
        system, path = _remote(self.path)
        opened: IO[bytes] = system.open(path, "rb")
        if opened.seekable():
            return opened
        opened.close()  # of a web server that gives whole files alone
        return open(self.local(), "rb")

    def local(self) -> Path:
        """Its path on this machine; what is remote is copied there, once."""
        return _copy(self) if self.is_remote else Path(self.path)


def without_query(path: str) -> str:
    """A web address without its query, which may hold a signature; anything else as it is."""
    return path.partition("?")[0] if path.startswith(_WEB) else path


def _digest(path: str, is_stopped: Callable[[], bool]) -> dict[str, Any]:
    total, digest = 0, hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        block = memoryview(bytearray(_BLOCK_BYTES))
        while (count := file.readinto(block)) and not is_stopped():
            digest.update(block[:count])
            total += count
    return {"bytes": total, "sha256": digest.hexdigest()}


@functools.cache
def _copies() -> tempfile.TemporaryDirectory[str]:
    """Where remote files are copied to; it goes with the process."""
    return tempfile.TemporaryDirectory(prefix="pushforward-")


@functools.cache
def _copy(name: InputName) -> Path:
    system, path = _remote(name.path)
    file, copy = tempfile.mkstemp(suffix=name.suffix, dir=_copies().name)
    os.close(file)
    system.get_file(path, copy)
    return Path(copy)


def find_inputs(patterns: Sequence[str]) -> list[InputName]:
    """Find the files that paths, globs, folders and URLs mean, in order of name within each.

    Raises:
        ValueError: a pattern matches nothing, or a file is of no known kind.
    """
    found = [name for pattern in patterns for name in _matches(pattern)]
    for name in found:
        if not name.suffix:
            raise ValueError(f"{name.path}: expected {', '.join(SUFFIXES)}")
    return found


def _matches(pattern: str) -> list[InputName]:
    given = _HEADER.fullmatch(pattern)
    path, header = (given[1], given[2]) if given else (pattern, None)
    if "://" in path:
        found = _remote_matches(path)
    elif os.path.isdir(path):
        inside = (os.path.join(path, "**", f"*{suffix}") for suffix in SUFFIXES)
        found = sorted({name for each in inside for name in glob.glob(each, recursive=True)})
    elif _WILD.search(path) and not os.path.exists(path):
        found = sorted(glob.glob(path, recursive=True))
    else:
        found = [path]
    if not found:
        raise ValueError(f"{pattern}: no file matches")
    return [InputName(name, header) for name in found]


def _remote_matches(path: str) -> list[str]:
    if not _WILD.search(without_query(path)):
        return [path]
    system, inner = _remote(path)
    protocol = path.partition("://")[0]
    found = sorted(system.glob(inner))
    return [name if "://" in name else f"{protocol}://{name}" for name in found]


def _remote(path: str) -> tuple[Any, str]:
    core = optional_package("fsspec.core", needed_for=f"reading {path}", extra="files")
    try:
        system, inner = core.url_to_fs(path)
    except ImportError as error:  # the package of a protocol
        raise ValueError(f"{path}: {error}") from None
    return system, inner
