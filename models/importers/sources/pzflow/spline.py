"""NeuralSplineCoupling of pzflow: the first columns, and the conditions, say how the last move.

Its network is Dense and LeakyReLU by turns, of jax: x W + b with W of shape (in, out). It ends in
all the parameters of the first moved column, then those of the second: widths, heights, inner
slopes. Bins are shares of 2 B without a least size, slopes softplus without one. Periodic splines
have one more slope, the last, for both ends.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F

from models.importers.layouts import chain_layers, networks
from models.importers.layouts.chain_layers import Part
from models.importers.layouts.networks import Linear
from models.importers.report import ImportRefused
from models.importers.weights import Weights

_ACTIVATION = "leaky_relu"
_SLOPE = 0.01


@dataclass(frozen=True, slots=True)
class SplineCoupling:
    """Arguments of its constructor, under their own names; and where its tensors are."""

    key: str
    K: int
    B: float
    hidden_layers: int
    hidden_dim: int
    transformed_dim: int | None
    n_conditions: int
    periodic: bool = False

    @classmethod
    def of(cls, key: str, arguments: Sequence[Any]) -> "SplineCoupling":
        """Read the arguments as `bijector_info` lists them.

        Raises:
            ImportRefused: if they are not what the constructor takes.
        """
        try:
            made = cls(key, *arguments)
            counts: list[Any] = [
                made.K,
                made.hidden_layers + 1,
                made.hidden_dim,
                made.n_conditions + 1,
            ]
            counts += [] if made.transformed_dim is None else [made.transformed_dim]
            are_counts = all(isinstance(count, int) and count > 0 for count in counts)
            is_right = are_counts and 0 < made.B < math.inf and made.periodic in (True, False)
        except TypeError:
            is_right = False
        if not is_right:
            raise ImportRefused(
                f"{key}: expected K, B, hidden_layers, hidden_dim, transformed_dim, n_conditions "
                f"and periodic of a NeuralSplineCoupling, got {list(arguments)}"
            )
        return made

    def kept(self, features: int) -> int:
        """How many columns condition the others.

        Raises:
            ImportRefused: if more are to be moved than there are.
        """
        moved = features - features // 2 if self.transformed_dim is None else self.transformed_dim
        if not 1 <= moved <= features:
            raise ImportRefused(
                f"{self.key}: transformed_dim: expected 1 .. {features}, got {moved}"
            )
        return features - moved


def convert_spline(
    weights: Weights, coupling: SplineCoupling, features: int, conditions: int
) -> Part | None:
    """Turn a coupling into a layer; None where it is the identity, which a single bin is.

    Raises:
        ImportRefused: if it takes conditions that the flow has not, or is a circle of one bin.
    """
    linears = _network(weights, coupling, features, conditions)
    kept = coupling.kept(features)
    moved = features - kept
    if coupling.K == 1 and not coupling.periodic:
        return None
    elementwise, places = _elementwise(coupling)
    params = len(places)
    linears[-1] = linears[-1].rows(networks.parameter_rows(moved, places))
    if kept:
        net = networks.mlp(linears, _ACTIVATION, negative_slope=_SLOPE)
        return chain_layers.coupling(range(kept), features, elementwise, net)
    if conditions:
        alone = networks.of_context_alone(linears, features)
        net = networks.mlp(alone, _ACTIVATION, negative_slope=_SLOPE)
        return chain_layers.autoregressive(features, elementwise, net)
    # Nothing to see: the same spline for every row.
    hidden = linears[0].bias
    for linear in linears[1:]:
        hidden = linear.weight @ F.leaky_relu(hidden, _SLOPE) + linear.bias
    layer = {"kind": "pointwise", "chosen": list(range(features)), "elementwise": elementwise}
    return Part(layer, {"params": hidden.view(params, features)})


def _elementwise(coupling: SplineCoupling) -> tuple[dict[str, Any], list[int]]:
    """The map of a moved column, and which of its parameters comes where."""
    bins = coupling.K
    shared = {"num_bins": bins, "bounds": "floor", "min_bin": 0.0, "min_slope": 0.0}
    if not coupling.periodic:
        bound = float(coupling.B)
        return {"kind": "spline", "bound": bound, **shared}, list(range(3 * bins - 1))
    if bins == 1:
        raise ImportRefused(
            f"{coupling.key}: K: expected 2 bins or more of a periodic spline, got 1"
        )
    # The last slope is that of both ends, which comes first here.
    slopes = [3 * bins - 1, *range(2 * bins, 3 * bins - 1)]
    elementwise = {"kind": "circular_spline", "bound": [float(coupling.B)], **shared}
    return elementwise, [*range(2 * bins), *slopes]


def _network(
    weights: Weights, coupling: SplineCoupling, features: int, conditions: int
) -> list[Linear]:
    """Its linear layers, the context of the flow behind the columns that are kept."""
    # Without conditional columns pzflow gives its networks a single zero.
    seen = coupling.n_conditions
    if seen > max(conditions, 1):
        raise ImportRefused(
            f"{coupling.key}: n_conditions: expected at most {conditions}, the conditional columns "
            f"of the flow, got {seen}"
        )
    kept = coupling.kept(features)
    outputs = (features - kept) * (3 * coupling.K - 1 + int(coupling.periodic))
    widths = [kept + seen, *[coupling.hidden_dim] * coupling.hidden_layers, outputs]
    linears = [
        Linear(
            weights.take(f"{coupling.key}.{2 * index}.0", before, after).T.contiguous(),
            weights.take(f"{coupling.key}.{2 * index}.1", after),
        )
        for index, (before, after) in enumerate(pairwise(widths))
    ]
    first = linears[0]
    unseen = torch.zeros(len(first.bias), max(conditions - seen, 0), dtype=torch.float64)
    columns = first.columns(range(kept + min(seen, conditions)))
    linears[0] = columns.with_context(unseen)
    return linears
