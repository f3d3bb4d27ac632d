"""Files of a web server, which lists nothing: an index says which there are."""

import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlsplit, urlunsplit

import httpx

from service.remote.index import INDEX_FILE, MAX_INDEX_BYTES, read_index
from service.remote.store import (
    FILES_AT_ONCE,
    BadUri,
    ChangedError,
    RemoteFile,
    StoreError,
    as_store_error,
)

NO_UPLOAD = "nothing can be pushed to a web server; push to the folder that it serves, as file:///srv/models"

_PART_BYTES = 2**20
# What comes within so long is given on as one part.
_PART_SECONDS = 0.1
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")

# They log every address, with its password and signature, or where a redirect leads.
_LOGS_OF_ADDRESSES = ("httpx", "httpcore", "httpx2", "httpcore2")


class WebStore:
    """The files below a URL that its pushforward-index.json names.

    A query, which may hold a signature, is sent with each of them.
    """

    at_once = FILES_AT_ONCE

    def __init__(self, uri: str, timeout_seconds: float) -> None:
        hide_addresses()
        self._uri = uri
        self._timeout = timeout_seconds

    def list(self) -> list[RemoteFile]:
        """Read the index; it is a file too, so that what it says is believed."""
        parts = read_range(self._url(INDEX_FILE), INDEX_FILE, self._timeout)
        content = b""
        try:
            for part in parts:
                content += part
                if len(content) > MAX_INDEX_BYTES:
                    raise BadUri(f"{INDEX_FILE}: over {MAX_INDEX_BYTES} bytes")
        except FileNotFoundError:
            raise BadUri(
                f"expected {INDEX_FILE} there, which tells what a web server does "
                "not list: pushforward push writes it"
            ) from None
        found = read_index(content, INDEX_FILE)
        return [RemoteFile(one.path, one.size, "", one.sha256) for one in found]

    def read(self, file: RemoteFile, start: int) -> Iterator[bytes]:
        """Read a file."""
        try:
            yield from read_range(
                self._url(file.path), file.path, self._timeout, start, size=file.size
            )
        except FileNotFoundError:
            raise StoreError(f"{file.path}: the index names it, and it is not there") from None

    def upload(self, files: Sequence[tuple[str, Path]], removed: Sequence[str]) -> None:
        """Refuse: a web server takes no files.

        Raises:
            BadUri: always.
        """
        raise BadUri(NO_UPLOAD)

    def _url(self, path: str) -> str:
        parts = urlsplit(self._uri)
        inner = str(PurePosixPath(parts.path or "/") / quote(path))
        return urlunsplit((parts.scheme, parts.netloc, inner, parts.query, ""))


def hide_addresses() -> None:
    """Keep addresses out of the log, whatever its level."""
    for name in _LOGS_OF_ADDRESSES:
        logging.getLogger(name).setLevel(logging.WARNING)


def read_range(
    url: str,
    path: str,
    timeout_seconds: float,
    start: int = 0,
    headers: Mapping[str, str] | None = None,
    *,
    size: int | None = None,
) -> Iterator[bytes]:
    """Read what a URL gives, from a byte on.

    Args:
        url: of the file.
        path: what messages call it.
        timeout_seconds: to connect, and of each wait for bytes.
        start: the first byte.
        headers: sent with the request, not to other hosts that it is led to.
        size: of the whole file, where it is known.

    Raises:
        FileNotFoundError: there is none.
        ChangedError: it is shorter than that, or the server gives whole files alone.
        StoreError: it cannot be read, or is not of that size.
    """
    asked = {"Accept-Encoding": "identity", **(headers or {})}
    if start:
        asked["Range"] = f"bytes={start}-"
    with (
        _plain(path),
        httpx.stream(
            "GET", url, headers=asked, timeout=timeout_seconds, follow_redirects=True
        ) as response,
    ):
        status = response.status_code
        if status == HTTPStatus.NOT_FOUND:
            raise FileNotFoundError(path)
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise ChangedError(f"{path} was changed while it was read")
        if response.is_error:
            raise StoreError(f"{path} cannot be read: status {status}")
        _check_length(response, path, start, size)
        if start and status != HTTPStatus.PARTIAL_CONTENT:
            # From its begin: what is there of it already is left out.
            yield from _from(_gathered(response.iter_bytes()), start)
            return
        yield from _gathered(response.iter_bytes())


def _check_length(response: httpx.Response, path: str, start: int, size: int | None) -> None:
    """Refuse what cannot be the file that was listed before any of it is taken.

    Raises:
        ChangedError: the server cannot give a part of it.
        StoreError: it is another one.
    """
    is_part = response.status_code == HTTPStatus.PARTIAL_CONTENT
    if response.headers.get("Content-Encoding", "identity") != "identity":
        if is_part:
            raise ChangedError(f"{path}: expected a part of the file, got one that is compressed")
        return
    said = response.headers.get("Content-Length")
    if is_part:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != start:
            raise StoreError(f"{path}: expected the bytes from {start} on, got others")
        said = found[2]
    if size is not None and said not in (None, "*", str(size)):
        raise StoreError(f"{path}: expected {size} bytes, the server has {said}")


def _gathered(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Join what comes soon after each other; what comes slowly is given on as it comes."""
    gathered = bytearray()
    since = -_PART_SECONDS
    for part in parts:
        gathered += part
        if len(gathered) >= _PART_BYTES or time.monotonic() - since >= _PART_SECONDS:
            yield bytes(gathered)
            gathered.clear()
            since = time.monotonic()
    if gathered:
        yield bytes(gathered)


def _from(parts: Iterator[bytes], start: int) -> Iterator[bytes]:
    for part in parts:
        if start < len(part):
            yield part[start:]
        start = max(0, start - len(part))


@contextmanager
def _plain(path: str) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        raise as_store_error(error, f"{path} cannot be read") from None
    except httpx.InvalidURL as error:
        raise BadUri(str(as_store_error(error, path))) from None
