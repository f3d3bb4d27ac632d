"""What the ordinary routes answer with, in types; operations are described by their specs."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Wire(BaseModel):
    """A JSON object with these members and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SolveFailure(Wire):
    """A row without numbers, and why; docs/protocol.md has what each reason means."""

    row: int = Field(description="Of the request, from 0.")
    status: Literal["solver_failed", "outside_support", "not_a_number", "invalid_input"]
    reason: Literal[
        "budget_spent",
        "step_underflow",
        "non_finite",
        "out_of_bounds",
        "density_underflow",
        "nan",
        "infinite",
        "missing",
        "too_large",
    ]
    evaluations: int | None = Field(None, description="Of solver_failed: what the solve took.")


class ModelInfo(Wire):
    """The facts of a served model."""

    name: str
    version: str
    versions: tuple[str, ...] = Field(
        description="Those that are live, the highest last: NAME@VERSION asks one of them."
    )
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
    discrete: tuple[str, ...] | tuple[int, ...] = Field(
        description="Columns of whole numbers, by name or index: log_prob is the density at the "
        "middle of their bins; round samples to the nearest whole number."
    )
    cost: dict[str, str] | None = Field(
        description="How often encode (log_prob, score) and decode (sample) of a row evaluate each "
        "network, for its family: a number, D for the number of features, or what each row needs."
    )
    calibration: dict[str, Any] | None = Field(
        description="Of anomaly scores (POST /score): thresholds and what they promise; null if "
        "none."
    )
    memory: dict[str, Any] | None = Field(
        None,
        description="On a GPU: taken_bytes, what loading the model took of it, and the card; "
        "absent on a CPU.",
    )


class ModelList(Wire):
    """All served models."""

    models: list[ModelInfo]
    default: str | None = Field(description="The model of a request that names none.")


class Histogram(Wire):
    """How many calibration rows have which score."""

    edges: list[float] = Field(description="Of bins of one width, one more than there are bins.")
    counts: list[int] = Field(description="Calibration rows in each bin.")
    below: int = Field(description="Calibration rows that score below all bins.")
    above: int = Field(
        description="Calibration rows that score above all bins, or lie outside of the support."
    )


class Quantile(Wire):
    """A score that a share of the calibration rows does not exceed."""

    share: float
    score: float | None = Field(description="null where it is infinite.")


class CalibrationInfo(BaseModel):
    """The calibration of a served model, and its scores in short."""

    model_config = ConfigDict(extra="allow", frozen=True)

    model: str
    version: str
    id: str
    rows: int
    statistic: str
    direction: str
    threshold: float | None = Field(description="Of alpha: above it a row is flagged; else null.")
    p_floor: float = Field(description="The least p-value, and the least alpha.")
    fpr_upper95: float | None = Field(
        description="Of alpha: 95 % of all calibration sets have a lower true rate."
    )
    dataset: str
    created: str
    histogram: Histogram
    quantiles: list[Quantile]


class Live(Wire):
    """The process answers."""

    live: bool


class Unavailable(Wire):
    """A version of a model that is not served."""

    name: str
    version: str
    reason: str


class HeldBackPart(Wire):
    """A model or a version of one that could not be fetched, while the rest was."""

    path: str = Field(description="Its folder below the URI, or the settings of its versions.")
    reason: str


class ModelSource(Wire):
    """A URI that models come from, without credentials."""

    uri: str
    ok: bool = Field(description="Whether the last look at it went well.")
    reason: str | None = Field(
        None, description="Why it did not; what was fetched before is served on."
    )
    since: datetime = Field(description="When it began to be so.")
    held_back: list[HeldBackPart] | None = Field(
        None,
        description="What failed alone, the first 20: the version before is served, and the rest "
        "is up to date. Absent where all of it failed, or nothing did.",
    )


class KeyFile(Wire):
    """The file of API keys; the log says why one cannot be used."""

    ok: bool = Field(description="Whether it can be used; else the keys before it stay.")
    since: datetime = Field(description="When it began to be so.")


class Ready(Wire):
    """Models are loaded and warm, and the service is not draining.

    unavailable: those that the index lists as UNAVAILABLE: versions that were refused, and models
        that were unloaded; absent if none.

    sources: the URIs that models come from; absent if none.

    api_key_file: absent if there is none.

    workers_ready, workers: where there are several, how many take requests and how many there are
        to be; those that are not ready are being started anew.
    """

    ready: bool
    unavailable: list[Unavailable] | None = None
    sources: list[ModelSource] | None = None
    api_key_file: KeyFile | None = None
    workers_ready: int | None = None
    workers: int | None = None


class FaultyField(Wire):
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
    errors: list[FaultyField] | None = None
