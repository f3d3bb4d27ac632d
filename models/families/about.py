"""What a user who chooses among the families is told of each, beside its arguments."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Example:
    """A small flow of a family, for users to begin with.

    data: what it is trained on, as `train` reads it.
    event_shape: of these data.
    arguments: all others that are not left at their defaults.
    """

    data: str
    event_shape: tuple[int, ...]
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class About:
    """One line: what the architecture is, which data it models, when to take it.

    Its arguments are described where they are declared, by the fields of its configuration.
    """

    what: str
    data: str
    when: str
    example: Example
