"""Sampling parameters: how many samples, from which seed, at which temperature, from which row."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from models.noise import MAX_SEED, base_noise, draw_seed
from service.codec.tensors import Array
from service.contracts import ModelCard
from service.errors import TooLarge
from service.operations.fields import Field, integer, number, scalar_output

# Beyond what any limit allows is no number of samples at all.
_LARGEST = 2**63 - 1
MAX_TEMPERATURE = 1000.0
# As far as JSON readers count exactly.
MAX_FIRST_ROW = 2**53

SEED = integer("seed", 0, MAX_SEED, "One seed gives one draw, always; made if absent.")
TEMPERATURE = number(
    "temperature",
    0,
    MAX_TEMPERATURE,
    "T of z ~ N(0, T^2 I); 0 gives the mode of the base.",
    default=1.0,
)
FIRST_ROW = integer(
    "first_row", 0, MAX_FIRST_ROW, "Row of the seed's endless draw to begin with.", default=0
)
SEED_OUTPUT = scalar_output(
    "seed", "integer", "Draws the same samples again.", minimum=0, maximum=MAX_SEED
)

# Making or reading more numbers than this takes longer than a hop to a thread and back.
MANY_VALUES = 32_768
# Rows that `base_noise` draws in vain, at most, to begin in the middle.
_MOST_SKIPPED = 255


class SamplingParams(NamedTuple):
    """Which samples a client asks for."""

    num_samples: int
    seed: int
    temperature: float
    first_row: int

    def is_slow(self, card: ModelCard) -> bool:
        """Whether to draw in a thread."""
        context = math.prod(card.context_shape or (0,))
        width = card.features + context
        drawn = (self.num_samples + min(self.first_row, _MOST_SKIPPED)) * width
        return drawn > MANY_VALUES

    def base_noise(self, card: ModelCard) -> Array:
        """Draw z ~ N(0, T^2 I) in the model's dtype.

        Returns:
            z (num_samples, D).
        """
        noise = base_noise(
            self.num_samples,
            card.features,
            seed=self.seed,
            temperature=self.temperature,
            first_row=self.first_row,
        )
        return noise.astype(card.numpy_dtype)


def sampling_fields(max_rows: int) -> tuple[Field, ...]:
    """The fields of which `read_sampling` reads the values, in the order of `SamplingParams`.

    Args:
        max_rows: of a request, so that what is said of num_samples holds.
    """
    field = integer("num_samples", 1, max_rows, "How many rows to draw.", default=1)

    def read(value: Any) -> int:
        if type(value) is int and max_rows < value <= _LARGEST:
            raise TooLarge(
                f"num_samples: expected at most {max_rows} a request, got {value}",
                at="/num_samples",
            )
        count: int = field.read(value)
        return count

    return (replace(field, read=read), SEED, TEMPERATURE, FIRST_ROW)


SAMPLING_FIELDS = sampling_fields(_LARGEST)


def read_sampling(fields: dict[str, Any], sampling: Sequence[Field]) -> SamplingParams:
    """Read the sampling parameters of a request; a seed is made where none is given.

    Raises:
        InvalidParameter, OutOfRange: one of them is not what it should be.
        TooLarge: more samples than a request may ask for.
    """
    num_samples, seed, temperature, first_row = (field.value(fields) for field in sampling)
    seed = draw_seed() if seed is None else seed
    return SamplingParams(num_samples, seed, temperature, first_row)
