"""POST /sample: draw from the model."""

from functools import partial
from typing import Any

import numpy as np

from service.codec.media import PNG
from service.codec.tensors import Array
from service.contracts import InferenceResult, ModelCard, RowQueue, ServedModel
from service.operations.background import NO_OTHER_MODELS, OtherModels
from service.operations.fields import (
    COLUMNS,
    CONTEXT,
    MODEL,
    RETURN_EVALUATIONS,
    Field,
    flag,
    number_output,
    row_output,
)
from service.operations.log_prob import log_density
from service.operations.model_input import Deferred, FollowUp, ModelInput
from service.operations.response import ResponseFormat, Tensors
from service.operations.sampling import (
    SAMPLING_FIELDS,
    SEED_OUTPUT,
    SamplingParams,
    read_sampling,
    sampling_fields,
)
from service.operations.spec import SCALE, Limits, Operation
from service.operations.trajectory import OUTPUTS as STATES
from service.operations.trajectory import TRAJECTORY, ask_states, read_trajectory

RETURN_LOG_PROB = flag(
    "return_log_prob",
    "False leaves log_prob out: continuous flows then draw several times faster, and x may differ "
    "in the last digits. Pictures are always drawn so.",
    default=True,
)


class Sample(Operation):
    """x = f^-1(z) with z ~ N(0, T^2 I) drawn here from the seed; log_prob is that of T = 1.

    A sample depends on its seed, its row and its context alone: not on what else is in the batch.
    """

    name = "sample"
    summary = "Draw samples"
    description = (
        "x = f^-1(z) with z ~ N(0, T^2 I). The same seed draws the same samples, whatever else "
        "the server does. return_log_prob=false saves continuous flows most of the work. The body "
        "may be empty, with all fields in the query string."
    )
    fields: tuple[Field, ...] = (
        MODEL,
        *SAMPLING_FIELDS,
        COLUMNS,
        CONTEXT,
        SCALE,
        RETURN_LOG_PROB,
        RETURN_EVALUATIONS,
        TRAJECTORY,
    )
    outputs = (
        row_output("x", "Rows of shape event_shape."),
        number_output(
            "log_prob",
            "In nats, of the model itself (T = 1). Absent if not asked for.",
            is_always=False,
        ),
        SEED_OUTPUT,
        *STATES,
    )
    gives_images = True

    def __init__(self, limits: Limits, others: OtherModels = NO_OTHER_MODELS) -> None:
        self._sampling = sampling_fields(limits.max_request_rows)
        bounded = {field.name: field for field in self._sampling}
        self.fields = tuple(bounded.get(field.name, field) for field in type(self).fields)
        super().__init__(limits, others)

    def prepare(
        self,
        fields: dict[str, Any],
        model: ServedModel,
        form: ResponseFormat,
        deadline: float,
        *,
        values_per_row: int | None = None,
        rows: Array | None = None,
    ) -> ModelInput | Deferred:
        """Draw the noise of the base; see `Operation.prepare`."""
        card, with_evaluations = model.card, RETURN_EVALUATIONS.value(fields)
        params = read_sampling(fields, self._sampling)
        self.check_size(card, form, params.num_samples, values_per_row)
        wants_log_prob = form.media != PNG
        if RETURN_LOG_PROB.name in fields:
            wants_log_prob = RETURN_LOG_PROB.value(fields)
        queue, is_slow = self.queue(model, wants_log_det=wants_log_prob), params.is_slow(card)
        if is_slow:
            queue.check(params.num_samples, deadline)
        without_rows = ModelInput(
            np.empty(0),
            self.read_context(fields, card, params.num_samples),
            queue,
            {"seed": params.seed},
            wants_log_prob,
            with_evaluations,
            self.read_answer_order(fields, card),
        )
        if TRAJECTORY.name in fields:
            wanted = read_trajectory(fields, model, form, params.num_samples, self._limits)
            without_rows = without_rows._replace(follows=wanted is not None, trajectory=wanted)
        draw = partial(_draw, without_rows, params, card)
        return draw if is_slow else draw()

    def queue(self, model: ServedModel, *, wants_log_det: bool = True) -> RowQueue:
        """The engine's decode, or its generate where that is less work and will do."""
        if wants_log_det or model.generate is None:
            return model.decode
        return model.generate

    def follow_up(
        self, model: ServedModel, given: ModelInput, result: InferenceResult
    ) -> FollowUp | None:
        """Ask for the states between the noise and the samples."""
        return ask_states(model.card, given)

    def compute_outputs(
        self, card: ModelCard, given: ModelInput, result: InferenceResult
    ) -> Tensors:
        """Samples, and log p(x) = log N(z; 0, I) - log |det dx/dz| where it is asked for."""
        if not given.wants_log_det:
            return {"x": result.value}
        return {"x": result.value, "log_prob": log_density(given.rows, -result.log_det)}

    def example(self, card: ModelCard) -> dict[str, Any]:
        """Two samples."""
        return {"num_samples": 2, "seed": 7, "temperature": 0.7}


def _draw(given: ModelInput, params: SamplingParams, card: ModelCard) -> ModelInput:
    return given._replace(rows=params.base_noise(card))
