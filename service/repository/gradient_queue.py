"""The queue of a model's gradients: a batcher that is made when somebody asks for the first."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from service.batcher import Batcher, ComputeSlots, EngineCall, QueuePolicy
from service.codec.image import is_picture
from service.contracts import Array, InferenceResult, ModelCard, QueueHandle, ReplySink
from service.engines.gradient import PixelGradient
from service.errors import EngineError, NotAcceptable, NotReady
from service.telemetry import Metrics

# Back-propagation keeps what every layer gave: a batch has so many times fewer rows.
_MEMORY = 8


class GradientQueue:
    """A `RowQueue` that gives the gradient of log p as value, and log p as log_det.

    Its batcher has one thread and computes one batch at a time; until it is asked for the first
    time there is none.

    Args:
        gradient: computes.
        make_batcher: makes the batcher of it.
    """

    def __init__(self, gradient: PixelGradient, make_batcher: Callable[[], Batcher]) -> None:
        self._gradient = gradient
        self._make_batcher = make_batcher
        self._batcher: Batcher | None = None
        self._is_ended = False

    @property
    def max_coalesced_rows(self) -> int:
        """Requests for gradients are not joined: one is much work."""
        return 1

    @property
    def batcher(self) -> Batcher | None:
        """Its batcher; None until it is asked for the first time."""
        return self._batcher

    def check(self, rows: int, deadline: float) -> None:
        """Refuse what has no gradients, from any thread; `enqueue` looks at the rows themselves.

        Raises:
            NotAcceptable: there are none of this model.
        """
        if self._gradient.refusal:
            raise _refuse(self._gradient.refusal)

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
    ) -> QueueHandle:
        """Let rows wait; see `service.contracts.RowQueue`.

        Raises:
            NotAcceptable: there are no gradients of this model.
        """
        reply = _Reply(sink, self._gradient)
        return self._started().enqueue(
            rows, context, deadline, reply, requests=requests, is_accepted=is_accepted
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

    def _started(self) -> Batcher:
        self.check(0, math.inf)
        if self._batcher is None:
            if self._is_ended:
                raise NotReady("gradients: the model is not taking requests now")
            self._batcher = self._make_batcher()
            self._batcher.start()
        return self._batcher


def open_gradients(
    card: ModelCard,
    folder: Path,
    policy: QueuePolicy,
    metrics: Metrics,
    *,
    threads: int,
    slots: ComputeSlots | None,
) -> GradientQueue | None:
    """Make the queue of a model's gradients, which costs nothing until it is asked.

    Args:
        card: of the model.
        folder: its files.
        policy: of its other queues.
        metrics: where the batcher counts.
        threads: of one call of torch.
        slots: the thread budget of the process.

    Returns:
        None where rows are no pictures.
    """
    if not is_picture(card.event_shape, card.num_levels):
        return None
    gradient = PixelGradient(
        folder, weights=card.weights, dtype=card.dtype, device=card.device, threads=threads
    )
    call = EngineCall(gradient, card.event_shape, card.event_shape, card.context_shape, card.dtype)
    limits = replace(
        policy,
        max_batch_rows=max(1, policy.max_batch_rows // _MEMORY),
        instances=1,
        max_inline_seconds=0.0,
    )

    def make_batcher() -> Batcher:
        counters = metrics.queue(card.name, "gradient", "torch")
        return Batcher(call, limits, counters, name=f"{card.name}.gradient", slots=slots)

    return GradientQueue(gradient, make_batcher)


class _Reply:
    """A sink that says why, where the reason was found out while the rows waited."""

    def __init__(self, sink: ReplySink, gradient: PixelGradient) -> None:
        self._sink = sink
        self._gradient = gradient

    def done(self) -> bool:
        return self._sink.done()

    def set_result(self, result: InferenceResult, /) -> None:
        self._sink.set_result(result)

    def set_exception(self, exception: Exception, /) -> None:
        is_refused = isinstance(exception, EngineError) and self._gradient.refusal
        self._sink.set_exception(_refuse(self._gradient.refusal) if is_refused else exception)


def _refuse(reason: str) -> NotAcceptable:
    return NotAcceptable(
        f"Accept: a heat map is the gradient of log p, and {reason}; ask for application/json"
    )
