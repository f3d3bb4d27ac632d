"""Which versions of a model are live, and which of them answers requests that name none.

    version_policy = "all"    # "latest", or some of them: [1, 3]
    default_version = 1       # unset: the highest that is live

Both stand in serving.toml in the folder above the versions. What `serving.toml` beside the weights
of one version says, is said of that version.
"""

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.checkpoints.files import check_regular
from service.contracts import VersionPolicy
from service.launch.exits import StartupError
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
    """

    locations: tuple[ModelLocation, ...]
    pinned: str | None

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
    where = {"live": str(path), "default": str(path)}
    if wanted is not None:
        given = {name: value for name, value in wanted._asdict().items() if value is not None}
        said = said._replace(**given)
        where |= dict.fromkeys(given, model.name)
    live = settings.version_policy if said.live is None else said.live
    found = {int(location.version): location for location in model.versions}
    if live == "all":
        chosen = model.versions
    elif live == "latest":
        chosen = model.versions[-1:]
    else:
        missing = [number for number in live if number not in found]
        if missing:
            raise StartupError(
                f"{where['live']}: version_policy: expected versions that lie there "
                f"({_listed(found)}), got {_listed(missing)}"
            )
        chosen = tuple(found[number] for number in sorted(set(live)))
    versions = LiveVersions(chosen, None if said.default is None else str(said.default))
    if versions.default not in versions.versions:
        raise StartupError(
            f"{where['default']}: default_version: expected a version that is live "
            f"({', '.join(versions.versions)}), got {versions.default}: let version_policy have it"
        )
    return versions


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
