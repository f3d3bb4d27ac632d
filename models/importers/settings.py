"""Hyper-parameters: what the user gives, what the weights say, and where the two disagree."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from models.importers.findings import (
    Findings,
    HyperParametersMissing,
    ImportRefused,
    Origin,
    Report,
    Setting,
)
from models.importers.source import Inference, Inferred, Source, SourceConfig, plain

# In every config.json of a source, whatever its own names are: who made it, not how.
_LABELS = ("source", "family", "version")


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where hyper-parameters come from.

    Attributes:
        given: by the user; keys that begin with "_" are notes.
        stored: arguments found in the file; names that the source does not know are passed over.
        inference: what the weights say.
    """

    given: Mapping[str, Any]
    stored: Mapping[str, Any]
    inference: Inference


def settle(source: Source, evidence: Evidence, report: Report) -> SourceConfig:
    """Join given, stored and inferred hyper-parameters, and validate them.

    What the user gives comes first, then what the file itself holds, then what the weights imply,
    then the source's own defaults. Weights are never overruled: a given value that they exclude is
    an error, a stored one is mended.

    Args:
        source: whose hyper-parameters.
        evidence: where they come from.
        report: gets a `Setting` each, before anything is refused.

    Raises:
        ImportRefused: names everything that is unknown, in conflict or of a wrong type.
        HyperParametersMissing: if all that is wrong is that some are missing; names them.
    """
    fields = source.config.model_fields
    given = _clean(source, evidence.given, report.findings)
    stored = source.unfold(evidence.stored)
    known = Evidence(given, stored, evidence.inference)
    report.settings = [_setting(name, info, known) for name, info in fields.items()]
    faults: list[str] = []
    missing: list[str] = []
    for setting in report.settings:
        inferred = evidence.inference.found.get(setting.name)
        if setting.origin == "given":
            faults += _conflict(setting, inferred)
        elif setting.origin == "missing":
            missing.append(
                f"{setting.name} is not in the checkpoint; give it, it may be {setting.reason}"
            )
        elif setting.name in stored and inferred is not None and setting.origin == "inferred":
            report.findings.mended(
                setting.name,
                f"the file says {stored[setting.name]!r}, its weights {inferred.value!r} "
                f"({inferred.reason}): the weights are right",
            )
    if faults:
        raise ImportRefused(_sentence(source, [*faults, *missing]))
    if missing:
        raise HyperParametersMissing(_sentence(source, missing))
    return _validate(source, {setting.name: setting.value for setting in report.settings})


def _setting(name: str, info: FieldInfo, evidence: Evidence) -> Setting:
    """Choose where one hyper-parameter comes from."""
    inferred = evidence.inference.found.get(name)
    if name in evidence.given:
        return Setting(name, plain(evidence.given[name]), "given", "by the user")
    if name in evidence.stored and not _contradicts(evidence.stored[name], inferred):
        value = plain(evidence.stored[name])
        return Setting(name, value, "checkpoint", "stored beside the weights")
    if inferred is not None:
        origin: Origin = "inferred" if inferred.firm else "default"
        return Setting(name, plain(inferred.value), origin, inferred.reason)
    asked = evidence.inference.asked.get(name)
    if asked is None and not info.is_required():
        default = plain(info.get_default(call_default_factory=True))
        return Setting(name, default, "default", info.description or "of the source")
    fitting = asked or info.description or "any value of its type"
    return Setting(name, None, "missing", fitting)


def _clean(source: Source, given: Mapping[str, Any], findings: Findings) -> dict[str, Any]:
    fields = source.config.model_fields
    settings = {name: value for name, value in given.items() if not name.startswith("_")}
    clean: dict[str, Any] = {}
    for name, value in source.unfold(settings).items():
        if name in fields:
            clean[name] = value
        elif name in source.training_only:
            findings.ignored(name, "a setting of the training script: no part of the function")
        elif name in source.read_off_keys:
            findings.ignored(name, "read off the keys instead")
        elif name not in _LABELS:
            close = get_close_matches(name, fields, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ImportRefused(
                f"{name}: not a hyper-parameter of {source.name}{hint}; expected one of "
                f"{', '.join(fields)}"
            )
    return clean


def _conflict(setting: Setting, inferred: Inferred | None) -> list[str]:
    if inferred is None or not _contradicts(setting.value, inferred):
        return []
    return [
        f"{setting.name}: {json.dumps(setting.value)} was given, but the weights say "
        f"{json.dumps(plain(inferred.value))} ({inferred.reason}); leave it out or correct it"
    ]


def _contradicts(value: Any, inferred: Inferred | None) -> bool:
    try:
        return inferred is not None and inferred.firm and plain(value) != plain(inferred.value)
    except (TypeError, ValueError):  # not JSON, so nothing a source has
        return True


def _validate(source: Source, values: Mapping[str, Any]) -> SourceConfig:
    try:
        return source.config.model_validate_json(json.dumps(values))
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, item['loc'])) or 'config'}: {item['msg']}, got {item['input']!r}"
            for item in error.errors(include_url=False, include_context=False)
        ]
        raise ImportRefused(_sentence(source, faults)) from None


def _sentence(source: Source, faults: list[str]) -> str:
    return f"{source.name}: {'; '.join(faults)}"
