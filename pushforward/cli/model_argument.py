"""The argument that names a model: its folder, a version of it, or a URI, copied to the cache."""

from pathlib import Path
from typing import Annotated

import typer

from pushforward.cli.plain_errors import FAULT_EXIT_CODE, USAGE_EXIT_CODE, fail, plain_errors, warn


def model_folder(given: str) -> Path:
    """The folder of a model in one version; of a URI, that in the cache.

    Raises:
        BadParameter: there is no such folder.
        Exit: what the URI names cannot be had, or the folder has no such version.
    """
    from service.uris import as_location

    try:
        location = as_location(given)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if isinstance(location, str):
        with plain_errors():
            return _in_one_version(_fetched(location))
    return local_model_folder(str(location))


def local_model_folder(given: str) -> Path:
    """The folder of a model of this machine in one version: what is written beside it stays.

    Raises:
        BadParameter: there is no such folder.
        Exit: the folder has no such version.
    """
    with plain_errors():
        return _in_one_version(model_path(given))


def model_path(given: str) -> Path:
    """The path of a model of this machine, as it was given: FOLDER or FOLDER@VERSION.

    Raises:
        BadParameter: there is no such folder.
    """
    from pushforward.batch.locate import Reference

    path = Reference.of(Path(given)).path
    if not path.exists():
        raise typer.BadParameter(f"Directory '{given}' does not exist.")
    if not path.is_dir():
        raise typer.BadParameter(f"Directory '{given}' is a file.")
    return Path(given)


def _in_one_version(model: Path) -> Path:
    """The folder that holds the files: of the version that is meant, where there are several.

    Raises:
        ValueError: there is none.
    """
    from models.checkpoints.manifest import CONFIG_FILE
    from pushforward.batch.locate import locate
    from service.launch.exits import StartupError

    if (model / CONFIG_FILE).is_file():
        return model
    try:
        return locate(model).folder
    except StartupError as error:
        raise ValueError(str(error)) from None


def _fetched(uri: str) -> Path:
    from service.remote.cache import CacheEntry
    from service.remote.fetch import FetchOptions, fetch
    from service.settings import read

    options = FetchOptions.of(read({}))
    status = fetch(uri, options, verify=True)
    entry = CacheEntry.of(options.cache, uri)
    if not entry.is_filled:
        code = USAGE_EXIT_CODE if status.is_misnamed else FAULT_EXIT_CODE
        fail(f"{status.uri}: {status.reason}", code)
    if not status.is_ok:
        warn(f"{status.uri}: what the cache holds of it is taken: {status.reason}")
    return entry.link


ModelFolder = Annotated[
    Path,
    typer.Argument(
        parser=model_folder,
        help="Model folder, FOLDER@VERSION, or a URI, as s3://bucket/models/NAME. Of several "
        "versions it is the one that a server answers with.",
    ),
]
LocalModelFolder = Annotated[
    Path,
    typer.Argument(
        parser=local_model_folder,
        help="Model folder, or FOLDER@VERSION. Of several versions it is the one that a server "
        "answers with.",
    ),
]
