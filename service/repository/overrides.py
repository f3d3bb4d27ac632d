"""The overrides of one version's settings: serving.toml, a file beside its weights.

    engine = "torch"
    device = "cuda:1"
    dtype = "float64"
    max_batch_size = 64

Every name but `dtype` is that of a setting, and wins over it for this version. Which versions are
live is said in the folder above them (`service.repository.version_policy`).
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError, create_model

from models.checkpoints.files import check_regular
from service.engines.device import resolve_device
from service.launch.exits import StartupError
from service.settings import Settings, flag_name

SERVING_FILE = "serving.toml"
MAX_BYTES = 64 * 1024
# What is said of all versions of a model.
VERSION_NAMES = ("version_policy", "default_version")

SETTING_NAMES = (
    "engine",
    "device",
    "precision",
    "batching",
    "max_batch_size",
    "max_batch_delay_seconds",
    "max_queue_rows",
    "max_queue_seconds",
    "instances",
    "max_inline_seconds",
)
_fields: dict[str, Any] = {
    name: (Settings.model_fields[name].annotation, Settings.model_fields[name])
    for name in SETTING_NAMES
}
# A model is on one of them.
_fields["device"] = (str, Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$"))
_fields["dtype"] = (Literal["float32", "float64"], None)
# Strict: "64" is no number. The checks are those of the settings themselves.
_ServingFile = create_model(
    "_ServingFile",
    __config__=ConfigDict(strict=True, extra="forbid"),
    **_fields,
)


@dataclass(frozen=True, slots=True)
class ModelOverrides:
    """The settings of one model.

    device: resolved, "cpu" or "cuda:N". dtype: None is what the model's config.json says.
    """

    settings: Settings
    device: str
    dtype: str | None


def read_overrides(folder: Path, settings: Settings) -> ModelOverrides:
    """Lay a model's own settings, where it has some, over those of the service.

    Raises:
        StartupError: naming the file and the first field that is wrong.
    """
    path = folder / SERVING_FILE
    given = _read(path)
    dtype = given.pop("dtype", None)
    merged = settings.model_copy(update=given)
    try:
        return ModelOverrides(merged, resolve_device(merged.device), dtype)
    except ValueError as error:
        where = f"{path}: device" if "device" in given else flag_name("device")
        raise StartupError(f"{where}: {error}") from None


def own_device(folder: Path) -> str:
    """The device that a model's own settings name; empty where they name none.

    Raises:
        StartupError: naming the file and the first field that is wrong.
    """
    return str(_read(folder / SERVING_FILE).get("device", ""))


def _read(path: Path) -> dict[str, Any]:
    try:
        check_regular(path, MAX_BYTES)
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return _ServingFile.model_validate(content).model_dump(exclude_unset=True)
    except FileNotFoundError:
        return {}
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(map(str, first["loc"]))
        known = f"; expected {', '.join(_ServingFile.model_fields)}" * (
            first["type"] == "extra_forbidden"
        )
        if field in VERSION_NAMES:
            known = f": it belongs to {SERVING_FILE} in the folder above the versions of a model"
        raise StartupError(f"{path}: {field}: {first['msg']}{known}") from None
    except (OSError, ValueError) as error:  # not UTF-8, not TOML
        raise StartupError(f"{path}: cannot be read: {error}") from None
