"""The Open Inference Protocol in types; of an inference they check all but its tensors."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from service.api.schemas import Wire

Scalar = str | bool | int | float

Numbers = Annotated[
    list[float | None],
    WithJsonSchema({"type": "array", "items": {"type": ["number", "null"]}}),
]


def _drop_nulls(value: object) -> object:
    """Read null as absent, in the parameters and in their place: clients write both."""
    if value is None:
        return {}
    if isinstance(value, dict):
        return {name: given for name, given in value.items() if given is not None}
    return value


Parameters = Annotated[dict[str, Scalar], BeforeValidator(_drop_nulls)]


class Strict(BaseModel):
    """An object of the protocol: no member of another name, no text for a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class InferInput(Strict):
    """One tensor of a request."""

    name: str = Field(description="x, z or context; or a column of x, each with a tensor.")
    shape: list[int] = Field(description="The batch axis first.")
    datatype: str = Field(description="FP16, FP32, FP64, INT8 .. INT64, UINT8 .. UINT64.")
    parameters: Parameters = Field({}, description="binary_data_size.")
    data: Annotated[Any, WithJsonSchema({"type": ["array", "null"]})] = Field(
        None, description="Row by row, nested or flat; absent where it follows the JSON as bytes."
    )


class InferOutput(Strict):
    """One tensor that is asked for."""

    name: str
    parameters: Parameters = Field({}, description="binary_data.")


class InferRequest(Strict):
    """Rows and what to make of them."""

    id: str | None = Field(None, description="Comes back on the answer.")
    model_name: str | None = Field(None, description="As in the path, where it is there.")
    model_version: str | None = Field(None, description="As the one that is served, likewise.")
    parameters: Parameters = Field(
        {},
        description="operation, num_samples, seed, temperature, first_row, columns (of x, with "
        "commas), invalid, timeout (microseconds), binary_data_output.",
    )
    inputs: list[InferInput]
    outputs: list[InferOutput] | None = Field(None, description="All if absent.")


class InferResultOutput(Wire):
    """One tensor of an answer."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Scalar] | None = Field(None, description="binary_data_size.")
    data: Numbers | None = Field(
        None, description="Row by row, flat; absent where it follows the JSON as bytes."
    )


class InferResult(Wire):
    """The tensors asked for."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, Any] | None = Field(
        None, description="seed, of samples; failures: rows without numbers, as /decode has them."
    )
    outputs: list[InferResultOutput]
    non_finite: list[int] | None = Field(
        None, description="Rows with a number that JSON cannot hold: it is null. Absent if none."
    )


class ServerMetadata(Wire):
    """The server and what it has of the protocol's extensions."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(Wire):
    """One tensor of a model; -1 is the batch axis."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(Wire):
    """The tensors of a model. Send x or z, not both, and context where it is listed."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: dict[str, Any] | None = Field(
        None, description="feature_names, of the columns of x. Absent if they are not known."
    )


class ModelReady(Wire):
    """A model takes requests."""

    name: str
    ready: bool


class IndexEntry(Wire):
    """One version of a model in the repository."""

    name: str
    version: str
    state: str = Field(description="READY or UNAVAILABLE.")
    reason: str


class IndexRequest(Strict):
    """What to list."""

    ready: bool = Field(False, description="Only what is served.")


class ControlRequest(Strict):
    """A load or unload; files and settings come from the repository alone."""

    parameters: Parameters = Field(
        {},
        description="Of a load: config, JSON in a string whose version_policy says which versions "
        "are live until the model is loaded without parameters, and default_version, the one that "
        "answers requests that name none. unload_dependents changes nothing.",
    )
