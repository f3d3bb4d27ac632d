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
from service.operations.model_input import FollowUp, ModelInput
from service.operations.response import ResponseFormat, Tensors
from service.operations.spec import SCALE, Operation, example_rows
from service.operations.trajectory import OUTPUTS as STATES
from service.operations.trajectory import TRAJECTORY, ask_states, read_trajectory

Z = rows("z", "Latents (B, D), D = prod(event_shape).")


class Decode(Operation):
    """x = f^-1(z) and log |det dx/dz|."""

    name = "decode"
    summary = "Map latents to data"
    description = "x = f^-1(z) with log |det dx/dz|; /encode is its exact inverse."
    tensor = Z
    fields = (MODEL, Z, COLUMNS, CONTEXT, SCALE, INVALID, RETURN_EVALUATIONS, TRAJECTORY)
    outputs = (row_output("x", "Rows of shape event_shape."), LOG_DET, *STATES)
    gives_images = True

    def queue(self, model: ServedModel, *, wants_log_det: bool = True) -> RowQueue:
        """The engine's decode."""
        return model.decode

    def row_shape(self, card: ModelCard) -> tuple[int, ...]:
        """(D,): latents are flat."""
        return (card.features,)

    def complete(
        self, given: ModelInput, fields: dict[str, Any], model: ServedModel, form: ResponseFormat
    ) -> ModelInput:
        """Read which states on the way are wanted."""
        if TRAJECTORY.name not in fields:
            return given
        wanted = read_trajectory(fields, model, form, len(given.rows), self._limits)
        return given._replace(follows=wanted is not None, trajectory=wanted)

    def follow_up(
        self, model: ServedModel, given: ModelInput, result: InferenceResult
    ) -> FollowUp | None:
        """Ask for the states."""
        return ask_states(model.card, given)

    def compute_outputs(
        self, card: ModelCard, given: ModelInput, result: InferenceResult
    ) -> Tensors:
        """As the engine gives them."""
        return {"x": result.value, "log_det": result.log_det}

    def example(self, card: ModelCard) -> dict[str, Any]:
        """One latent to decode."""
        return {"z": example_rows((card.features,))}
