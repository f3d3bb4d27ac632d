"""What the routes know of a served model: facts, two queues of rows, and where to find them.

Neither torch nor HTTP is known here: the routes speak to these names, the batcher and the
repository stand behind them.
"""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from models.scoring.calibration import Calibration

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """The immutable facts of one served model.

    num_levels: how many values a pixel can take (256 for 8-bit images), None without pixels.
    support: values outside it have log_prob = -inf; None where the density is everywhere.
    features: D, the number of values in one event and in one latent.
    numpy_dtype: `dtype` as numpy knows it.
    dtype: "float32" or "float64", what the engine computes in and the wire carries.
    engine_choice: where engines were compared, what came out; empty where one was named.
    feature_names: of the columns of a table, in the order of x; None where they are not known.
    class_names: of the labels 0, 1, ... of a class-conditional model; None where not known.
    weights: SHA-256 of the weights file; empty where not known.
    calibration: of anomaly scores; None where there is none.
    memory: on a GPU, what it took there and of which card; empty on a CPU.
    discrete: columns of whole numbers, by name, or by index where names are not known: log_prob is
        the density at the middle of their bins of one unit, samples are to be rounded.
    cost: how often encode and decode of a row evaluate the networks; None where not known.
    """

    name: str
    version: str
    family: str
    event_shape: tuple[int, ...]
    context_shape: tuple[int, ...] | None
    num_classes: int | None
    num_levels: int | None
    support: tuple[float, float] | None
    dtype: str
    engine: str
    device: str
    num_parameters: int
    provenance: dict[str, Any]
    accuracy: dict[str, Any]
    config: dict[str, Any]
    engine_choice: dict[str, Any] = field(default_factory=dict)
    feature_names: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = None
    discrete: tuple[str, ...] | tuple[int, ...] = ()
    cost: dict[str, str] | None = None
    weights: str = field(default="", repr=False)
    calibration: Calibration | None = field(default=None, repr=False, compare=False)
    memory: dict[str, Any] = field(default_factory=dict, compare=False)
    # Asked for several times a request, so not computed each time.
    features: int = field(init=False)
    numpy_dtype: np.dtype[Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", math.prod(self.event_shape))
        object.__setattr__(self, "numpy_dtype", np.dtype(self.dtype))

    def describe(self) -> dict[str, Any]:
        """All facts as JSON can hold them."""
        calibration = self.calibration
        facts = asdict(replace(self, calibration=None))
        del facts["numpy_dtype"], facts["weights"]
        if not self.memory:
            del facts["memory"]
        return {**facts, "calibration": None if calibration is None else calibration.facts()}


class SolverStats(NamedTuple):
    """How the equations of a flow were solved, one entry a row.

    status: 0 where solved, else why not, as numbered by `models.ode.solver.SolveStatus`.
    evaluations: of the vector field of a continuous flow, or passes of the networks of one that
        counts them.
    log_det_se: standard error of log_det in nats, 0 where the trace is exact, NaN where it is
        estimated with one probe, which tells nothing of its error.
    """

    status: Array
    evaluations: Array
    log_det_se: Array


# What an engine gives for a batch: value, log_det and, of a flow that counts evaluations, what its
# rows took.
EngineOutput = tuple[Array, Array] | tuple[Array, Array, SolverStats]


class InferenceResult(NamedTuple):
    """What a queue gives back for one entry, rows in the order they were submitted.

    value: z (B, D) of an encode, x (B, *event_shape) of a decode.
    log_det: (B,), in nats.
    queue_seconds: from submission to the start of the entry's first batch.
    compute_seconds: the engine's, summed over the batches that the entry took part in.
    solver_stats: of flows that count their evaluations only.
    errors: of rows that have no numbers, by index: in an entry of several requests, those on which
        the engine failed.
    """

    value: Array
    log_det: Array
    queue_seconds: float
    compute_seconds: float
    solver_stats: SolverStats | None = None
    errors: Mapping[int, Exception] = MappingProxyType({})

    def rows(self) -> Iterator["InferenceResult"]:
        """Give the result of each row."""
        return map(self.row, range(len(self.log_det)))

    def row(self, index: int) -> "InferenceResult":
        """Give the result of one row."""
        here = slice(index, index + 1)
        stats = self.solver_stats and SolverStats(*(part[here] for part in self.solver_stats))
        return self._replace(
            value=self.value[here],
            log_det=self.log_det[here],
            solver_stats=stats,
            errors={0: self.errors[index]} if index in self.errors else {},
        )


class QueueShare(NamedTuple):
    """Whose rows wait: what a queue takes turns between.

    name: of the API key.
    weight: how large its share is beside others.
    """

    name: str
    weight: float = 1.0


class ReplySink(Protocol):
    """Where the answer to one request goes: an `asyncio.Future`, or what is as good as one.

    All is called on the event loop but `done`, which any thread may ask.
    """

    def done(self) -> bool:
        """Whether nobody waits for an answer any more."""
        ...

    def set_result(self, result: InferenceResult, /) -> None:
        """Take the answer."""
        ...

    def set_exception(self, exception: Exception, /) -> None:
        """Take what came in its place."""
        ...


class QueueHandle(Protocol):
    """A handle on the rows that one `RowQueue.enqueue` let wait."""

    def cancel(self) -> None:
        """Drop all rows that are not computed yet: the answer is of no use any more."""
        ...

    def cancel_row(self, row: int) -> bool:
        """Cancel one of several requests, with its row.

        Returns:
            Whether the rows close up behind it. They do not where a batch has taken some of them:
            the result then has that row too.
        """
        ...


class RowQueue(Protocol):
    """A queue of rows for one engine function; replies when all rows of an entry are computed."""

    def check(self, rows: int, deadline: float, share: QueueShare | None = None) -> None:
        """Refuse at once, before they are made, rows that `enqueue` would refuse now.

        Args:
            rows, deadline, share: as `enqueue`; where the key is not known yet, it has none.

        Raises:
            TooLarge, Overloaded, NotReady, DeadlineExceeded: as `enqueue`.
        """
        ...

    @property
    def max_coalesced_rows(self) -> int:
        """How many requests of one row each may be one entry, now: at least 1."""
        ...

    def compute_now(
        self, rows: Array, context: Array | None, deadline: float, *, requests: int = 1
    ) -> InferenceResult | None:
        """Compute rows at once, if that is short and nothing waits; None leaves them to `enqueue`.

        So it does where the engine fails: `enqueue` finds whose rows are at fault.

        Args:
            rows, context, deadline, requests: as `enqueue`.

        Raises:
            EngineError: the engine was lost.
        """
        ...

    def enqueue(
        self,
        rows: Array,
        context: Array | None,
        deadline: float,
        sink: ReplySink,
        *,
        requests: int = 1,
        is_accepted: bool = False,
        share: QueueShare | None = None,
    ) -> QueueHandle:
        """Let rows wait, and reply to `sink`, never before this has returned.

        The sink gets `EngineError` where the engine fails on the rows, `DeadlineExceeded` at the
        deadline and not later, `NotReady` where the model goes before they are computed.

        Args:
            rows: (B, ...), validated: right shape, the card's dtype, finite.
            context: one context a row, None for an unconditional model.
            deadline: a `time.monotonic()` value.
            sink: gets the result.
            requests: whose rows these are: `rows` of one, or one of each. Where the engine fails on
                some of several, the result has their errors beside the numbers of the others.
            is_accepted: a queue has taken the rows before, of a model that was replaced then:
                neither want of room nor draining refuses them.
            share: of their API key; all without one have one together.

        Raises:
            TooLarge: there are more rows than the queue can ever hold.
            Overloaded: the queue is full now; `retry_after` says when to come back.
            NotReady: the model is draining or gone.
            DeadlineExceeded: the deadline has passed.
        """
        ...


class StatesQueue(RowQueue, Protocol):
    """A queue of latents, each with the progress behind it, 0 .. 1: it gives the states there."""

    @property
    def max_rows(self) -> int:
        """How many rows a request may have."""
        ...

    @property
    def is_by_state(self) -> bool:
        """Whether rows of one progress are best computed together; else those of one latent."""
        ...

    def label(self, progress: float) -> str | float:
        """Say what a state is, a layer or a time; once one was computed."""
        ...


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model ready for requests: `encode` takes x, `decode` takes z.

    generate: takes z and gives x alone, where that is less work than `decode`; None elsewhere.
    gradient: takes x and gives d log_prob / d x, with log_prob as log_det; of pictures only.
    states: takes z with a progress and gives the state on the way to x.
    """

    card: ModelCard
    encode: RowQueue
    decode: RowQueue
    generate: RowQueue | None = None
    gradient: RowQueue | None = None
    states: StatesQueue | None = None


class VersionPolicy(NamedTuple):
    """Which versions of a model are live; None where it is said elsewhere.

    live: the highest, all, or those with these numbers.
    default: the one that answers requests that name none.
    """

    live: Literal["latest", "all"] | tuple[int, ...] | None = None
    default: int | None = None


@dataclass(frozen=True, slots=True)
class ModelIndexEntry:
    """One version of a model in the index: served, or why not.

    reason: of a version that is served, why what lies in its folder now is not.
    """

    name: str
    version: str
    is_ready: bool
    reason: str = ""


class HeldBack(NamedTuple):
    """A model or a version of one that could not be fetched; the one before it is served on.

    path: of its folder below the URI, or of the settings of its versions; '.' is the URI itself.
    """

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """A URI that models come from, and what came of the last look at it.

    uri: without credentials.
    reason: why it failed; what was fetched before is served on.
    since: when it began to be so, in seconds since 1970; succeeded: when it last went well, or 0.
    held_back: what failed alone, where the rest was fetched.
    is_misnamed: whether the URI is at fault, behind which there is no model, or no store.
    """

    uri: str
    is_ok: bool
    reason: str
    since: float
    succeeded: float = 0.0
    held_back: tuple[HeldBack, ...] = ()
    is_misnamed: bool = False

    def failed(self, reason: str) -> "SourceStatus":
        """The same after a look that failed."""
        since = time.time() if self.is_ok else self.since
        return replace(self, is_ok=False, reason=reason, since=since, held_back=())


class Repository(Protocol):
    """Where the routes find models."""

    @property
    def is_ready(self) -> bool:
        """Whether every model is loaded and warm and the service is not draining."""
        ...

    @property
    def is_alive(self) -> bool:
        """Whether every batcher's loop and worker still run."""
        ...

    def get(self, name: str | None) -> ServedModel:
        """Find a model by name, or by NAME@VERSION; None is the default or the only one.

        Raises:
            ModelNotFound: no such model, the version is not live, or None where several are served
                without a default.
            NotReady: models are loading or the service is draining.
        """
        ...

    def models(self) -> list[ServedModel]:
        """The default versions of all served models in order of name."""
        ...

    def versions(self, name: str) -> list[ServedModel]:
        """The live versions of a model, the highest last; none where no model is called so."""
        ...

    def index(self) -> list[ModelIndexEntry]:
        """All models in order of name: the live versions, and those that were refused."""
        ...

    def sources(self) -> list[SourceStatus]:
        """The URIs that models come from."""
        ...

    async def load(self, name: str, wanted: VersionPolicy | None = None) -> None:
        """Load a model from its folder; its version before, if any, is served until then.

        Args:
            name: of the model.
            wanted: which versions are live from now on, whatever its folder says; those that are
                live already go on as they are. None: as its folder says, and all are loaded anew.

        Raises:
            ModelNotFound: no folder is called so.
            ModelRefused: what lies there cannot be served; nothing has changed.
            NotReady: the service is shutting down.
        """
        ...

    async def unload(self, name: str) -> None:
        """Serve a model no longer, until it is loaded by name; accepted rows are finished.

        Raises:
            ModelNotFound: no such model.
        """
        ...

    async def start(self) -> None:
        """Load and warm up every model; called once from the application's lifespan."""
        ...

    async def drain(self) -> None:
        """Refuse new rows, finish the accepted ones."""
        ...
