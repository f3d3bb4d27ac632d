"""What an operation is: from the fields of a request to the engine's input, and from its result on.

    fields ──prepare──> ModelInput ──queue, engine──> InferenceResult ──finish──> scalars, outputs

An operation knows no transport: ASGI, the fast path and the Open Inference Protocol call the same
two functions. Its route, its place on the fast path and in V2, and its OpenAPI follow from what it
declares here.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np

from service.codec.columns import holds_objects
from service.codec.context import read_context
from service.codec.image import MAX_SCALE, is_picture, read_image
from service.codec.media import JPEG, JSON, NPY, NPZ, PNG, negotiate
from service.codec.mends import suggest_media
from service.codec.missing import NULL, asks_for_null, complete_objects, names_in
from service.codec.tensors import Array, read_rows
from service.codec.valid_rows import (
    Reasons,
    beyond_levels,
    read_valid_context,
    read_valid_rows,
)
from service.contracts import InferenceResult, ModelCard, RowQueue, ServedModel
from service.errors import (
    InvalidParameter,
    InvalidRequest,
    MalformedBody,
    MissingField,
    UnsupportedMediaType,
)
from service.operations.background import NO_OTHER_MODELS, OtherModels
from service.operations.columns import answer_order, is_by_name, read_by_name
from service.operations.failures import CountFailures, FailureFinder
from service.operations.fields import (
    COLUMNS,
    CONTEXT,
    INVALID,
    MODEL,
    RETURN_EVALUATIONS,
    Field,
    Output,
    integer,
)
from service.operations.model_input import (
    Deferred,
    EncodedImage,
    FollowUp,
    ModelInput,
    without_rejected,
)
from service.operations.response import (
    AS_JSON,
    ResponseFormat,
    Scalars,
    Tensors,
    check_response_size,
    offers,
)
from service.operations.sampling import MANY_VALUES
from service.operations.solver_stats import add_solver_stats
from service.operations.trajectory import add_states
from service.telemetry import Metrics

# What any client sends of `Accept` that takes JSON.
ACCEPT_JSON = (None, b"*/*", b"application/json")
IMAGE_BODIES = (JSON, NPY, NPZ, PNG, JPEG)

_log = logging.getLogger(__name__)

_EVALUATIONS = RETURN_EVALUATIONS.name
_INVALID = INVALID.name
_COLUMNS = COLUMNS.name
# Rows of data, whose columns may have names.
_DATA = "x"

SCALE = integer("scale", 1, MAX_SCALE, "Size of a pixel, for pictures only.")


class Limits(NamedTuple):
    """How large a request and its answer may be."""

    max_request_rows: int
    max_response_bytes: int


class Operation(ABC):
    """An operation on rows: what it is called, what it takes and gives, and how.

    name: of its path, in V2 and in the metrics.
    summary, description: for OpenAPI.
    tensor: the field that holds the rows, which a binary body is; None where it takes none.
    fields: what a request may name, `tensor` among them.
    outputs: what an answer holds beside what every answer does; the first tensor is the answer of
        formats of one.
    bodies: the media types of requests; left out, all that can hold the fields: JSON, npy where
        there is a tensor, npz where there is a tensor or a context.
    gives_images: whether an answer can be a picture.
    has_named_rows: whether its rows may name their columns; elsewhere (latents have no names)
        `columns` says how those of the answered x stand.
    v2_beside: operations whose outputs V2 gives beside this one's: they share the computation.
    lone_fields: numbers that requests of one row may name and still be read and prepared together,
        those that name the same: the rows of such a batch are answered alike.
    is_observed: whether `observe` is told what is answered.

    Args:
        limits: how large requests and answers may be.
        others: the models that are served beside the one that is asked.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    description: ClassVar[str]
    tensor: ClassVar[Field | None] = None
    fields: tuple[Field, ...]
    outputs: ClassVar[tuple[Output, ...]]
    bodies: ClassVar[tuple[str, ...]] = ()
    gives_images: ClassVar[bool] = False
    v2_beside: ClassVar[tuple[str, ...]] = ()
    lone_fields: ClassVar[frozenset[str]] = frozenset()
    is_observed: ClassVar[bool] = False
    _tensors: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "outputs" in cls.__dict__:
            cls._tensors = tuple(each.name for each in cls.outputs if each.is_tensor)

    def __init__(self, limits: Limits, others: OtherModels = NO_OTHER_MODELS) -> None:
        self._limits = limits
        self.others = others
        self.media = self.bodies or _bodies_of(self.fields, self.tensor)
        self.field_names = tuple(field.name for field in self.fields)
        self.tensor_name = None if self.tensor is None else self.tensor.name
        self.has_named_rows = self.tensor_name == _DATA
        self.query_fields = tuple(name for name in self.field_names if name != self.tensor_name)
        # What most requests name: it says nothing of how they are answered.
        plain = frozenset((MODEL.name, CONTEXT.name, self.tensor_name))
        self.plain_fields = plain | self.lone_fields
        # And what is nothing but rows: those of many requests may be prepared as one.
        self.row_fields = frozenset((MODEL.name, self.tensor_name)) | self.lone_fields

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
        """Check a request against a model and make the rows for its engine.

        Args:
            fields: by name, known ones only.
            model: that it is for.
            form: of the answer.
            deadline: a `time.monotonic()` value.
            values_per_row: how many numbers the answer holds a row, where that is not all.
            rows: the tensor, where it was read already.

        Returns:
            The input, or what makes it where that takes long: all that can be refused before was.

        Raises:
            InvalidRequest, TooLarge, UnsupportedMediaType: it is not what the model takes.
            Overloaded, NotReady, DeadlineExceeded: of many rows, what their queue would say.
        """
        with_evaluations = _EVALUATIONS in fields and RETURN_EVALUATIONS.value(fields)
        reasons: Reasons | None = None
        if rows is None:
            value = fields.get(self.tensor_name or "")
            if value is None:
                raise MissingField(
                    f"{self.tensor_name}: expected the rows", at=f"/{self.tensor_name}"
                )
            if isinstance(value, EncodedImage):
                answer_order(COLUMNS.value(fields), model.card)  # of pixels none has a name
                self._check_image(model, form, deadline)
                make_input = partial(
                    self._make_input,
                    fields=fields,
                    model=model,
                    form=form,
                    with_evaluations=with_evaluations,
                )
                return partial(self._decode_image, value, model.card, make_input)
            if type(value) is list and len(value) * model.card.features > MANY_VALUES:
                # Numbers of a list are not made yet; those of npy are a view of the body.
                self.queue(model).check(len(value), deadline)
            if _INVALID in fields and asks_for_null(fields):
                rows, reasons = self._read_valid_rows(value, fields, model.card)
            elif self.has_named_rows and (_COLUMNS in fields or is_by_name(value)):
                rows = self._read_named_rows(value, COLUMNS.value(fields), model.card)
            else:
                rows = self._read_rows(value, model.card)
                reasons = beyond_levels(rows, self._levels(model.card))
        return self._make_input(
            rows,
            fields,
            model,
            form,
            with_evaluations=with_evaluations,
            values_per_row=values_per_row,
            reasons=reasons,
        )

    def complete(
        self, given: ModelInput, fields: dict[str, Any], model: ServedModel, form: ResponseFormat
    ) -> ModelInput:
        """Add to a prepared input what only this operation knows of.

        Args:
            given: the rows and their context.
            fields, model, form: as `prepare` has them.

        Raises:
            InvalidRequest: the operation's own fields are not what it takes.
        """
        return given

    def follow_up(
        self, model: ServedModel, given: ModelInput, result: InferenceResult
    ) -> FollowUp | None:
        """Ask for more rows once the first are computed, where `given.follows`.

        Called again with what came of them in `given.followed`, until it asks for none: `finish`
        then has all of it.

        Args:
            model: that answers.
            given: what `prepare` made.
            result: what the engine gave for its rows.

        Raises:
            ServiceError: there is no answer without them.
        """
        return None

    def observe(
        self, model: ServedModel, outputs: Tensors, requests: Sequence[str], metrics: Metrics
    ) -> None:
        """Take note of an answer that is written; called by `note` where `is_observed`.

        Args:
            model: that answered.
            outputs: what `finish` gave.
            requests: the ids: of the one request, or of the request of each row.
            metrics: of the process.
        """
        return

    def note(
        self,
        model: ServedModel,
        given: ModelInput,
        outputs: Tensors,
        requests: Sequence[str],
        metrics: Metrics,
    ) -> None:
        """Call `observe` where that is to be called: what fails in it costs nobody an answer."""
        if not (self.is_observed and given.is_observed):
            return
        try:
            self.observe(model, outputs, requests, metrics)
        except Exception:
            _log.exception("an answer of %s could not be noted", self.name)

    def finish(
        self, card: ModelCard, given: ModelInput, result: InferenceResult, media: str
    ) -> tuple[Scalars, Tensors]:
        """Name what the engine gave back.

        Args:
            card: of the model that answered.
            given: what `prepare` made.
            result: its rows in order.
            media: the media type of the answer: some say of failed rows what others do not hold.

        Raises:
            InvalidParameter: evaluations were asked of a flow that counts none.
        """
        outputs, scalars = self.compute_outputs(card, given, result), given.scalars
        if given.trajectory is not None:
            outputs, scalars = add_states(card, given, result, outputs, scalars)
        if given.column_order is not None:
            outputs = {**outputs, _DATA: outputs[_DATA].take(given.column_order, axis=1)}
        if result.solver_stats is not None or given.with_evaluations:
            added = add_solver_stats(
                result, outputs, media, with_evaluations=given.with_evaluations
            )
            scalars = {**scalars, **added}
        if given.rejected is not None:
            outputs = given.rejected.spread(outputs)
        return scalars, outputs

    def failures(
        self, card: ModelCard, given: ModelInput, result: InferenceResult, count: CountFailures
    ) -> FailureFinder:
        """Make what finds the rows of an answer that failed, and why.

        Args:
            card: of the model that answered.
            given: what `prepare` made.
            result: what the engine gave for it.
            count: is told how many rows failed.
        """
        x = given.rows if self.tensor_name == "x" else None
        return FailureFinder(x, card.support, result, given.rejected, count)

    @abstractmethod
    def queue(self, model: ServedModel, *, wants_log_det: bool = True) -> RowQueue:
        """Which of the model's queues computes this operation: each is a call of its engine."""

    @abstractmethod
    def compute_outputs(
        self, card: ModelCard, given: ModelInput, result: InferenceResult
    ) -> Tensors:
        """Make the tensors of the answer; a row of each depends on that row alone."""

    @abstractmethod
    def example(self, card: ModelCard) -> dict[str, Any]:
        """The fields of a small request, for OpenAPI."""

    def row_shape(self, card: ModelCard) -> tuple[int, ...]:
        """The shape of one row of the tensor."""
        return card.event_shape

    def values_per_row(self, card: ModelCard) -> int:
        """How many numbers an answer holds for each row."""
        return card.features + 1

    @classmethod
    def output_names(cls, card: ModelCard) -> tuple[str, ...]:
        """The tensors that every answer of this model can hold."""
        return cls._tensors

    @classmethod
    def answered_names(cls, card: ModelCard, fields: Mapping[str, Any]) -> tuple[str, ...]:
        """Those that the answer to these fields holds."""
        return cls.output_names(card)

    @classmethod
    def refuse_output(cls, name: str, card: ModelCard, fields: Mapping[str, Any]) -> None:
        """Say why the answer to these fields lacks one of the operation's tensors.

        Raises:
            InvalidRequest: where that is known better than that there is no such output.
        """
        return

    def choose_format(
        self, accept: bytes | None, fields: dict[str, Any], card: ModelCard
    ) -> ResponseFormat:
        """Choose the format of an answer by the header `Accept` and the field `scale`.

        Raises:
            NotAcceptable: none that the client takes.
            InvalidParameter, OutOfRange: a scale that is none, or of an answer that is no picture.
        """
        if accept in ACCEPT_JSON and SCALE.name not in fields:
            return AS_JSON
        media = negotiate(accept, offers(card, gives_images=self.gives_images))
        if fields.get(SCALE.name) is None:
            return ResponseFormat(media)
        if media != PNG:
            raise InvalidParameter(
                "scale: only pictures have one, send Accept: image/png", at="/scale"
            )
        return ResponseFormat(media, SCALE.value(fields))

    def _make_input(
        self,
        rows: Array,
        fields: dict[str, Any],
        model: ServedModel,
        form: ResponseFormat,
        *,
        with_evaluations: bool,
        values_per_row: int | None = None,
        reasons: Reasons | None = None,
    ) -> ModelInput:
        if _INVALID in fields and INVALID.value(fields) == NULL:
            context, reasons = self._read_valid_context(
                fields, model.card, len(rows), reasons or {}
            )
        else:
            context = self.read_context(fields, model.card, len(rows))
        self.check_size(model.card, form, len(rows), values_per_row)
        given = ModelInput(
            rows,
            context,
            self.queue(model),
            {},
            True,
            with_evaluations,
            self.read_answer_order(fields, model.card) if _COLUMNS in fields else None,
        )
        if reasons:
            given = without_rejected(given, reasons)
        return self.complete(given, fields, model, form)

    def read_answer_order(self, fields: dict[str, Any], card: ModelCard) -> list[int] | None:
        """Read in which order the columns of an answered x are wanted; see `answer_order`."""
        columns = None if self.has_named_rows else COLUMNS.value(fields)
        return answer_order(columns, card)

    def read_context(self, fields: dict[str, Any], card: ModelCard, rows: int) -> Array | None:
        """Read what a conditional model is conditioned on; see `codec.context.read_context`."""
        value = fields.get(CONTEXT.name)
        if value is None and card.context_shape is None:
            return None
        return read_context(
            value,
            card.context_shape,
            card.num_classes,
            dtype=card.numpy_dtype,
            rows=rows,
        )

    def check_size(
        self, card: ModelCard, form: ResponseFormat, rows: int, values_per_row: int | None = None
    ) -> None:
        """Refuse what would have too large an answer.

        Raises:
            TooLarge: saying how many rows fit.
        """
        values = self.values_per_row(card) if values_per_row is None else values_per_row
        check_response_size(card, form, rows, values, self._limits.max_response_bytes)

    def _read_rows(self, value: Any, card: ModelCard) -> Array:
        try:
            return self._check_rows(value, card)
        except InvalidRequest as error:
            error.name_columns(card.feature_names)
            raise

    def _read_named_rows(self, value: Any, columns: Sequence[str] | None, card: ModelCard) -> Array:
        if columns is None and not is_by_name(value):
            return self._read_rows(value, card)
        return read_by_name(value, columns, card, _DATA, partial(self._check_rows, card=card))

    def _check_rows(self, value: Any, card: ModelCard) -> Array:
        return read_rows(
            value,
            self.tensor_name or "",
            self.row_shape(card),
            dtype=card.numpy_dtype,
            max_rows=self._limits.max_request_rows,
            num_levels=self._levels(card),
        )

    def _levels(self, card: ModelCard) -> int | None:
        """Of the pixels that the rows hold; None where they hold none."""
        return card.num_levels if self.has_named_rows else None

    def _read_valid_rows(
        self, value: Any, fields: dict[str, Any], card: ModelCard
    ) -> tuple[Array, Reasons]:
        """Read rows some of which may be invalid, and say what is wrong with these."""
        reasons: Reasons = {}

        def read(given: Any) -> Array:
            rows, found = read_valid_rows(
                given,
                self.tensor_name or "",
                self.row_shape(card),
                dtype=card.numpy_dtype,
                max_rows=self._limits.max_request_rows,
                num_levels=self._levels(card),
            )
            reasons.update(found)
            return rows

        if holds_objects(value):
            value = complete_objects(value, names_in(value) & {*(card.feature_names or ())})
        columns = COLUMNS.value(fields) if self.has_named_rows else None
        if columns is not None or (self.has_named_rows and is_by_name(value)):
            return read_by_name(value, columns, card, _DATA, read), reasons
        try:
            return read(value), reasons
        except InvalidRequest as error:
            error.name_columns(card.feature_names)
            raise

    def _read_valid_context(
        self, fields: dict[str, Any], card: ModelCard, rows: int, reasons: Reasons
    ) -> tuple[Array | None, Reasons]:
        """Read a context; what is wrong with its rows is added to what is wrong with x."""
        context, more = read_valid_context(
            fields.get(CONTEXT.name),
            card.context_shape,
            card.num_classes,
            dtype=card.numpy_dtype,
            rows=rows,
        )
        return context, more | reasons

    def _check_image(self, model: ServedModel, form: ResponseFormat, deadline: float) -> None:
        card = model.card
        self.queue(model).check(1, deadline)
        self.check_size(card, form, 1)
        if not is_picture(card.event_shape, card.num_levels):
            raise UnsupportedMediaType(
                f"Content-Type: model {card.name} takes no pictures, its rows have shape "
                f"{card.event_shape}"
            )

    def _decode_image(
        self, image: EncodedImage, card: ModelCard, make_input: Callable[[Array], ModelInput]
    ) -> ModelInput:
        try:
            pixels = read_image(image.body, image.media, card.event_shape, card.num_levels or 0)
        except MalformedBody as error:
            error.suggest(suggest_media(image.body, image.media, self.media))
            raise
        return make_input(self._read_rows(pixels, card))


def _bodies_of(fields: tuple[Field, ...], tensor: Field | None) -> tuple[str, ...]:
    npy = (NPY,) if tensor is not None else ()
    npz = (NPZ,) if tensor is not None or CONTEXT in fields else ()
    return (JSON, *npy, *npz)


def example_rows(shape: tuple[int, ...]) -> list[Any]:
    """One row of this shape, for examples."""
    rows: list[Any] = np.full((1, *shape), 0.5).tolist()
    return rows
