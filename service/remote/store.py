"""What is asked of a store of files, whatever is behind it; and which store a URI names."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from models.extras import install_command
from service.uris import as_location, without_credentials

# Objects below a URI: who names a whole bucket of other things is told so.
MAX_LISTED = 100_000
# What is read at a time, at most and first; each must come within the timeout.
RANGE_BYTES = 4 * 2**20
FIRST_RANGE_BYTES = 2**18
# Of the timeout: a range that came sooner is followed by one of twice its size.
_SOON = 0.25
# Files that are read at a time where a store allows it: so many ranges are in memory.
FILES_AT_ONCE = 8

_PASSED = re.compile(r" in [\d.]+[mµn]?s\b")
_PREFIX = re.compile(r"^(Generic \w+ error: |Error performing list request: )+")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_OBJECT_SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl")


class StoreError(OSError):
    """A store did not give what it was asked for; one line, without credentials."""


class ChangedError(StoreError):
    """A file was changed while it was read: to go on with it would mix two versions."""


class BadUri(ValueError):
    """A URI is not one that models can come from, or there is no model behind it."""


class NothingThere(BadUri):
    """A folder or repository does not exist; pushing makes it."""


class RemoteFile(NamedTuple):
    """A file of a store.

    path: below the URI, with '/'.
    tag: what changes when its content does, as an ETag; empty where the store tells nothing.
    sha256: of its content, in hex; empty where it is not known.
    git_sha1: what git calls its content by, in hex; empty where it is not known.
    """

    path: str
    size: int
    tag: str = ""
    sha256: str = ""
    git_sha1: str = ""

    @property
    def is_proved(self) -> bool:
        """Whether a copy that has all its bytes is known to be of this content."""
        return bool(self.sha256 or self.git_sha1)


class Store(Protocol):
    """The files below a URI. Every failure is a `StoreError`.

    at_once: how many files may be read at a time.
    """

    at_once: int

    def list(self) -> list[RemoteFile]:
        """List them."""
        ...

    def read(self, file: RemoteFile, start: int) -> Iterator[bytes | memoryview]:
        """Read a file from a byte on, in parts of some megabytes at most.

        Raises:
            ChangedError: it is not the file any more that was listed.
        """
        ...

    def upload(self, files: Sequence[tuple[str, Path]], removed: Sequence[str]) -> None:
        """Write files in this order, each whole or not at all, then remove others."""
        ...


def open_store(uri: str, timeout_seconds: float) -> Store:
    """Find the store that a URI names.

    Args:
        uri: of a folder.
        timeout_seconds: of each call over the network.

    Raises:
        BadUri: there is none, or its package is missing.
    """
    location = as_location(uri)
    scheme = urlsplit(uri).scheme
    try:
        if isinstance(location, Path):
            from service.remote.local_store import LocalStore

            return LocalStore(location)
        if scheme in ("http", "https"):
            from service.remote.web_store import WebStore

            return WebStore(uri, timeout_seconds)
        if scheme == "hf":
            from service.remote.hub_store import HubStore

            return HubStore(uri, timeout_seconds)
        if scheme in _OBJECT_SCHEMES:
            from service.remote.object_store import ObjectStore

            return ObjectStore(uri, timeout_seconds)
        from service.remote.fsspec_store import FsspecStore

        return FsspecStore(uri, timeout_seconds)
    except ImportError as error:
        raise BadUri(f"needs the extra 'hub': {install_command('hub')} ({error})") from None


def next_range_bytes(num_bytes: int, seconds: float, timeout_seconds: float) -> int:
    """How much to read at a time, after so much came in so long."""
    if seconds > _SOON * timeout_seconds:
        return num_bytes
    return min(2 * num_bytes, RANGE_BYTES)


def as_store_error(error: Exception, what: str) -> StoreError:
    """What went wrong in a library, as one line."""
    text = str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reason = without_credentials(lines[0]).partition(": <?xml")[0] if lines else ""
    # So that the same failure is told in the same words, and once.
    reason = _PREFIX.sub("", _PASSED.sub("", reason))
    # What the protocol of S3 says of it.
    codes = _CODE.findall(text)
    code = f" ({codes[0]})" if codes else ""
    return StoreError(f"{what}: {reason or type(error).__name__}{code}")
