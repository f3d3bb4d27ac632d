"""POST /encode: data to latents."""

from typing import Any

from service.contracts import InferenceResult, ModelCard, RowQueue, ServedModel
from service.operations.fields import (
    COLUMNS,
    CONTEXT,
    INVALID,
    MODEL,
    RETURN_EVALUATIONS,
    number_output,
    row_output,
)
from service.operations.log_prob import X
from service.operations.model_input import ModelInput
from service.operations.response import Tensors
from service.operations.spec import IMAGE_BODIES, Operation, example_rows

LOG_DET = number_output("log_det", "log |det Jacobian| of this call, a row each, in nats.")


class Encode(Operation):
    """z = f(x) and log |det dz/dx|."""

    name = "encode"
    summary = "Map data to latents"
    description = "z = f(x) with log |det dz/dx|; /decode is its exact inverse."
    tensor = X
    fields = (MODEL, X, COLUMNS, CONTEXT, INVALID, RETURN_EVALUATIONS)
    outputs = (row_output("z", "Latents (B, D), D = prod(event_shape)."), LOG_DET)
    bodies = IMAGE_BODIES
    v2_beside = ("log_prob",)

    def queue(self, model: ServedModel, *, wants_log_det: bool = True) -> RowQueue:
        """The engine's encode."""
        return model.encode

    def compute_outputs(
        self, card: ModelCard, given: ModelInput, result: InferenceResult
    ) -> Tensors:
        """As the engine gives them."""
        return {"z": result.value, "log_det": result.log_det}

    def example(self, card: ModelCard) -> dict[str, Any]:
        """One row to encode."""
        return {"x": example_rows(card.event_shape)}
