"""Mixtures of Gaussians as sources have them, as layers of the `chain` family."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.importers.layouts.chain_layers import Part
from models.importers.layouts.networks import Net
from models.importers.source import prefixed


@dataclass(frozen=True, slots=True)
class Mixture:
    """Sizes of a mixture, and how its numbers are parametrised.

    Attributes:
        features: D.
        components: K.
        is_full: whether covariances are full.
        options: further fields of `GaussianMixtureLayer`.
    """

    features: int
    components: int
    is_full: bool
    options: Mapping[str, Any]

    @property
    def entries(self) -> int:
        """How many entries every factor has below its diagonal."""
        return self.features * (self.features - 1) // 2 if self.is_full else 0

    @property
    def layer(self) -> dict[str, Any]:
        """The description, without a network."""
        return {
            "kind": "gaussian_mixture",
            "components": self.components,
            "covariance": "full" if self.is_full else "diagonal",
            **self.options,
        }

    def constant(self, logits: Tensor, means: Tensor, raw: Tensor, below: Tensor | None) -> Part:
        """With numbers of its own.

        Args:
            logits: (K,).
            means: (K, D).
            raw: of the deviations; (K, D), or with 1 in the place of either where all share it.
            below: entries below the diagonals, row by row, (K or 1, D (D - 1) / 2).
        """
        shape = (self.components, self.features)
        parts = [logits, means.expand(shape), raw.expand(shape)]
        if below is not None and self.is_full:
            parts.append(below.expand(self.components, self.entries))
        return Part(self.layer, {"learned": torch.cat([part.flatten() for part in parts])})

    def of_context(self, net: Net) -> Part:
        """With numbers that a network gives, all of them in the order of `constant`."""
        return Part({**self.layer, "network": net.config}, prefixed("network.", net.state))


def shared_rows(
    components: int, features: int, *, tied: bool, spherical: bool, entries: int
) -> Sequence[int]:
    """Outputs that some components or features share, once for each of them.

    Returns:
        For logits, means, deviations and entries below the diagonal in turn, the place of every
        number in an output that holds what is shared once.
    """
    start = components * (1 + features)
    rows = list(range(start))
    for width, step in ((features, not spherical), (entries, True)):
        per_component = width if step else min(width, 1)
        for component in range(components):
            first = start if tied else start + component * per_component
            rows += [first + (index if step else 0) for index in range(width)]
        start += per_component * (1 if tied else components)
    return rows
