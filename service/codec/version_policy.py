r"""Which versions of a model a client wants live, from the parameters of a load.

    {"config": "{\"version_policy\": {\"specific\": {\"versions\": [1, 3]}}}", "default_version": 1}

Reference: Triton, extension_model_repository.md and model_configuration.md (version policy).
`default_version` is ours.
"""

from collections.abc import Mapping
from typing import Any, Literal

import orjson

from service.contracts import VersionPolicy
from service.errors import InvalidParameter

_CONFIG, _DEFAULT = "config", "default_version"
NAMES = (_CONFIG, _DEFAULT)
_MOST = 10**9
_EXPECTED = (
    'expected {"version_policy": {"latest": {}}}, {"all": {}} or {"specific": {"versions": [1, 3]}}'
)


def read_version_policy(parameters: Mapping[str, Any]) -> VersionPolicy | None:
    """Read the parameters that say which versions are to be live; None where none does.

    Raises:
        InvalidParameter: saying which is wrong.
    """
    if not any(parameters.get(name) is not None for name in NAMES):
        return None
    config, default = parameters.get(_CONFIG), parameters.get(_DEFAULT)
    if default is not None and not _is_version(default):
        raise _wrong(_DEFAULT, f"expected a version as 3, got {default!r:.40}")
    return VersionPolicy(None if config is None else _read_config(config), default)


def _read_config(text: object) -> Literal["latest", "all"] | tuple[int, ...]:
    try:
        config = orjson.loads(text if isinstance(text, str) else "")
    except orjson.JSONDecodeError:
        raise _wrong(_CONFIG, f"expected JSON in a string: {_EXPECTED}") from None
    _, policy = _only(config, ("version_policy", "versionPolicy"))
    kind, said = _only(policy, ("latest", "all", "specific"))
    if kind == "specific":
        _, versions = _only(said, ("versions",))
        # Protocol Buffers write 64-bit integers as text in JSON.
        numbers = [
            int(each) if isinstance(each, str) and each.isdecimal() else each
            for each in (versions if isinstance(versions, list) else [])
        ]
        if not numbers or not all(map(_is_version, numbers)):
            raise _wrong(_CONFIG, _EXPECTED)
        return tuple(numbers)
    if kind == "latest":
        if said not in ({}, {"num_versions": 1}, {"numVersions": 1}):
            raise _wrong(_CONFIG, "latest: expected num_versions 1: list several as specific")
        return "latest"
    if said != {}:
        raise _wrong(_CONFIG, _EXPECTED)
    return "all"


def _only(content: object, names: tuple[str, ...]) -> tuple[str, Any]:
    """The one member of an object, which has one of these names."""
    if not isinstance(content, dict) or len(content) != 1:
        raise _wrong(_CONFIG, _EXPECTED)
    ((name, value),) = content.items()
    if name not in names:
        raise _wrong(_CONFIG, f"{name:.40}: {_EXPECTED}; all else comes from the repository alone")
    return name, value


def _is_version(value: object) -> bool:
    return type(value) is int and 0 <= value < _MOST


def _wrong(name: str, detail: str) -> InvalidParameter:
    return InvalidParameter(f"{name}: {detail}", at=f"/parameters/{name}")
