"""The file of API keys: one a line, or in TOML with names, limits and weights.

    [keys.nightly]
    key = "..."                 # or sha256 = "..." of it; a list while one is replaced
    requests_per_second = 100
    rows_per_second = 10000
    rows_in_flight = 4096
    weight = 2                  # its share of a queue beside others, 1 if left out

No message repeats anything that may be a key.
"""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from service.settings import check_keys

# Of the limits, as the file, answers and metrics name them.
LIMITS = ("requests_per_second", "rows_per_second", "rows_in_flight")
# What keys without a name are counted under: those of the settings, and those of a plain file.
OF_SETTINGS, OF_FILE = "key", "file"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,47}")
_RESERVED = re.compile(rf"other|({OF_SETTINGS}|{OF_FILE})-\d+")
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_WORD = re.compile(r"[a-z_]{1,24}")
_LINE = re.compile(r"\(at .*\)$")
_MAX_WEIGHT = 1000
_NUMBERS = (*LIMITS, "weight")
_EXPECTED = {
    **dict.fromkeys(("key", "sha256"), "text, or a list of texts"),
    **dict.fromkeys(("requests_per_second", "rows_per_second"), "a number above 0"),
    "rows_in_flight": "a whole number above 0",
    "weight": f"a number above 0, at most {_MAX_WEIGHT}",
}


@dataclass(frozen=True, slots=True)
class KeyRule:
    """What is said of one key.

    name: in metrics, logs and answers.
    digests: SHA-256 of the keys that are good.
    requests_per_second, rows_per_second, rows_in_flight: its limits; None where there is none.
    weight: its share of a queue, beside others.
    """

    name: str
    digests: tuple[bytes, ...]
    requests_per_second: float | None = None
    rows_per_second: float | None = None
    rows_in_flight: int | None = None
    weight: float = 1.0

    @property
    def limits(self) -> list[str]:
        """The names of the limits that it has."""
        return [limit for limit in LIMITS if getattr(self, limit) is not None]


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


_Texts = Annotated[tuple[str, ...], BeforeValidator(_as_list), Field(strict=False)]
_Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Section(BaseModel):
    """One table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    key: _Texts = ()
    sha256: _Texts = ()
    requests_per_second: _Rate | None = None
    rows_per_second: _Rate | None = None
    rows_in_flight: Annotated[int, Field(gt=0)] | None = None
    weight: Annotated[float, Field(gt=0, le=_MAX_WEIGHT, allow_inf_nan=False)] = 1.0


def read_key_file(file: Path) -> list[KeyRule]:
    """Read the rules of a file: TOML where its name ends in .toml, else one key a line.

    Raises:
        OSError: it cannot be read.
        ValueError: says what is wrong where, and nothing of a key.
    """
    if file.suffix == ".toml":
        return _read_toml(file.read_text("utf-8"))
    lines = [line.strip() for line in file.read_text("ascii").splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ValueError("expected one key a line, got none")
    check_keys(keys)
    return unnamed_rules(keys, OF_FILE)


def unnamed_rules(keys: Iterable[str], kind: str = OF_SETTINGS) -> list[KeyRule]:
    """Give keys names by where they stand, and no limits."""
    return [
        KeyRule(f"{kind}-{number}", (sha256(key.encode()).digest(),))
        for number, key in enumerate(keys, 1)
    ]


def _read_toml(text: str) -> list[KeyRule]:
    try:
        content = tomllib.loads(text)
    except RecursionError:
        raise ValueError("not TOML: brackets within brackets within brackets") from None
    except tomllib.TOMLDecodeError as error:
        where = _LINE.search(str(error))
        # The message itself may hold a part of the line.
        raise ValueError(f"not TOML {where[0] if where else ''}".rstrip()) from None
    sections = content.pop("keys", None)
    if content or not isinstance(sections, dict) or not sections:
        raise ValueError("expected tables [keys.NAME], one a key, and nothing else")
    rules = [_read_section(name, section) for name, section in sections.items()]
    _check_distinct(rules)
    return rules


def _read_section(name: str, content: object) -> KeyRule:
    if not _NAME.fullmatch(name):
        raise ValueError(
            "a name in [keys.NAME]: expected 1 to 48 letters, digits, dots, - and _, a letter or "
            "digit first"
        )
    where = f"[keys.{name}]"
    if _RESERVED.fullmatch(name):
        raise ValueError(f"{where}: the name stands for keys without one, choose another")
    try:
        section = _Section.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{where}: {_explain(error)}") from None
    if bool(section.key) == bool(section.sha256):
        raise ValueError(f"{where}: expected one of key and sha256")
    return replace(
        KeyRule(name, _digests(where, section)),
        weight=section.weight,
        **{limit: getattr(section, limit) for limit in LIMITS},
    )


def _digests(where: str, section: _Section) -> tuple[bytes, ...]:
    try:
        check_keys(section.key)
    except ValueError as error:
        raise ValueError(f"{where}: key: {error}") from None
    if not all(map(_DIGEST.fullmatch, section.sha256)):
        raise ValueError(f"{where}: sha256: expected 64 hexadecimal digits, as sha256sum gives")
    if section.sha256:
        return tuple(map(bytes.fromhex, section.sha256))
    return tuple(sha256(key.encode()).digest() for key in section.key)


def _explain(error: ValidationError) -> str:
    """Say of the first wrong field what was expected, without what stands there."""
    first: Any = error.errors(include_url=False)[0]
    if not first["loc"]:
        return "expected a table"
    field = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        shown = field if _WORD.fullmatch(field) else "a field"  # it may be a key in a wrong place
        return f"{shown}: there is none of this name, expected {', '.join(_Section.model_fields)}"
    given = first["input"]
    is_number = field in _NUMBERS and isinstance(given, int | float)
    got = f", got {given}" if is_number else ""  # else it may be a key
    return f"{field}: expected {_EXPECTED[field]}{got}"


def _check_distinct(rules: Iterable[KeyRule]) -> None:
    seen: dict[bytes, str] = {}
    for rule in rules:
        for digest in rule.digests:
            if digest in seen:
                raise ValueError(
                    f"[keys.{rule.name}]: the same key stands in [keys.{seen[digest]}], expected "
                    "each once"
                )
            seen[digest] = rule.name
