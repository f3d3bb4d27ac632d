"""What a user who chooses among the families is told of each, beside its arguments."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Example:
    """A small flow of a family, for users to begin with.

    data: what it is trained on, as `train` reads it.
    event_shape: of these data.
    arguments: all others that are not left at their defaults.
    options: of the training, the same.
    """

    data: str
    event_shape: tuple[int, ...]
    arguments: Mapping[str, Any]
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cost:
    """How often an operation on a row evaluates each network of a flow.

    A number, D for the number of features, or a word for what each row needs in its own way; first
    for the example of the family, then for other arguments.

    encode: of `encode`, `log_prob` and `score`.
    decode: of `decode` and `sample`.
    """

    encode: str
    decode: str


SOLVER = Cost(encode="evaluations", decode="evaluations")
ONE_PASS = Cost(encode="1", decode="1")


@dataclass(frozen=True, slots=True)
class About:
    """What the architecture is, which data it models, when to take it, what it costs.

    Its arguments are described where they are declared, by the fields of its configuration.
    """

    what: str
    data: str
    when: str
    cost: Cost
    example: Example
