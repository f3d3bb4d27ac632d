"""What fsspec knows a file system for: memory://, sftp://, and protocols of other packages."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from service.remote.store import (
    FILES_AT_ONCE,
    FIRST_RANGE_BYTES,
    MAX_LISTED,
    RANGE_BYTES,
    BadUri,
    NothingThere,
    RemoteFile,
    StoreError,
    as_store_error,
    next_range_bytes,
)
from service.remote.transfer import within

# Some protocols want at least 5 MiB at a time.
_UPLOADED_BYTES = 8 * 2**20
# What tells that a file has changed, by the names that file systems have for it.
_TAGS = (
    *("ETag", "etag", "md5", "md5Hash", "Content-MD5", "generation"),
    *("LastModified", "last_modified", "mtime", "modify", "updated", "created"),
)


class FsspecStore:
    """The files below a URI of a file system of fsspec."""

    def __init__(self, uri: str, timeout_seconds: float) -> None:
        what = "cannot be reached"
        try:
            # A connection of its own: one that was lost would be found again for ever.
            system, root = within(
                timeout_seconds,
                lambda: fsspec.core.url_to_fs(uri, skip_instance_cache=True),
                what,
            )
        except ValueError as error:
            raise BadUri(
                f"{error}; expected hf, s3, gs, az, https, file, or what fsspec knows"
            ) from None
        except (StoreError, ImportError):
            raise
        except Exception as error:
            raise as_store_error(error, what) from None
        self._system: Any = system
        self._timeout = timeout_seconds
        # Others have one connection, which threads must not share.
        self.at_once = FILES_AT_ONCE if system.async_impl else 1
        self._root: str = root.rstrip("/")

    def list(self) -> list[RemoteFile]:
        """List the files."""
        self._system.invalidate_cache()
        try:
            found: dict[str, Any] = self._system.find(self._root, detail=True)
        except FileNotFoundError:
            raise NothingThere("there is no such folder") from None
        except Exception as error:
            raise as_store_error(error, "cannot be listed") from None
        if len(found) > MAX_LISTED:
            raise BadUri(f"expected models, it holds over {MAX_LISTED} files")
        return [
            RemoteFile(self._inner(path), int(info["size"]), _tag(info))
            for path, info in found.items()
            if info.get("type") == "file" and not info.get("islink")
        ]

    def _inner(self, path: str) -> str:
        return path.removeprefix(self._root).lstrip("/")

    def read(self, file: RemoteFile, start: int) -> Iterator[bytes]:
        """Read a file, range by range."""
        path = self._outer(file.path)
        length = FIRST_RANGE_BYTES
        while start < file.size:
            end = min(start + length, file.size)
            began = time.monotonic()
            try:
                part = self._system.cat_file(path, start, end)
            except Exception as error:
                raise as_store_error(error, f"{file.path} cannot be read") from None
            if not part:
                return
            if len(part) > end - start:
                raise StoreError(f"{file.path}: expected {end - start} bytes, got {len(part)}")
            length = next_range_bytes(length, time.monotonic() - began, self._timeout)
            yield part
            start += len(part)

    def upload(self, files: Sequence[tuple[str, Path]], removed: Sequence[str]) -> None:
        """Put files."""
        for path, source in files:
            self._put(path, source)
        for path in removed:
            self._call(path, partial(self._system.rm_file, self._outer(path)))

    def _put(self, path: str, source: Path) -> None:
        """Put a file, part by part, each of which must be taken within the timeout."""
        target = self._outer(path)
        folder = str(PurePosixPath(target).parent)
        self._call(path, lambda: self._system.makedirs(folder, exist_ok=True))
        opened = self._call(
            path, lambda: self._system.open(target, "wb", block_size=_UPLOADED_BYTES)
        )
        try:
            with source.open("rb") as content:
                while part := content.read(RANGE_BYTES):
                    self._call(path, partial(opened.write, part))
            self._call(path, opened.close)
        except StoreError:
            # Else what is there of it would be written once nobody refers to it.
            with suppress(AttributeError):
                opened.closed = True
            raise

    def _call(self, path: str, call: Callable[[], Any]) -> Any:
        """Make a call that writes.

        Raises:
            StoreError: it failed, or did not end.
        """
        what = f"{path} cannot be written"
        try:
            return within(self._timeout, call, what)
        except StoreError:
            raise
        except Exception as error:
            raise as_store_error(error, what) from None

    def _outer(self, path: str) -> str:
        return str(PurePosixPath(self._root, path))


def _tag(info: dict[str, Any]) -> str:
    return next((str(info[name]) for name in _TAGS if info.get(name)), "")
