"""What a request for samples says: how many, from which seed, how warm, from which row on."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from models.noise import MAX_SEED, base_noise, draw_seed
from service.codec.parameters import read_integer, read_number
from service.codec.tensors import Array
from service.contracts import ModelCard
from service.errors import TooLarge

MAX_TEMPERATURE = 1000.0
MAX_SAMPLES = 2**63 - 1
# As far as JSON readers count exactly.
MAX_FIRST_ROW = 2**53

FIELDS = ("num_samples", "seed", "temperature", "first_row")

# Drawing more numbers than this takes longer than a hop to a thread and back.
MANY_VALUES = 32_768
# Rows that `base_noise` draws in vain, at most, to begin in the middle.
_MOST_SKIPPED = 255


class SamplingParams(NamedTuple):
    """Which samples a client asks for."""

    rows: int
    seed: int
    temperature: float
    first_row: int

    def takes_long(self, card: ModelCard) -> bool:
        """Whether to draw in a thread."""
        context = math.prod(card.context_shape or (0,))
        width = card.features + context
        drawn = (self.rows + min(self.first_row, _MOST_SKIPPED)) * width
        return drawn > MANY_VALUES

    def latents(self, card: ModelCard) -> Array:
        """Draw z ~ N(0, T^2 I) in the model's dtype.   -> (rows, D)."""
        noise = base_noise(
            self.rows,
            card.features,
            seed=self.seed,
            temperature=self.temperature,
            first_row=self.first_row,
        )
        return noise.astype(card.numpy_dtype)


def read_draw(fields: Mapping[str, Any], max_rows: int) -> SamplingParams:
    """Read num_samples (1), seed (a new one), temperature (1) and first_row (0).

    null is as good as absent.

    Raises:
        InvalidParameter, OutOfRange: one of them is not what it should be.
        TooLarge: more than max_rows samples.
    """
    rows, seed, temperature, first = map(fields.get, FIELDS)
    draw = SamplingParams(
        1 if rows is None else read_integer(rows, "num_samples", 1, MAX_SAMPLES),
        draw_seed() if seed is None else read_integer(seed, "seed", 0, MAX_SEED),
        1.0 if temperature is None else read_number(temperature, "temperature", 0, MAX_TEMPERATURE),
        0 if first is None else read_integer(first, "first_row", 0, MAX_FIRST_ROW),
    )
    if draw.rows > max_rows:
        raise TooLarge(
            f"num_samples: expected at most {max_rows} a request, got {draw.rows}",
            at="/num_samples",
        )
    return draw
