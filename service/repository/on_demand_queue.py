"""Queues of what few ask of a model: a batcher that is made when somebody asks for the first."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from service.batcher import Batcher, ComputeSlots, EngineCall, QueuePolicy
from service.codec.image import is_picture
from service.contracts import (
    Array,
    EngineOutput,
    InferenceResult,
    ModelCard,
    QueueHandle,
    QueueShare,
    ReplySink,
)
from service.engines.flow_on_demand import FlowOnDemand
from service.engines.gradient import PixelGradient
from service.engines.states import FlowStates
from service.errors import (
    EngineError,
    InvalidParameter,
    NotAcceptable,
    NotReady,
    ServiceError,
    TooLarge,
)
from service.telemetry import Metrics

# Back-propagation keeps what every layer gave: a batch has so many times fewer rows.
_MEMORY = 8


class Computation(Protocol):
    """What is computed on demand."""

    @property
    def refusal(self) -> str:
        """Why it cannot be, as far as is known; else empty."""
        ...

    def __call__(self, rows: Array, context: Array | None, /) -> EngineOutput:
        """Compute a batch."""
        ...


class OnDemandQueue:
    """A `RowQueue` whose batcher has one thread and computes one batch at a time.

    Until it is asked for the first time there is none.

    Args:
        computation: computes.
        make_batcher: makes the batcher of it.
        refuse: makes an error of the reason why it cannot.
        max_rows: that may wait.
    """

    def __init__(
        self,
        computation: Computation,
        make_batcher: Callable[[], Batcher],
        refuse: Callable[[str], ServiceError],
        *,
        max_rows: int,
    ) -> None:
        self.max_rows = max_rows
        self._computation = computation
        self._make_batcher = make_batcher
        self._refuse = refuse
        self._batcher: Batcher | None = None
        self._is_ended = False

    @property
    def max_coalesced_rows(self) -> int:
        """Requests are not joined: one is much work."""
        return 1

    @property
    def batcher(self) -> Batcher | None:
        """Its batcher; None until it is asked for the first time."""
        return self._batcher

    def check(self, rows: int, deadline: float, share: QueueShare | None = None) -> None:
        """Refuse what cannot be computed, from any thread; `enqueue` looks at the rows themselves.

        Raises:
            ServiceError: as `refuse` makes it.
            TooLarge: so many rows would never fit.
            Overloaded, NotReady, DeadlineExceeded: as `enqueue` would say of them now.
        """
        self._check_computation()
        if self._batcher is not None:
            self._batcher.check(rows, deadline, share)
        elif rows > self.max_rows:
            raise TooLarge(f"expected at most {self.max_rows} rows a request, got {rows}")

    def compute_now(
        self, rows: Array, context: Array | None, deadline: float, *, requests: int = 1
    ) -> InferenceResult | None:
        """Leave all rows to `enqueue`: none of them is short."""
        return None

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
        """Let rows wait; see `service.contracts.RowQueue`.

        Raises:
            ServiceError: it cannot be computed of this model.
        """
        reply = _Reply(sink, self._computation, self._refuse)
        return self._started().enqueue(
            *(rows, context, deadline, reply),
            requests=requests,
            is_accepted=is_accepted,
            share=share,
        )

    async def drain(self) -> None:
        """Refuse new rows, finish the accepted ones, end the thread."""
        self._is_ended = True
        if self._batcher is not None:
            await self._batcher.drain()

    def abort(self, detail: str) -> None:
        """Refuse new rows and the accepted ones, let the thread end."""
        self._is_ended = True
        if self._batcher is not None:
            self._batcher.abort(detail)

    def _check_computation(self) -> None:
        if self._computation.refusal:
            raise self._refuse(self._computation.refusal)

    def _started(self) -> Batcher:
        self._check_computation()
        if self._batcher is None:
            if self._is_ended:
                raise NotReady("the model is not taking requests now")
            self._batcher = self._make_batcher()
            self._batcher.start()
        return self._batcher


class StatesQueue(OnDemandQueue):
    """The queue of the states between noise and data.

    Args:
        states: computes.
        make_batcher: makes the batcher of it.
        max_rows: that may wait.
        is_by_state: see `service.contracts.StatesQueue`.
    """

    def __init__(
        self,
        states: FlowStates,
        make_batcher: Callable[[], Batcher],
        *,
        max_rows: int,
        is_by_state: bool,
    ) -> None:
        super().__init__(states, make_batcher, refuse_trajectory, max_rows=max_rows)
        self.is_by_state = is_by_state
        self._states = states

    def label(self, progress: float) -> str | float:
        """Say what a state is; once one was computed."""
        return self._states.label(progress)


class OnDemandQueues:
    """Makes a model's queues, which cost nothing until they are asked.

    Args:
        card: of the model.
        flow: what they compute with.
        policy: of its other queues.
        metrics: where the batchers count.
        slots: the thread budget of the process.
    """

    def __init__(
        self,
        card: ModelCard,
        flow: FlowOnDemand,
        policy: QueuePolicy,
        metrics: Metrics,
        slots: ComputeSlots | None,
    ) -> None:
        self._card = card
        self._flow = flow
        self._policy = replace(policy, instances=1, max_inline_seconds=0.0)
        self._metrics = metrics
        self._slots = slots

    def gradients(self) -> OnDemandQueue | None:
        """The gradient of log p as value, and log p as log_det; None where rows are no pictures."""
        card = self._card
        if not is_picture(card.event_shape, card.num_levels):
            return None
        gradient = PixelGradient(self._flow)
        fewer = max(1, self._policy.max_batch_rows // _MEMORY)
        policy = replace(self._policy, max_batch_rows=fewer)
        return OnDemandQueue(
            gradient,
            lambda: self._make_batcher("gradient", gradient, card.event_shape, policy),
            refuse_gradient,
            max_rows=policy.max_queue_rows,
        )

    def states(self, *, is_continuous: bool) -> StatesQueue:
        """States between noise and data, of rows of z with the progress behind them.

        Args:
            is_continuous: the flow solves equations, each state those of a time of its own; layers
                are shared by the states of a row.
        """
        states = FlowStates(self._flow)
        takes = (self._card.features + 1,)
        return StatesQueue(
            states,
            lambda: self._make_batcher("trajectory", states, takes, self._policy),
            max_rows=self._policy.max_queue_rows,
            is_by_state=is_continuous,
        )

    def _make_batcher(
        self, name: str, computation: Computation, takes: tuple[int, ...], policy: QueuePolicy
    ) -> Batcher:
        card = self._card
        call = EngineCall(computation, takes, card.event_shape, card.context_shape, card.dtype)
        counters = self._metrics.queue(card.name, name, "torch", version=card.version)
        return Batcher(call, policy, counters, name=f"{card.name}.{name}", slots=self._slots)


class _Reply:
    """A sink that says why, where the reason was found out while the rows waited."""

    def __init__(
        self, sink: ReplySink, computation: Computation, refuse: Callable[[str], ServiceError]
    ) -> None:
        self._sink = sink
        self._computation = computation
        self._refuse = refuse

    def done(self) -> bool:
        return self._sink.done()

    def set_result(self, result: InferenceResult, /) -> None:
        self._sink.set_result(result)

    def set_exception(self, exception: Exception, /) -> None:
        refusal = self._computation.refusal if isinstance(exception, EngineError) else ""
        self._sink.set_exception(self._refuse(refusal) if refusal else exception)


def refuse_gradient(reason: str) -> NotAcceptable:
    """Say why there is no heat map."""
    return NotAcceptable(
        f"Accept: a heat map is the gradient of log p, and {reason}; ask for application/json"
    )


def refuse_trajectory(reason: str) -> InvalidParameter:
    """Say why there are no states between noise and data."""
    return InvalidParameter(
        f"trajectory: its states are computed apart, and {reason}; leave trajectory out",
        at="/trajectory",
    )
