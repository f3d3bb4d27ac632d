"""The argument that names a model: its folder, or a URI, which is copied to the cache first."""

from pathlib import Path
from typing import Annotated

import typer

from pushforward.cli.plain_errors import FAULT_EXIT_CODE, fail, plain_errors, warn


def model_folder(given: str) -> Path:
    """The folder of a model; of a URI, that in the cache.

    Raises:
        BadParameter: there is no such folder.
        Exit: what the URI names cannot be had.
    """
    from service.uris import as_location

    try:
        location = as_location(given)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if isinstance(location, str):
        with plain_errors():
            return _fetched(location)
    if not location.exists():
        raise typer.BadParameter(f"Directory '{given}' does not exist.")
    if not location.is_dir():
        raise typer.BadParameter(f"Directory '{given}' is a file.")
    return location


def _fetched(uri: str) -> Path:
    from service.remote.cache import CacheEntry
    from service.remote.fetch import FetchOptions, fetch
    from service.settings import read

    options = FetchOptions.of(read({}))
    status = fetch(uri, options)
    entry = CacheEntry.of(options.cache, uri)
    if not entry.is_filled:
        fail(f"{status.uri}: {status.reason}", FAULT_EXIT_CODE)
    if not status.is_ok:
        warn(f"{status.uri}: what the cache holds of it is taken: {status.reason}")
    return entry.link


ModelFolder = Annotated[
    Path,
    typer.Argument(
        parser=model_folder,
        help="Model folder, or a URI of one, as s3://bucket/models/NAME.",
    ),
]
