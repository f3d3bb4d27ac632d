"""POST /log_prob, /encode, /decode and /sample: which rows they send where, and what they name."""

import math
from collections.abc import Coroutine, Sequence
from typing import Any, ClassVar

import numpy as np

from service.codec.context import read_context
from service.codec.image import is_picture, read_image
from service.codec.media import JPEG, JSON, NPY, NPZ, PNG
from service.codec.parameters import read_flag
from service.codec.tensors import Array, cast, read_rows
from service.contracts import InferenceResult, ModelCard, RowQueue, ServedModel
from service.errors import InvalidRequest, MissingField, UnsupportedMediaType
from service.operations.response import ResponseFormat, check_answer_size
from service.operations.sampling import MANY_VALUES, SamplingParams, read_draw
from service.operations.solver_stats import EVALUATIONS
from service.operations.spec import ModelInput, Picture
from service.transport.fast_path.plain import PlainOperation

LOG_PROB = "return_log_prob"
_LOG_TWO_PI = math.log(2 * math.pi)
# float32 ends here; beyond, the cast of `cast` makes infinities without a warning.
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class _Map(PlainOperation):
    """An operation on rows that the client sends."""

    tensor: ClassVar[str]

    def _order(
        self,
        fields: dict[str, Any],
        served: ServedModel,
        form: ResponseFormat,
        deadline: float,
        rows: Array | None = None,
    ) -> ModelInput | Coroutine[Any, Any, ModelInput]:
        card = served.card
        if rows is not None:
            return self._order_rows(rows, fields, card, form)
        value = fields.get(self.tensor)
        if value is None:
            raise MissingField(f"{self.tensor}: expected the rows", at=f"/{self.tensor}")
        if isinstance(value, Picture):
            self._queue(served, True).check(1, deadline)
            check_answer_size(card, form, 1, self._width(card), self._settings.max_response_bytes)
            return self._order_picture(value, fields, card, form, deadline)
        if type(value) is list and len(value) * card.features > MANY_VALUES:
            # Numbers of a list are not made yet; those of npy are a view of the body.
            self._queue(served, True).check(len(value), deadline)
        return self._order_rows(self._read_rows(value, card), fields, card, form)

    async def _order_picture(
        self,
        picture: Picture,
        fields: dict[str, Any],
        card: ModelCard,
        form: ResponseFormat,
        deadline: float,
    ) -> ModelInput:
        pixels = await self._decode_picture(picture, card, deadline)
        rows = self._read_rows(pixels, card)
        return self._order_rows(rows, fields, card, form)

    def _read_rows(self, value: Any, card: ModelCard) -> Array:
        shape, limit = self._event_shape(card), self._settings.max_request_rows
        levels = card.num_levels if self.tensor == "x" else None
        try:
            return read_rows(
                value, self.tensor, shape, dtype=card.numpy_dtype, max_rows=limit, num_levels=levels
            )
        except InvalidRequest as error:
            error.name_columns(card.feature_names)
            raise

    def _order_rows(
        self, rows: Array, fields: dict[str, Any], card: ModelCard, form: ResponseFormat
    ) -> ModelInput:
        count = len(rows)
        context = read_context(
            fields.get("context"),
            card.context_shape,
            card.num_classes,
            dtype=card.numpy_dtype,
            rows=count,
        )
        max_bytes = self._settings.max_response_bytes
        check_answer_size(card, form, count, self._width(card), max_bytes)
        return ModelInput(rows, context, {})

    def _width(self, card: ModelCard) -> int:
        return card.features + 1

    async def _decode_picture(self, picture: Picture, card: ModelCard, deadline: float) -> Array:
        levels = card.num_levels
        if levels is None or not is_picture(card.event_shape, levels):
            raise UnsupportedMediaType(
                f"Content-Type: model {card.name} takes no pictures, its rows have shape "
                f"{card.event_shape}"
            )
        return await self._desk.threads.run(
            deadline, read_image, picture.body, picture.media, card.event_shape, levels
        )


class LogProb(_Map):
    """log_prob(x) = log N(z; 0, I) + log_det, in nats; bits per dimension beside it for pixels."""

    name = "log_prob"
    fields = ("model", "x", "context", EVALUATIONS)
    tensor = "x"
    bodies = (JSON, NPY, NPZ, PNG, JPEG)
    draws = False

    def _queue(self, served: ServedModel, wants_log_det: bool) -> RowQueue:
        return served.encode

    def _outputs(
        self, card: ModelCard, order: ModelInput, answer: InferenceResult
    ) -> dict[str, Array]:
        log_prob = log_density(answer.value, answer.log_det)
        if card.num_levels is None:
            return {"log_prob": log_prob}
        return {"log_prob": log_prob, "bits_per_dim": -log_prob / (card.features * math.log(2))}

    def _width(self, card: ModelCard) -> int:
        return 2


class Encode(_Map):
    """z = f(x) and log |det dz/dx|."""

    name = "encode"
    fields = ("model", "x", "context", EVALUATIONS)
    tensor = "x"
    bodies = (JSON, NPY, NPZ, PNG, JPEG)
    draws = False

    def _queue(self, served: ServedModel, wants_log_det: bool) -> RowQueue:
        return served.encode

    def _outputs(
        self, card: ModelCard, order: ModelInput, answer: InferenceResult
    ) -> dict[str, Array]:
        return {"z": answer.value, "log_det": answer.log_det}


class Decode(_Map):
    """x = f^-1(z) and log |det dx/dz|."""

    name = "decode"
    fields = ("model", "z", "context", "scale", EVALUATIONS)
    tensor = "z"
    bodies = (JSON, NPY, NPZ)
    draws = True

    def _queue(self, served: ServedModel, wants_log_det: bool) -> RowQueue:
        return served.decode

    def _outputs(
        self, card: ModelCard, order: ModelInput, answer: InferenceResult
    ) -> dict[str, Array]:
        return {"x": answer.value, "log_det": answer.log_det}

    def _event_shape(self, card: ModelCard) -> tuple[int, ...]:
        return (card.features,)


class Sample(PlainOperation):
    """x = f^-1(z) with z ~ N(0, T^2 I) drawn here from the seed; log_prob is that of T = 1.

    A sample depends on its seed, its row and its context alone: not on what else is in the batch.
    """

    name = "sample"
    fields = (
        "model",
        "num_samples",
        "seed",
        "temperature",
        "first_row",
        "context",
        "scale",
        LOG_PROB,
        EVALUATIONS,
    )
    tensor = None
    bodies = (JSON, NPZ)
    draws = True

    def _order(
        self,
        fields: dict[str, Any],
        served: ServedModel,
        form: ResponseFormat,
        deadline: float,
        rows: Array | None = None,
    ) -> ModelInput | Coroutine[Any, Any, ModelInput]:
        card = served.card
        draw = read_draw(fields, self._settings.max_request_rows)
        width, max_bytes = card.features + 1, self._settings.max_response_bytes
        check_answer_size(card, form, draw.rows, width, max_bytes)
        wants_log_prob = read_flag(fields.get(LOG_PROB, form.media != PNG), LOG_PROB)
        takes_long = draw.takes_long(card)
        if takes_long:
            self._queue(served, wants_log_prob).check(draw.rows, deadline)
        dtype = card.numpy_dtype
        context = read_context(
            fields.get("context"), card.context_shape, card.num_classes, dtype=dtype, rows=draw.rows
        )
        if takes_long:
            return self._order_drawn(draw, card, context, wants_log_prob, deadline)
        return ModelInput(draw.latents(card), context, {"seed": draw.seed}, wants_log_prob)

    async def _order_drawn(
        self,
        draw: SamplingParams,
        card: ModelCard,
        context: Array | None,
        wants_log_prob: bool,
        deadline: float,
    ) -> ModelInput:
        latents = await self._desk.threads.run(deadline, draw.latents, card)
        return ModelInput(latents, context, {"seed": draw.seed}, wants_log_prob)

    def _join(self, orders: Sequence[ModelInput]) -> ModelInput:
        return orders[0]._replace(rows=np.concatenate([order.rows for order in orders]))

    def _queue(self, served: ServedModel, wants_log_det: bool) -> RowQueue:
        if wants_log_det or served.generate is None:
            return served.decode
        return served.generate

    def _outputs(
        self, card: ModelCard, order: ModelInput, answer: InferenceResult
    ) -> dict[str, Array]:
        if not order.wants_log_det:
            return {"x": answer.value}
        return {"x": answer.value, "log_prob": log_density(order.rows, -answer.log_det)}


def log_density(z: Array, log_det: Array) -> Array:
    """log N(z; 0, I) + log_det in nats, summed in float64.   z (B, D), log_det (B,) -> (B,).

    A row's sum does not depend on the other rows: each is a dot product of its own.
    """
    if len(z) == 1:
        # The same numbers without the arrays: they would cost a fifth of a one-row request.
        row = z[0].astype(np.float64)
        alone = float(log_det[0]) - 0.5 * (float(row.dot(row)) + len(row) * _LOG_TWO_PI)
        if abs(alone) < _FLOAT32_MAX:
            return np.array([alone], log_det.dtype)
    energy = np.vecdot(z, z, dtype=np.float64)
    return cast(log_det - 0.5 * (energy + z.shape[1] * _LOG_TWO_PI), log_det.dtype)
