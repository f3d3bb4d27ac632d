"""The rows that a load sends: drawn from the model itself, so that they are what it is made for."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pushforward.client import Client
from pushforward.client.wire import Array

# A model that samples slowly gives as many as it can in this time; they are then sent again.
_DRAW_SECONDS = 5.0
_CHUNK_ROWS = 64
# Bodies differ by where they begin in the rows.
_LEAST_ROWS = 256


@dataclass(frozen=True, slots=True)
class RowPool:
    """Rows of one tensor, x or z, and the context of each, where the model takes one."""

    name: str
    values: Array
    context: Array | None

    def take(self, first: int, count: int) -> dict[str, Array]:
        """Some of them as fields of a request, from the first on after the last."""
        chosen = np.arange(first, first + count) % len(self.values)
        fields = {self.name: self.values[chosen]}
        if self.context is not None:
            fields["context"] = self.context[chosen]
        return fields


def make_context(card: Mapping[str, Any], count: int, rng: np.random.Generator) -> Array | None:
    """Labels of all classes, or rows of normal numbers; None where the model takes none."""
    if card.get("num_classes") is not None:
        return rng.integers(0, card["num_classes"], count)
    if card.get("context_shape") is not None:
        return rng.normal(size=(count, *card["context_shape"])).astype(card["dtype"])
    return None


def draw_rows(client: Client, card: Mapping[str, Any], count: int, seed: int) -> RowPool:
    """Samples of a model as rows x.

    Args:
        client: of the server.
        card: what `GET /models/NAME` says of it.
        count: how many are wanted; fewer where that takes long.
        seed: of the draw.

    Raises:
        ClientError: the server does not draw them.
        ValueError: none of them is finite.
    """
    rng = np.random.default_rng(seed)
    context = make_context(card, max(count, _LEAST_ROWS), rng)
    wanted = max(count, _LEAST_ROWS)
    parts: list[Array] = []
    found, until = 0, time.monotonic() + _DRAW_SECONDS
    while found < wanted and (time.monotonic() < until or not parts):
        rows = min(_CHUNK_ROWS if not parts else len(parts[-1]) * 2, wanted - found, 1024)
        given = None if context is None else context[found : found + rows]
        drawn = client.sample(rows, seed=seed, first_row=found, context=given)
        parts.append(np.asarray(drawn.x))
        found += rows
    x = np.concatenate(parts)
    is_finite = np.isfinite(x.reshape(len(x), -1)).all(axis=1)
    if not is_finite.any():
        raise ValueError(
            f"none of {len(x)} samples of {card['name']} is finite, so there is no row to send: "
            "measure its sample or decode"
        )
    return RowPool("x", x[is_finite], None if context is None else context[:found][is_finite])


def draw_latents(card: Mapping[str, Any], count: int, seed: int) -> RowPool:
    """Base noise as rows z."""
    rng = np.random.default_rng(seed)
    count = max(count, _LEAST_ROWS)
    z = rng.normal(size=(count, card["features"])).astype(card["dtype"])
    return RowPool("z", z, make_context(card, count, rng))
