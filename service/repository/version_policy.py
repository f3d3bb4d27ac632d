"""Which versions of a model are live, and which of them answers requests that name none.

    version_policy = "all"    # "latest", or some of them: [1, 3]
    default_version = 1       # unset: the highest that is live

Both stand in serving.toml in the folder above the versions. What `serving.toml` beside the weights
of one version says, is said of that version.
"""

import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.checkpoints.files import check_regular
from service.contracts import VersionPolicy
from service.launch.exits import StartupError
from service.remote.cache import name_of_uri
from service.remote.look import ChooseVersions
from service.repository.folders import ModelFolder, ModelLocation, find_model_folders
from service.repository.overrides import MAX_BYTES, SERVING_FILE, SETTING_NAMES
from service.settings import Settings, flag_name

_Version = Annotated[int, Field(ge=0, lt=10**9)]
_Versions = Annotated[tuple[_Version, ...], Field(min_length=1, strict=False)]


class _VersionsFile(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    version_policy: Literal["latest", "all"] | _Versions | None = None
    default_version: _Version | None = None


class LiveVersions(NamedTuple):
    """The versions of a model that are to be live.

    locations: at least one, the highest last.
    pinned: the one that answers requests that name none; None: the highest that can be served.
    each_alone: whether each stands for itself, as where all are wanted; else what can be served of
        them does not replace what is live as long as one of them cannot.
    """

    locations: tuple[ModelLocation, ...]
    pinned: str | None
    each_alone: bool

    @property
    def versions(self) -> tuple[str, ...]:
        """Their numbers."""
        return tuple(location.version for location in self.locations)

    def find(self, version: str) -> ModelLocation | None:
        """The location of one of them."""
        return next((one for one in self.locations if one.version == version), None)

    @property
    def default(self) -> str:
        """The version that is to answer requests that name none."""
        return self.locations[-1].version if self.pinned is None else self.pinned


def live_versions(
    model: ModelFolder, settings: Settings, wanted: VersionPolicy | None = None
) -> LiveVersions:
    """Find the versions of a model that are to be live.

    Args:
        model: all that lie there.
        settings: of the service.
        wanted: what was said when the model was loaded by name; it wins over the file.

    Raises:
        StartupError: the file cannot be used, or it names a version that is not there.
    """
    path = model.folder / SERVING_FILE
    said = _read(path) if model.has_versions else VersionPolicy()
    said, where = _laid_over(said, wanted, model.name, str(path))
    found = {int(location.version): location for location in model.versions}
    live = _live(said, settings)
    numbers = _choose(found, live, where["live"])
    chosen = tuple(found[number] for number in numbers)
    pinned = None if said.default is None else str(said.default)
    versions = LiveVersions(chosen, pinned, each_alone=live == "all")
    _check_default(versions.default, versions.versions, where["default"])
    return versions


def chooser(uri: str, settings: Settings, wanted: Mapping[str, VersionPolicy]) -> ChooseVersions:
    """What tells which versions of the models behind a URI are to be copied.

    Args:
        uri: of models.
        settings: of the service.
        wanted: what was said of models when they were loaded by name.
    """

    def choose(folder: str, path: Path | None, found: Collection[int]) -> Collection[int]:
        name = folder or settings.model_name or name_of_uri(uri)
        said = VersionPolicy() if path is None else _read(path)
        said, where = _laid_over(said, wanted.get(name), name, str(path or name))
        numbers = _choose(found, _live(said, settings), where["live"])
        default = numbers[-1] if said.default is None else said.default
        _check_default(str(default), [str(number) for number in numbers], where["default"])
        return numbers

    return choose


def _laid_over(
    said: VersionPolicy, wanted: VersionPolicy | None, name: str, path: str
) -> tuple[VersionPolicy, dict[str, str]]:
    """What was wanted by name over what the file says, and where each was said."""
    where = {"live": path, "default": path}
    if wanted is None:
        return said, where
    given = {field: value for field, value in wanted._asdict().items() if value is not None}
    return said._replace(**given), where | dict.fromkeys(given, name)


def _live(said: VersionPolicy, settings: Settings) -> Literal["latest", "all"] | tuple[int, ...]:
    return settings.version_policy if said.live is None else said.live


def _choose(
    found: Collection[int], live: Literal["latest", "all"] | tuple[int, ...], where: str
) -> list[int]:
    """Of the versions that lie there those that are live, the highest last.

    Raises:
        StartupError: one that is named is not there.
    """
    if live == "all":
        return sorted(found)
    if live == "latest":
        return [max(found)]
    missing = [number for number in live if number not in found]
    if missing:
        raise StartupError(
            f"{where}: version_policy: expected versions that lie there "
            f"({_listed(found)}), got {_listed(missing)}"
        )
    return sorted({*live})


def _check_default(default: str, live: Sequence[str], where: str) -> None:
    if default not in live:
        raise StartupError(
            f"{where}: default_version: expected a version that is live "
            f"({', '.join(live)}), got {default}: let version_policy have it"
        )


def find_live(folders: Iterable[Path], settings: Settings) -> list[ModelLocation]:
    """Find all versions that are to be live, in order of name.

    Raises:
        StartupError: a folder or a file in it cannot be used.
    """
    return [
        location
        for model in find_model_folders(folders, settings.model_name)
        for location in live_versions(model, settings).locations
    ]


def _read(path: Path) -> VersionPolicy:
    try:
        check_regular(path, MAX_BYTES)
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        said = _VersionsFile.model_validate(content)
    except FileNotFoundError:
        return VersionPolicy()
    except ValidationError as error:
        raise StartupError(f"{path}: {_describe(error)}") from None
    except (OSError, ValueError) as error:  # not UTF-8, not TOML
        raise StartupError(f"{path}: cannot be read: {error}") from None
    return VersionPolicy(said.version_policy, said.default_version)


def _describe(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    field = str(first["loc"][0])
    if field == "version_policy":
        return f'{field}: expected "latest", "all" or a list of versions as [1, 3]'
    if field == "default_version":
        return f"{field}: expected a version as 3, got {first['input']!r:.40}"
    if field in SETTING_NAMES:
        return (
            f"{field}: expected version_policy or default_version; what is said of one version "
            f"belongs to {SERVING_FILE} in its own folder, and of all models to {flag_name(field)}"
        )
    return f"{field}: expected version_policy or default_version"


def _listed(versions: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(versions)))
