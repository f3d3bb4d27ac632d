"""Arguments of pzflow's bijectors as `bijector_info` lists them: how many, and of which types."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from models.importers.report import ImportRefused
from models.importers.sources.pzflow.bijectors import Bijector

_Check = Callable[[Any, int], bool]


def check_arguments(bijector: Bijector, features: int) -> None:
    """Compare the arguments with what the constructor takes; spline couplings check their own.

    Raises:
        ImportRefused: says what is expected.
    """
    if bijector.name not in _EXPECTED:
        return
    expected, checks = _EXPECTED[bijector.name]
    arguments = bijector.arguments
    is_right = len(arguments) == len(checks) and all(
        check(argument, features) for check, argument in zip(checks, arguments, strict=True)
    )
    if bijector.name == "InvSoftplus" and is_right:
        is_right = len(_flat(arguments[1])) in (1, len(_flat(arguments[0])))
    if not is_right:
        raise ImportRefused(
            f"{bijector.key}: {bijector.name}: expected {expected}, got {list(arguments)!r:.80}"
        )


def are_numbers(value: Any) -> bool:
    """Whether this is a finite number, or lists of such."""
    return all(
        isinstance(item, (int, float)) and not isinstance(item, bool) and math.isfinite(item)
        for item in _flat(value)
    )


def _flat(value: Any) -> Sequence[Any]:
    if not isinstance(value, list):
        return [value]
    return [item for part in value for item in _flat(part)]


def _are_numbers(value: Any, _: int) -> bool:
    return are_numbers(value)


def _is_whole(value: Any, _: int) -> bool:
    return not isinstance(value, list) and are_numbers(value) and int(value) == value


def _are_columns(value: Any, features: int) -> bool:
    return are_numbers(value) and all(
        isinstance(item, int) and -features <= item < features for item in _flat(value)
    )


def _is_list_of_columns(value: Any, features: int) -> bool:
    return isinstance(value, list) and _are_columns(value, features)


def _is_column(value: Any, features: int) -> bool:
    return not isinstance(value, list) and _are_columns(value, features)


_COLUMNS = "columns of the data"
_EXPECTED: dict[str, tuple[str, tuple[_Check, ...]]] = {
    "Roll": ("a whole number", (_is_whole,)),
    "Reverse": ("no arguments", ()),
    "Scale": ("a number", (_are_numbers,)),
    "StandardScaler": ("means and deviations", (_are_numbers, _are_numbers)),
    "ShiftBounds": ("least, largest and B", (_are_numbers, _are_numbers, _are_numbers)),
    "ColorTransform": (
        f"a column and a list of {_COLUMNS}",
        (_is_column, _is_list_of_columns),
    ),
    "InvSoftplus": (
        f"{_COLUMNS} and a sharpness, one for all or one each",
        (_are_columns, _are_numbers),
    ),
    "UniformDequantizer": (_COLUMNS, (_are_columns,)),
    "Beta13Dequantizer": (_COLUMNS, (_are_columns,)),
}
