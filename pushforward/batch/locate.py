"""Where a model is, which version of it a path means, and what changes when its files do.

models/flights      the version that a server answers with where a request names none
models/flights@2    version 2, whether a server has it live or not
models/flights/2    the same, by its folder
"""

from dataclasses import dataclass
from pathlib import Path

from models.checkpoints.manifest import CONFIG_FILE, digest
from models.checkpoints.naming import describe_bad_name, is_version, name_of
from service.launch.exits import StartupError
from service.repository.folders import (
    ModelFolder,
    ModelLocation,
    Stamp,
    find_model_folders,
    stamp,
)
from service.repository.version_policy import live_versions
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Reference:
    """A path that names a model, and the version behind an @ in it, if any."""

    path: Path
    version: str | None = None

    @classmethod
    def of(cls, text: Path) -> "Reference":
        """Read PATH or PATH@VERSION; what is there is a path."""
        name, at, version = text.name.rpartition("@")
        if not at or not name or text.exists():
            return cls(text)
        return cls(text.with_name(name), version)


def stamp_of(model: Path) -> Stamp:
    """What changes when the files of a model do.

    Raises:
        ValueError: there is no model, or there are several.
    """
    try:
        return stamp(locate(model))
    except StartupError as error:
        raise ValueError(str(error)) from None


def locate(model: Path) -> ModelLocation:
    """Find the one model that a path means, in one version.

    Raises:
        ValueError: it holds several models, or not that version.
        StartupError: it holds none, or what it says of its versions cannot be used.
    """
    reference = Reference.of(model)
    path = reference.path
    if reference.version is None and is_version(name_of(path)) and (path / CONFIG_FILE).is_file():
        return _locate_version(path)
    return _choose(_find_one(path), reference)


def locate_beside(location: ModelLocation, reference: str, weights: str) -> ModelLocation | None:
    """Find the version of a model beside another that has some weights.

    Args:
        location: of the other model.
        reference: NAME, of which any version may have them, or NAME@VERSION.
        weights: the digest of theirs.

    Returns:
        None where no such model is there. Where none has the weights, the one that the reference
        means.

    Raises:
        ValueError, StartupError: as `locate`.
    """
    found = Reference.of(_repository_of(location) / reference)
    if not found.path.is_dir():
        return None
    model = _find_one(found.path)
    chosen = _choose(model, found)
    versions = (chosen,) if found.version else (chosen, *reversed(model.versions))
    return next((one for one in versions if digest(one.folder) == weights), chosen)


def path_in_repository(location: ModelLocation) -> str:
    """NAME, or NAME/VERSION where each version has a folder of its own."""
    is_versioned = is_version(_absolute(location.folder).name)
    return f"{location.name}/{location.version}" if is_versioned else location.name


def _repository_of(location: ModelLocation) -> Path:
    folder = _absolute(location.folder)
    return folder.parent.parent if is_version(folder.name) else folder.parent


def _absolute(folder: Path) -> Path:
    return folder.resolve() if folder.name in ("", "..") else folder.absolute()


def _locate_version(folder: Path) -> ModelLocation:
    """The version of which this is the folder.

    Raises:
        StartupError: the folder above cannot be a model.
    """
    absolute = _absolute(folder)
    reason = describe_bad_name(absolute.parent.name)
    if reason is not None:
        raise StartupError(f"{folder}: version {absolute.name} of a model: {reason}")
    return ModelLocation(absolute.parent.name, str(int(absolute.name)), folder)


def _find_one(path: Path) -> ModelFolder:
    found = find_model_folders([path])
    if len(found) > 1:
        names = ", ".join(model.name for model in found)
        raise ValueError(f"{path}: expected the folder of one model, it holds {names}")
    return found[0]


def _choose(model: ModelFolder, reference: Reference) -> ModelLocation:
    if reference.version is None:
        # Whatever a server says of all models: the default is the same for every policy of it.
        live = live_versions(model, Settings(version_policy="all"))
        return live.locations[live.versions.index(live.default)]
    for location in model.versions:
        if location.version == reference.version:
            return location
    there = ", ".join(location.version for location in model.versions)
    raise ValueError(
        f"{reference.path}: expected a version that lies there ({there}), got "
        f"{reference.version!r:.20}"
    )
