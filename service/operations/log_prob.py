"""POST /log_prob: the log-density of rows, in nats."""

import math
from typing import Any

import numpy as np

from models.noise import base_log_prob, base_log_prob_of_row
from service.codec.tensors import Array, cast
from service.contracts import InferenceResult, ModelCard, RowQueue, ServedModel
from service.operations.fields import (
    COLUMNS,
    CONTEXT,
    INVALID,
    MODEL,
    RETURN_EVALUATIONS,
    event_rows,
    number_output,
)
from service.operations.model_input import ModelInput
from service.operations.response import Tensors
from service.operations.spec import IMAGE_BODIES, Operation, example_rows

X = event_rows("x", "Rows of shape event_shape, the batch axis first; of a table also objects.")

# float32 ends here; beyond, the cast of `cast` makes infinities without a warning.
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class LogProb(Operation):
    """log_prob(x) = log N(z; 0, I) + log_det, in nats; bits per dimension beside it for pixels."""

    name = "log_prob"
    summary = "Score rows"
    description = "log_prob(x) = log N(z; 0, I) + log |det dz/dx|, in nats, of the data as sent."
    tensor = X
    fields = (MODEL, X, COLUMNS, CONTEXT, INVALID, RETURN_EVALUATIONS)
    outputs = (
        number_output("log_prob", "In nats, of the data as sent."),
        number_output("bits_per_dim", "Models over pixels only.", is_always=False),
    )
    bodies = IMAGE_BODIES

    def queue(self, model: ServedModel, *, wants_log_det: bool = True) -> RowQueue:
        """Scores are made of latents."""
        return model.encode

    def values_per_row(self, card: ModelCard) -> int:
        """log_prob and bits_per_dim."""
        return 2

    @classmethod
    def output_names(cls, card: ModelCard) -> tuple[str, ...]:
        """Bits per dimension are known of pixels only."""
        names = super().output_names(card)
        return names if card.num_levels is not None else names[:1]

    def compute_outputs(
        self, card: ModelCard, given: ModelInput, result: InferenceResult
    ) -> Tensors:
        """Add the density of the base; bits/dim = -log_prob / (D log 2)."""
        log_prob = log_density(result.value, result.log_det)
        if card.num_levels is None:
            return {"log_prob": log_prob}
        return {"log_prob": log_prob, "bits_per_dim": -log_prob / (card.features * math.log(2))}

    def example(self, card: ModelCard) -> dict[str, Any]:
        """One row to score."""
        return {"x": example_rows(card.event_shape)}


def log_density(z: Array, log_det: Array) -> Array:
    """log N(z; 0, I) + log_det in nats, of z (B, D) and log_det (B,), summed in float64.

    A row's sum does not depend on the other rows: each is a dot product of its own.

    Returns:
        (B,), in the dtype of log_det.
    """
    if len(z) == 1:
        # The same numbers without the arrays: they would cost a fifth of a one-row request.
        alone = float(log_det[0]) + base_log_prob_of_row(z[0])
        if abs(alone) < _FLOAT32_MAX:
            return np.array([alone], log_det.dtype)
    return cast(log_det + base_log_prob(z), log_det.dtype)
