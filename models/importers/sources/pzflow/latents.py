"""Latent distributions of pzflow as layers: what makes their latents standard normal."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from models.importers.layouts.chain_layers import Part
from models.importers.report import ImportRefused

_BOUNDED = ("Uniform", "CentBeta13")
_EXPONENT = 13
_REFUSED = {
    "CentBeta": "exponents that were trained with the flow; CentBeta13 can be imported",
    "Tdist": (
        "a multivariate Student distribution, whose columns depend on each other; Normal, Uniform "
        "and CentBeta13 can be imported"
    ),
}


@dataclass(frozen=True, slots=True)
class Latent:
    """A distribution over some of the latents, all alike and independent.

    Attributes:
        name: its class.
        features: how many latents.
        bound: they lie in [-bound, bound]; infinity for all numbers.
    """

    name: str
    features: int
    bound: float = math.inf

    def shown(self) -> tuple[str, ...]:
        """As users write it."""
        if math.isinf(self.bound):
            return f"{self.name}({self.features})", self.name
        bound = f"{self.bound:g}"
        forms = [
            f"{self.name}({self.features}, {bound})",
            f"{self.name}({self.features}, B={bound})",
        ]
        return (*forms, f"{self.name}({self.features})", self.name)


def read(info: Any) -> list[Latent]:
    """The distributions of a `latent_info`, in the order of their latents.

    Raises:
        ImportRefused: names the first that cannot be imported.
    """
    latents = list(_flatten(info))
    if any(latent.features < 1 for latent in latents):
        raise ImportRefused(f"latent_info: expected a latent or more of each, got {info!r:.80}")
    return latents


def convert(latents: list[Latent]) -> list[Part]:
    """Layers that make latents of these distributions standard normal."""
    parts: list[Part] = []
    start = 0
    for latent in latents:
        chosen = list(range(start, start + latent.features))
        start += latent.features
        if math.isfinite(latent.bound):
            parts.append(_bounded(latent, chosen))
    return parts


def _flatten(info: Any) -> Iterator[Latent]:
    match info:
        case ["Joint", ["Joint info", [*parts]]]:
            for part in parts:
                yield from _flatten(part)
        case ["Normal", [int(features)]]:
            yield Latent("Normal", features)
        case [str(name), [int(features), int(bound) | float(bound)]] if name in _BOUNDED:
            if not 0 < bound < math.inf:
                raise ImportRefused(f"latent_info: expected a finite positive bound, got {bound}")
            yield Latent(name, features, float(bound))
        case [str(name), *_]:
            reason = _REFUSED.get(name, "no distribution of pzflow 4.0")
            raise ImportRefused(f"latent_info: {name}: {reason}")
        case _:
            raise ImportRefused(
                f"latent_info: expected (name, arguments) of a distribution, got {info!r:.80}"
            )


def _bounded(latent: Latent, chosen: list[int]) -> Part:
    layer: dict[str, Any] = {"kind": "uniform"}
    if latent.name == "CentBeta13":
        layer = {"kind": "beta", "exponent": _EXPONENT}
    return Part({**layer, "chosen": chosen, "low": [-latent.bound], "high": [latent.bound]}, {})
