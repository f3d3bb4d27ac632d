"""The wire in types: what /docs shows, and what the ordinary routes answer with.

The four operations never build these objects: a tensor in pydantic costs several times its
exchange. A test holds their examples and answers to these schemas.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

_ROWS = {"type": "array", "minItems": 1, "items": {"type": "array"}}
_ANSWER_ROWS = {"type": "array", "items": {"type": ["array", "null"]}}
_ANSWER_NUMBERS = {"type": "array", "items": {"type": ["number", "null"]}}
_CONTEXT = {"type": ["array", "integer", "null"]}

Rows = Annotated[list[Any], WithJsonSchema(_ROWS)]
AnswerRows = Annotated[list[Any], WithJsonSchema(_ANSWER_ROWS)]
AnswerNumbers = Annotated[list[float | None], WithJsonSchema(_ANSWER_NUMBERS)]
Context = Annotated[Any, WithJsonSchema(_CONTEXT)]

_CONTEXT_TEXT = (
    "What a conditional model is conditioned on: one row a row, or one for all. Class-conditional "
    "models take labels 0 .. num_classes - 1 (one, or a list)."
)
_X_TEXT = "Rows of shape event_shape, the batch axis first."
_LOG_DET_TEXT = "log |det Jacobian| of this call, a row each, in nats."


class Wire(BaseModel):
    """A JSON object with these members and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Request(Wire):
    """What every request may say."""

    model: str | None = Field(None, description="May be left out when one model is served.")
    context: Context = Field(None, description=_CONTEXT_TEXT)
    return_evaluations: bool = Field(
        False, description="Continuous flows: say how often each row's field was evaluated."
    )


class LogProbRequest(Request):
    """Rows to score."""

    x: Rows = Field(description=_X_TEXT)


class EncodeRequest(Request):
    """Rows to map to latents."""

    x: Rows = Field(description=_X_TEXT)


class DecodeRequest(Request):
    """Latents to map to data."""

    z: Rows = Field(description="Latents (B, D), D = prod(event_shape).")
    scale: int | None = Field(None, ge=1, le=16, description="Size of a pixel, for pictures only.")


class SampleRequest(Request):
    """How many samples, and of which kind."""

    num_samples: int | None = Field(1, ge=1, description="How many rows to draw.")
    seed: int | None = Field(
        None, ge=0, le=2**64 - 1, description="One seed gives one draw, always; made if absent."
    )
    temperature: float | None = Field(
        1.0, ge=0, le=1000, description="T of z ~ N(0, T^2 I); 0 gives the mode of the base."
    )
    first_row: int | None = Field(
        0, ge=0, le=2**53, description="Row of the seed's endless draw to begin with."
    )
    return_log_prob: bool = Field(
        True,
        description="False leaves log_prob out: continuous flows then draw several times faster, "
        "and x may differ in the last digits. Pictures are always drawn so.",
    )
    scale: int | None = Field(None, ge=1, le=16, description="Size of a pixel, for pictures only.")


class SolveFailure(Wire):
    """A row whose equation could not be solved; its numbers are null."""

    row: int
    status: Literal["solver_failed"]
    reason: Literal["budget_spent", "step_underflow", "non_finite"]
    evaluations: int


class Result(Wire):
    """What every answer says."""

    model: str
    version: str
    non_finite: list[int] | None = Field(
        None,
        description="Rows with a number that JSON cannot hold: they are null. Absent if none.",
    )
    failures: list[SolveFailure] | None = Field(
        None, description="Continuous flows: rows whose equation could not be solved."
    )
    evaluations: list[int] | None = Field(
        None, description="Of the vector field of a continuous flow, a row each, if asked for."
    )
    log_prob_se: AnswerNumbers | None = Field(
        None,
        description="Standard error of log_prob or log_det where the trace is estimated; null "
        "where nothing is known of it.",
    )
    log_prob_se_reason: str | None = Field(None, description="Why log_prob_se is null.")


class LogProbResult(Result):
    """Scores."""

    log_prob: AnswerNumbers = Field(description="In nats, of the data as sent.")
    bits_per_dim: AnswerNumbers | None = Field(None, description="Models over pixels only.")


class EncodeResult(Result):
    """Latents."""

    z: AnswerRows
    log_det: AnswerNumbers = Field(description=_LOG_DET_TEXT)


class DecodeResult(Result):
    """Data."""

    x: AnswerRows
    log_det: AnswerNumbers = Field(description=_LOG_DET_TEXT)


class SampleResult(Result):
    """Samples."""

    x: AnswerRows
    log_prob: AnswerNumbers | None = Field(
        None, description="In nats, of the model itself (T = 1). Absent if not asked for."
    )
    seed: int = Field(ge=0, le=2**64 - 1, description="Draws the same samples again.")


class ModelInfo(Wire):
    """The facts of a served model."""

    name: str
    version: str
    family: str
    event_shape: tuple[int, ...] = Field(description="Shape of one x.")
    features: int = Field(description="D, the size of one x and of one z.")
    context_shape: tuple[int, ...] | None = Field(description="null if unconditional.")
    num_classes: int | None = Field(description="How many labels, of a class-conditional model.")
    num_levels: int | None = Field(description="Pixels are 0 .. num_levels - 1; null if no image.")
    support: tuple[float, float] | None = Field(description="Outside, log_prob is -inf.")
    dtype: str
    engine: str
    device: str
    num_parameters: int
    provenance: dict[str, Any]
    accuracy: dict[str, Any]
    config: dict[str, Any]
    engine_choice: dict[str, Any] = Field(description="What was measured to choose the engine.")
    feature_names: tuple[str, ...] | None = Field(
        description="Columns of the table that the model was trained on, in the order of x."
    )
    class_names: tuple[str, ...] | None = Field(description="Of the labels, by index.")


class ModelList(Wire):
    """All served models."""

    models: list[ModelInfo]
    default: str | None = Field(description="The model of a request that names none.")


class Live(Wire):
    """The process answers."""

    live: bool


class Ready(Wire):
    """Models are loaded and warm, and the service is not draining.

    workers_ready, workers: where there are several, how many take requests and how many there are
        to be; those that are not ready are being started anew.
    """

    ready: bool
    workers_ready: int | None = None
    workers: int | None = None


class Place(Wire):
    """One place in a request that is wrong."""

    pointer: str = Field(description="JSON pointer, as /x/3.")
    detail: str


class Problem(BaseModel):
    """Any error, RFC 9457 and Open Inference Protocol at once."""

    type: str
    title: str
    status: int
    code: str = Field(description="Stable: compare this one.")
    detail: str = Field(description="What was expected, what came, what to do.")
    error: str = Field(description="The same as detail.")
    request_id: str
    errors: list[Place] | None = None
