"""The fields of requests and answers: each one's name, type, bounds and description, once.

What reads a value and what describes it in OpenAPI are made of the same bounds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from service.codec.columns import FIELD, read_names
from service.codec.missing import INVALID as INVALID_NAME
from service.codec.missing import NULL, REFUSE
from service.codec.parameters import (
    read_choice,
    read_flag,
    read_integer,
    read_name,
    read_number,
)

_NULL = {"type": "null"}
_ROWS = {"type": "array", "minItems": 1, "items": {"type": "array"}}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a request.

    name: in JSON, in the query string and in an npz body.
    schema: of its values, as JSON Schema has it.
    read: takes a value as it was parsed; raises `InvalidRequest` where it is not what it should be.
    default: of a field that is left out.
    is_required: whether it may not be left out.
    is_text: whether a query string holds it as it is, and not as JSON.
    """

    name: str
    schema: dict[str, Any]
    read: Callable[[Any], Any]
    default: Any = None
    is_required: bool = False
    is_text: bool = False

    def value(self, fields: dict[str, Any]) -> Any:
        """Read this field of a request.

        Raises:
            InvalidRequest: as `read`.
        """
        return self.read(fields[self.name]) if self.name in fields else self.default


@dataclass(frozen=True, slots=True)
class Output:
    """One member of an answer: a tensor with a row of its own for each row, or a scalar.

    is_always: whether every answer has it.
    is_tensor: whether it has a row for each row.
    dtype: of a tensor where that is not the model's own.
    """

    name: str
    schema: dict[str, Any]
    is_always: bool = True
    is_tensor: bool = False
    dtype: str | None = None


def integer(name: str, low: int, high: int, text: str, *, default: int | None = None) -> Field:
    """A whole number in low .. high; null is as good as absent."""
    schema = {"type": "integer", "minimum": low, "maximum": high}
    return Field(
        name,
        _optional(schema, text, default),
        lambda value: default if value is None else read_integer(value, name, low, high),
        default,
    )


def number(name: str, low: float, high: float, text: str, *, default: float) -> Field:
    """A finite number in low .. high; null is as good as absent."""
    schema = {"type": "number", "minimum": low, "maximum": high}
    return Field(
        name,
        _optional(schema, text, default),
        lambda value: default if value is None else read_number(value, name, low, high),
        default,
    )


def flag(name: str, text: str, *, default: bool) -> Field:
    """True or false; null is neither."""
    schema = {"type": "boolean", "default": default, "description": text}
    return Field(name, schema, lambda value: read_flag(value, name), default)


def rows(name: str, text: str) -> Field:
    """A tensor whose first axis is the batch; `service.codec.tensors.read_rows` reads it."""
    return Field(name, {**_ROWS, "description": text}, _as_it_is, is_required=True)


def event_rows(name: str, text: str) -> Field:
    """Such a tensor of a model's own rows, which may be objects where their columns have names."""
    row = {"type": ["array", "object"], "additionalProperties": {"type": "number"}}
    return Field(name, {**_ROWS, "items": row, "description": text}, _as_it_is, is_required=True)


def row_output(name: str, text: str, *, is_always: bool = True) -> Output:
    """A row of numbers for each row; null where one is not finite."""
    schema = {"type": "array", "items": {"type": ["array", "null"]}, "description": text}
    return Output(name, schema, is_always, is_tensor=True)


def number_output(
    name: str, text: str, *, is_always: bool = True, dtype: str | None = None
) -> Output:
    """A number for each row; null where it is not finite."""
    schema = {"type": "array", "items": {"type": ["number", "null"]}, "description": text}
    return Output(name, schema, is_always, is_tensor=True, dtype=dtype)


def truth_output(name: str, text: str) -> Output:
    """True or false for each row, in answers that have it."""
    schema = {"type": "array", "items": {"type": "boolean"}, "description": text}
    return Output(name, schema, is_always=False, is_tensor=True, dtype="bool")


def scalar_output(
    name: str, kind: str, text: str, *, is_always: bool = True, **bounds: int
) -> Output:
    """One value for the whole answer, of a JSON type, within bounds named as in JSON Schema."""
    return Output(name, {"type": kind, **bounds, "description": text}, is_always)


def _optional(schema: dict[str, Any], text: str, default: Any) -> dict[str, Any]:
    return {"anyOf": [schema, _NULL], "default": default, "description": text}


def _as_it_is(value: Any) -> Any:
    return value


MODEL = Field(
    "model",
    {
        "anyOf": [{"type": "string"}, _NULL],
        "default": None,
        "description": "NAME, or NAME@VERSION of a version that is live. May be left out when one "
        "model is served.",
    },
    lambda value: read_name(value, "model"),
    is_text=True,
)
CONTEXT = Field(
    "context",
    {
        "type": ["array", "integer", "null"],
        "default": None,
        "description": "What a conditional model is conditioned on: one row a row, or one for all. "
        "Class-conditional models take labels 0 .. num_classes - 1 (one, or a list).",
    },
    _as_it_is,
)
COLUMNS = Field(
    FIELD,
    {
        "anyOf": [
            {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True},
            {"type": "string"},
            _NULL,
        ],
        "default": None,
        "description": "Names of the columns of x, all of them, in the order in which they stand "
        "there; as text with commas between them. For models with feature_names; objects name "
        "theirs themselves.",
    },
    read_names,
    is_text=True,
)
INVALID = Field(
    INVALID_NAME,
    {
        "type": "string",
        "enum": [REFUSE, NULL],
        "default": REFUSE,
        "description": "What becomes of rows with NaN, an infinity, a number too large for the "
        "model or a missing value (null): one refuses the request, or each is answered null.",
    },
    lambda value: read_choice(value, INVALID_NAME, (REFUSE, NULL)),
    REFUSE,
    is_text=True,
)
RETURN_EVALUATIONS = flag(
    "return_evaluations",
    "Say how often each row's field was evaluated (continuous flows), or how many passes of the "
    "networks it took (decoding=jacobi or passes).",
    default=False,
)
