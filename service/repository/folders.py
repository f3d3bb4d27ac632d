"""The search for models in folders.

    FOLDER/config.json                    one model, version 1, called as its folder is
    FOLDER/<version>/config.json          one model; the highest version is served
    FOLDER/<name>/config.json             a folder of models
    FOLDER/<name>/<version>/config.json   a folder of models with versions

The first two may be called otherwise: orchestrators mount a model where they like. Versions are
whole numbers, so a model cannot be called by one. Every path comes from the operator; a client's
text is only ever looked up among the names found here.
"""

import importlib.resources
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from models.checkpoints.manifest import CONFIG_FILE
from models.checkpoints.naming import describe_bad_name, is_version, name_of
from service.launch.exits import StartupError


@dataclass(frozen=True, slots=True)
class ModelLocation:
    """The location of the served version of one model."""

    name: str
    version: str
    folder: Path


Stamp = tuple[tuple[str, int, int, int], ...]


def stamp(location: ModelLocation) -> Stamp:
    """What changes when a model's files do: their names, times, sizes and inodes."""
    try:
        entries = [entry for entry in os.scandir(location.folder) if entry.is_file()]
        found = [(entry.name, entry.stat()) for entry in entries]
    except OSError:
        return ()  # changing at this moment: another change follows
    return tuple(
        sorted((name, info.st_mtime_ns, info.st_size, info.st_ino) for name, info in found)
    )


def zoo_folder() -> Path:
    """The trained models that ship with the package."""
    return Path(str(importlib.resources.files("models").joinpath("zoo")))


def find_models(folders: Iterable[Path], name: str | None = None) -> list[ModelLocation]:
    """Find the models of all folders, in order of name.

    Args:
        folders: each a model, or a folder of models.
        name: of a folder that is a model itself; None: as it is called.

    Raises:
        StartupError: a folder is missing or empty, a name is not usable, or two models share one.
    """
    found: dict[str, ModelLocation] = {}
    for folder in folders:
        for location in _models_in(folder, name):
            other = found.setdefault(location.name, location)
            if other is not location:
                raise StartupError(
                    f"{location.folder}: the name {location.name!r} is taken by {other.folder}; "
                    "rename one of the folders"
                )
    return [found[name] for name in sorted(found)]


def _models_in(folder: Path, name: str | None) -> list[ModelLocation]:
    try:
        own = _as_model(folder, name)
        if own is not None:
            return [own]
        children = sorted(child for child in folder.iterdir() if child.is_dir())
        visible = [child for child in children if not child.name.startswith(".")]
        found = [location for location in map(_as_model, visible) if location is not None]
    except OSError as error:
        raise StartupError(f"{folder}: cannot be read: {error.strerror}") from None
    if not found:
        raise StartupError(
            f"{folder}: no model here; expected {CONFIG_FILE}, or folders that hold one"
        )
    return found


def _as_model(folder: Path, name: str | None = None) -> ModelLocation | None:
    if (folder / CONFIG_FILE).is_file():
        return ModelLocation(_checked(name or name_of(folder), folder), "1", folder)
    if not folder.is_dir():
        return None
    versions = [
        child
        for child in folder.iterdir()
        if is_version(child.name) and (child / CONFIG_FILE).is_file()
    ]
    if not versions:
        return None
    highest = max(versions, key=lambda child: int(child.name))
    return ModelLocation(_checked(name or name_of(folder), folder), str(int(highest.name)), highest)


def _checked(name: str, folder: Path) -> str:
    reason = describe_bad_name(name)
    if reason is not None:
        raise StartupError(f"{folder}: {reason}")
    return name
