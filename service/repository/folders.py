"""The search for models in folders.

    FOLDER/config.json                    one model, version 1, called as its folder is
    FOLDER/<version>/config.json          one model; of the versions those that are live are served
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
    """The location of one version of a model."""

    name: str
    version: str
    folder: Path


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """The folder of a model with all versions in it, at least one.

    folder: that holds the versions; of a model without versions its own.
    versions: the highest last.
    has_versions: whether each has a folder of its own.
    """

    name: str
    folder: Path
    versions: tuple[ModelLocation, ...]
    has_versions: bool


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
    """Find the highest version of each model of all folders, in order of name.

    Args:
        folders, name: as for `find_model_folders`.

    Raises:
        StartupError: as there.
    """
    return [found.versions[-1] for found in find_model_folders(folders, name)]


def find_model_folders(folders: Iterable[Path], name: str | None = None) -> list[ModelFolder]:
    """Find the models of all folders, in order of name.

    Args:
        folders: each a model, or a folder of models.
        name: of a folder that is a model itself; None: as it is called.

    Raises:
        StartupError: a folder is missing or empty, a name is not usable, or two models share one.
    """
    found: dict[str, ModelFolder] = {}
    for folder in folders:
        for model in _models_in(folder, name):
            other = found.setdefault(model.name, model)
            if other is not model:
                highest, taken = model.versions[-1].folder, other.versions[-1].folder
                raise StartupError(
                    f"{highest}: the name {model.name!r} is taken by {taken}; "
                    "rename one of the folders"
                )
    return [found[name] for name in sorted(found)]


def _models_in(folder: Path, name: str | None) -> list[ModelFolder]:
    try:
        own = _as_model(folder, name)
        if own is not None:
            return [own]
        children = sorted(child for child in folder.iterdir() if child.is_dir())
        visible = [child for child in children if not child.name.startswith(".")]
        found = [model for model in map(_as_model, visible) if model is not None]
    except OSError as error:
        raise StartupError(f"{folder}: cannot be read: {error.strerror}") from None
    if not found:
        raise StartupError(
            f"{folder}: no model here; expected {CONFIG_FILE}, or folders that hold one"
        )
    return found


def _as_model(folder: Path, name: str | None = None) -> ModelFolder | None:
    if (folder / CONFIG_FILE).is_file():
        called = _checked(name or name_of(folder), folder)
        return ModelFolder(called, folder, (ModelLocation(called, "1", folder),), False)
    if not folder.is_dir():
        return None
    versions = [
        child
        for child in folder.iterdir()
        if is_version(child.name) and (child / CONFIG_FILE).is_file()
    ]
    if not versions:
        return None
    called = _checked(name or name_of(folder), folder)
    # One of 2 and 02 is version 2, always the same one.
    by_number = {int(child.name): child for child in sorted(versions)}
    locations = [
        ModelLocation(called, str(number), by_number[number]) for number in sorted(by_number)
    ]
    return ModelFolder(called, folder, tuple(locations), True)


def _checked(name: str, folder: Path) -> str:
    reason = describe_bad_name(name)
    if reason is not None:
        raise StartupError(f"{folder}: {reason}")
    return name
