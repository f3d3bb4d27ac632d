"""Object stores: S3 and what speaks its protocol, Google Cloud Storage, Azure."""

import itertools
import os
import re
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError, InvalidPathError, PreconditionError
from obstore.store import from_url

from service.remote.store import (
    FILES_AT_ONCE,
    FIRST_RANGE_BYTES,
    MAX_LISTED,
    BadUri,
    ChangedError,
    RemoteFile,
    StoreError,
    as_store_error,
    next_range_bytes,
)

# Where an endpoint is named that speaks plain HTTP, that is meant.
_ENDPOINTS = (
    *("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    *("AZURE_ENDPOINT", "AZURE_STORAGE_ENDPOINT"),
)

# What stores say of a bucket or container that does not exist.
_NO_BUCKET = re.compile("NoSuchBucket|ContainerNotFound|specified bucket does not exist")
# Asked for credentials where the environment has none.
_METADATA = "169.254.169.254"
_NO_CREDENTIALS = (
    "no credentials were found: expected those of the environment (AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_KEY), a role of "
    "this machine, or of a public bucket AWS_SKIP_SIGNATURE=true"
)


class ObjectStore:
    """The objects below a URI as s3://bucket/models; credentials are the environment's."""

    at_once = FILES_AT_ONCE

    def __init__(self, uri: str, timeout_seconds: float) -> None:
        self._timeout = timeout_seconds
        endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), "")
        # Whoever waits is told first that it took too long.
        options: Any = {"timeout": timedelta(seconds=timeout_seconds + 1)}
        if endpoint.startswith("http://"):
            options["allow_http"] = True
        # The endpoint of S3 alone, which the library does not look for.
        own = os.environ.get("AWS_ENDPOINT_URL_S3")
        config: Any = {"endpoint": own} if own and uri.startswith("s3") else None
        try:
            # Whoever reads goes on where it was cut off: the library need not.
            self._store: Any = from_url(
                uri, config=config, client_options=options, retry_config={"max_retries": 0}
            )
        except (BaseError, ValueError) as error:
            raise BadUri(str(as_store_error(error, "expected BUCKET/FOLDER"))) from None

    def list(self) -> list[RemoteFile]:
        """List the objects."""
        try:
            found = [
                RemoteFile(one["path"], one["size"], one["e_tag"] or str(one["last_modified"]))
                for one in itertools.islice(self._objects(""), MAX_LISTED + 1)
            ]
        except (BaseError, OSError) as error:
            raise _as_error(error, "cannot be listed") from None
        if len(found) > MAX_LISTED:
            raise BadUri(f"expected models, it holds over {MAX_LISTED} objects")
        return found

    def _objects(self, folder: str) -> Iterator[Any]:
        """What lies in a folder; a key with '//', '/./' or '/../', which cannot be read, is left.

        Those come before every name of a model in the order of a store.
        """
        for offset in (None, f"{folder}/0".lstrip("/")):
            try:
                chunks = obstore.list(self._store, folder or None, offset=offset)
                every = itertools.chain.from_iterable(chunks)
                yield from [*itertools.islice(every, MAX_LISTED + 1)]
                return
            except InvalidPathError:
                continue
        # There are some further down.
        listed = obstore.list_with_delimiter(self._store, folder or None)
        yield from listed["objects"]
        if "/" not in folder:
            for inner in listed["common_prefixes"]:
                yield from self._objects(inner)

    def read(self, file: RemoteFile, start: int) -> Iterator[memoryview]:
        """Read an object, as long as it is the one that was listed."""
        length = FIRST_RANGE_BYTES
        while start < file.size:
            end = min(start + length, file.size)
            began = time.monotonic()
            options: Any = {"range": (start, end)}
            if file.tag.startswith(('"', "W/")):
                options["if_match"] = file.tag
            try:
                part = memoryview(obstore.get(self._store, file.path, options=options).bytes())
            except (PreconditionError, FileNotFoundError):
                raise ChangedError(f"{file.path} was changed while it was read") from None
            except (BaseError, OSError) as error:
                raise _as_error(error, f"{file.path} cannot be read") from None
            if len(part) != end - start:
                raise StoreError(f"{file.path}: expected {end - start} bytes, got {len(part)}")
            length = next_range_bytes(length, time.monotonic() - began, self._timeout)
            yield part
            # So that it is not in memory beside the next.
            del part
            start = end

    def upload(self, files: Sequence[tuple[str, Path]], removed: Sequence[str]) -> None:
        """Put objects; large ones in parts."""
        try:
            for path, source in files:
                obstore.put(self._store, path, source)
            for path in removed:
                obstore.delete(self._store, path)
        except (BaseError, OSError) as error:
            raise _as_error(error, "cannot be written") from None


def _as_error(error: Exception, what: str) -> StoreError | BadUri:
    if _NO_BUCKET.search(str(error)):
        return BadUri(str(as_store_error(error, what)))
    if _METADATA in str(error):
        return StoreError(f"{what}: {_NO_CREDENTIALS}")
    return as_store_error(error, what)
