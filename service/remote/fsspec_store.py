"""What fsspec knows a file system for: memory://, sftp://, and protocols of other packages."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from service.remote.store import (
    MAX_LISTED,
    RANGE_BYTES,
    BadUri,
    RemoteFile,
    as_store_error,
)

# What tells that a file has changed, by the names that file systems have for it.
_TAGS = (
    *("ETag", "etag", "md5", "md5Hash", "Content-MD5", "generation"),
    *("LastModified", "last_modified", "mtime", "modify", "updated", "created"),
)


class FsspecStore:
    """The files below a URI of a file system of fsspec."""

    def __init__(self, uri: str) -> None:
        try:
            system, root = fsspec.core.url_to_fs(uri)
        except ValueError as error:
            raise BadUri(
                f"{error}; expected hf, s3, gs, az, https, file, or what fsspec knows"
            ) from None
        self._system: Any = system
        self._root: str = root.rstrip("/")

    def list(self) -> list[RemoteFile]:
        """List the files."""
        self._system.invalidate_cache()
        try:
            found: dict[str, Any] = self._system.find(self._root, detail=True)
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
        path = str(PurePosixPath(self._root, file.path))
        while start < file.size:
            try:
                part = self._system.cat_file(path, start, min(start + RANGE_BYTES, file.size))
            except Exception as error:
                raise as_store_error(error, f"{file.path} cannot be read") from None
            if not part:
                return
            yield part
            start += len(part)

    def upload(self, files: Sequence[tuple[str, Path]], removed: Sequence[str]) -> None:
        """Put files."""
        try:
            for path, source in files:
                target = PurePosixPath(self._root, path)
                self._system.makedirs(str(target.parent), exist_ok=True)
                self._system.put_file(str(source), str(target))
            for path in removed:
                self._system.rm_file(str(PurePosixPath(self._root, path)))
        except Exception as error:
            raise as_store_error(error, "cannot be written") from None


def _tag(info: dict[str, Any]) -> str:
    return next((str(info[name]) for name in _TAGS if info.get(name)), "")
