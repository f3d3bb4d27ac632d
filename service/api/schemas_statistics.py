"""Triton's statistics extension in types."""

from pydantic import Field

from service.api.schemas import Wire


class DurationStatistics(Wire):
    """How often, and how long all of it took."""

    count: int
    ns: int = Field(description="Nanoseconds, summed.")


class InferenceStatistics(Wire):
    """Where the time went. Reading and writing are timed with the whole request only."""

    success: DurationStatistics = Field(description="Requests that were answered.")
    fail: DurationStatistics = Field(description="Requests that were answered with an error.")
    queue: DurationStatistics = Field(description="Requests, until their first batch began.")
    compute_input: DurationStatistics = Field(description="Not timed apart: 0.")
    compute_infer: DurationStatistics = Field(description="Batches, in the engine.")
    compute_output: DurationStatistics = Field(description="Not timed apart: 0.")


class BatchStatistics(Wire):
    """Batches of about one size."""

    batch_size: int = Field(description="Rows, rounded up to a power of two.")
    compute_input: DurationStatistics = Field(description="Not timed apart: 0.")
    compute_infer: DurationStatistics = Field(description="Batches, in the engine.")
    compute_output: DurationStatistics = Field(description="Not timed apart: 0.")


class StatisticsOfModel(Wire):
    """What was asked of one version of a model since the server started."""

    name: str
    version: str
    last_inference: int = Field(description="Milliseconds since 1970; 0 if there was none.")
    inference_count: int = Field(description="Rows computed.")
    execution_count: int = Field(description="Batches computed.")
    inference_stats: InferenceStatistics
    batch_stats: list[BatchStatistics]


class StatisticsOfModels(Wire):
    """Statistics of one model or more, of all processes together."""

    model_stats: list[StatisticsOfModel]
