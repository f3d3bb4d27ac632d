"""Likelihood terms: from our log_prob to the number that the source itself reports.

Ours is the log-density of the data as users have them. Sources add constants, leave some out, or
divide by other counts; each difference is a line in nats and bits/dim, and together they reproduce
the source's number:

    reported = factor * (log_prob + sum of the terms)
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Term:
    """One difference: nats an event that the source has and our log_prob has not.

    A note without nats says what cannot be put in one number, such as noise.
    """

    name: str
    nats: float
    note: str


@dataclass(frozen=True, slots=True)
class Reported:
    """The number that a source prints, given the log-density of its own inputs x.

    reported = factor * (log p(x) + sum of `terms`).

    Attributes:
        name: what the number is called there, with its unit.
        terms: what the source adds to log p(x).
        factor: minus one over the divisor for a loss.
    """

    name: str
    terms: tuple[Term, ...] = ()
    factor: float = 1.0


def describe_likelihood(
    reported: Reported, extra: tuple[Term, ...], data: str, features: int
) -> dict[str, Any]:
    """List the terms between our log_prob and the source's number, for provenance and reports.

    Args:
        reported: the source's number.
        extra: the terms between our log_prob and log p(x).
        data: what our log_prob is the density of.
        features: D, for bits/dim.

    Returns:
        log_prob, terms and source_number, as plain JSON.
    """
    terms = [*extra, *reported.terms]
    return {
        "log_prob": f"log-density in nats of {data}",
        "terms": [
            {
                "name": term.name,
                "nats": term.nats,
                "bits_per_dim": 0.0 - term.nats / (features * math.log(2)),
                "note": term.note,
            }
            for term in terms
        ],
        "source_number": {
            "name": reported.name,
            "formula": "factor * (log_prob + nats)",
            "factor": reported.factor,
            "nats": math.fsum(term.nats for term in terms),
        },
    }


def source_number(likelihood: Mapping[str, Any], log_prob: Tensor) -> Tensor:
    """The number that the source reports for data of this log_prob; both have shape (B,)."""
    number = likelihood["source_number"]
    value: Tensor = float(number["factor"]) * (log_prob + float(number["nats"]))
    return value
