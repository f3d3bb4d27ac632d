"""POST /decode: latents to data."""

from typing import Any

from service.contracts import InferenceResult, ModelCard, RowQueue, ServedModel
from service.operations.encode import LOG_DET
from service.operations.fields import (
    COLUMNS,
    CONTEXT,
    INVALID,
    MODEL,
    RETURN_EVALUATIONS,
    row_output,
    rows,
)
from service.operations.model_input import ModelInput
from service.operations.response import Tensors
from service.operations.spec import SCALE, Operation, example_rows

Z = rows("z", "Latents (B, D), D = prod(event_shape).")


class Decode(Operation):
    """x = f^-1(z) and log |det dx/dz|."""

    name = "decode"
    summary = "Map latents to data"
    description = "x = f^-1(z) with log |det dx/dz|; /encode is its exact inverse."
    tensor = Z
    fields = (MODEL, Z, COLUMNS, CONTEXT, SCALE, INVALID, RETURN_EVALUATIONS)
    outputs = (row_output("x", "Rows of shape event_shape."), LOG_DET)
    gives_images = True

    def queue(self, model: ServedModel, *, wants_log_det: bool = True) -> RowQueue:
        """The engine's decode."""
        return model.decode

    def row_shape(self, card: ModelCard) -> tuple[int, ...]:
        """(D,): latents are flat."""
        return (card.features,)

    def compute_outputs(
        self, card: ModelCard, given: ModelInput, result: InferenceResult
    ) -> Tensors:
        """As the engine gives them."""
        return {"x": result.value, "log_det": result.log_det}

    def example(self, card: ModelCard) -> dict[str, Any]:
        """One latent to decode."""
        return {"z": example_rows((card.features,))}
