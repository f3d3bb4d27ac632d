"""Hyper-parameters: what the user gives, what the weights say, and where the two disagree."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from models.importers.report import (
    HyperParametersMissing,
    ImportRefused,
    Origin,
    Report,
    Setting,
)
from models.importers.source import Inference, Inferred, Shown, Source, SourceConfig, plain

_MAX_NAMED = 3
# In every config.json of a source, whatever its own names are: who made it, not how.
_LABELS = ("source", "family", "version")


@dataclass(frozen=True, slots=True)
class HyperparameterSources:
    """Where hyper-parameters come from.

    Attributes:
        given: by the user; keys that begin with "_" are notes.
        stored: arguments found in the file; names that the source does not know are passed over.
        inference: what the weights say.
    """

    given: Mapping[str, Any]
    stored: Mapping[str, Any]
    inference: Inference


def resolve(source: Source, sources: HyperparameterSources, report: Report) -> SourceConfig:
    """Join given, stored and inferred hyper-parameters, and validate them.

    What the user gives comes first, then what the file itself holds, then what the weights imply,
    then the source's own defaults. Weights are never overruled: a given value that they exclude is
    an error, a stored one is mended.

    Args:
        source: whose hyper-parameters.
        sources: where they come from.
        report: gets a `Setting` each, before anything is refused.

    Returns:
        The hyper-parameters, validated.

    Raises:
        ImportRefused: names everything that is unknown, in conflict or of a wrong type.
        HyperParametersMissing: if all that is wrong is that some are missing; names them.
    """
    fields = source.config.model_fields
    given = _clean(source, sources, report)
    stored = source.unfold(sources.stored)
    known = HyperparameterSources(given, stored, sources.inference)
    report.settings = [_setting(name, info, known) for name, info in fields.items()]
    faults: list[str] = []
    missing: list[str] = []
    for setting in report.settings:
        inferred = sources.inference.found.get(setting.name)
        if setting.origin == "given":
            called = _called(source, setting.name, sources.given)
            faults += _conflict(setting, called, inferred, fields[setting.name])
            _compare_with_file(setting, stored, report)
        elif setting.origin == "missing":
            missing.append(
                f"{setting.name} is not in the checkpoint; give it, it may be {setting.reason}"
            )
        elif setting.name in stored and inferred is not None and setting.origin == "inferred":
            report.mended(
                setting.name,
                f"the file says {stored[setting.name]!r}, its weights {inferred.value!r} "
                f"({inferred.reason}): the weights are right",
            )
    if faults:
        raise ImportRefused(_sentence(source, [*faults, *missing]))
    if missing:
        raise HyperParametersMissing(_sentence(source, missing))
    return _validate(source, {setting.name: setting.value for setting in report.settings})


def _setting(name: str, info: FieldInfo, sources: HyperparameterSources) -> Setting:
    """Choose where one hyper-parameter comes from."""
    inferred = sources.inference.found.get(name)
    if name in sources.given:
        return Setting(name, plain(sources.given[name]), "given", "by the user")
    if name in sources.stored and not _contradicts(sources.stored[name], inferred):
        value = plain(sources.stored[name])
        return Setting(name, value, "checkpoint", "stored beside the weights")
    if inferred is not None:
        origin: Origin = "inferred" if inferred.firm else "default"
        return Setting(name, plain(inferred.value), origin, inferred.reason)
    asked = sources.inference.asked.get(name)
    if asked is None and not info.is_required():
        default = plain(info.get_default(call_default_factory=True))
        return Setting(name, default, "default", info.description or "of the source")
    fitting = asked or info.description or "any value of its type"
    return Setting(name, None, "missing", fitting)


def refuse_unused(
    source: Source, config: SourceConfig, inference: Inference, report: Report
) -> None:
    """Refuse hyper-parameters that were given and that a conversion did not use.

    One is used if the conversion read it, or if the weights fix it: then the two were compared.

    Args:
        source: whose hyper-parameters.
        config: as the conversion has left it.
        inference: what the weights say.
        report: its settings say which were given.

    Raises:
        ImportRefused: names them.
    """
    given = [setting.name for setting in report.settings if setting.origin == "given"]
    fixed = {name for name, inferred in inference.found.items() if inferred.firm}
    unused = [name for name in given if name not in config.read | fixed | inference.idle.keys()]
    if unused:
        raise ImportRefused(
            _sentence(
                source,
                [
                    f"{name}: given, but nothing in this checkpoint uses it, so it would be "
                    "ignored; leave it out, or is this another model than you think?"
                    for name in unused
                ],
            )
        )
    for name in sorted(set(given) & inference.idle.keys()):
        report.ignored(name, inference.idle[name])


def _clean(source: Source, sources: HyperparameterSources, report: Report) -> dict[str, Any]:
    fields, shown = source.config.model_fields, sources.inference.shown
    settings = {name: value for name, value in sources.given.items() if not name.startswith("_")}
    clean: dict[str, Any] = {}
    for name, value in source.unfold(settings).items():
        if name in fields:
            clean[name] = value
        elif name in source.training_only:
            report.ignored(name, "a setting of the training script: no part of the function")
        elif name in shown:
            _compare(_called(source, name, sources.given), value, shown[name], report)
        elif name in sources.inference.idle:
            report.ignored(name, sources.inference.idle[name])
        elif name not in _LABELS:
            close = get_close_matches(name, [*fields, *shown], n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ImportRefused(
                f"{name}: not a hyper-parameter of {source.name} that this checkpoint has{hint}; "
                f"expected one of {', '.join(fields)}"
            )
    return clean


def _compare(name: str, value: Any, shown: Shown, report: Report) -> None:
    """Compare an argument that the conversion does without with what the keys show.

    Raises:
        ImportRefused: names both, where they disagree.
    """
    if plain(value) not in [plain(fitting) for fitting in shown.fitting]:
        fitting = " or ".join(json.dumps(plain(value)) for value in shown.fitting[:_MAX_NAMED])
        raise ImportRefused(
            f"{name}: {json.dumps(plain(value))} was given, but the weights say {fitting} "
            f"({shown.reason}); leave it out or correct it"
        )
    report.recognised(name, f"as given: {shown.reason}")


def _called(source: Source, name: str, given: Mapping[str, Any]) -> str:
    """A name of the source as the user has it."""
    others = (user for user, own in source.renamed.items() if own == name and user in given)
    return name if name in given else next(others, name)


def _compare_with_file(setting: Setting, stored: Mapping[str, Any], report: Report) -> None:
    if setting.name in stored and _is_other(stored[setting.name], setting.value):
        report.warning(
            setting.name,
            f"{json.dumps(setting.value)} was given and is taken; the file says "
            f"{stored[setting.name]!r}",
        )


def _is_other(stored: Any, value: Any) -> bool:
    try:
        return bool(plain(stored) != value)
    except (TypeError, ValueError):  # not JSON
        return True


def _conflict(
    setting: Setting, called: str, inferred: Inferred | None, field: FieldInfo
) -> list[str]:
    if inferred is None or not _contradicts(_as_field(setting.value, field), inferred):
        return []
    return [
        f"{called}: {json.dumps(setting.value)} was given, but the weights say "
        f"{json.dumps(plain(inferred.value))} ({inferred.reason}); leave it out or correct it"
    ]


def _as_field(value: Any, field: FieldInfo) -> Any:
    """A value as a field spells it ("relu" for "nn.ReLU"), or as it is where it does not fit."""
    annotated: Any = Annotated[field.annotation, field]
    adapter = TypeAdapter(annotated)
    try:
        return adapter.dump_python(adapter.validate_json(json.dumps(value), strict=True))
    except ValidationError:
        return value


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
