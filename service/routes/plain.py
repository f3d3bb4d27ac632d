"""Plain requests, JSON for JSON, many a step: read together, queued together, written together.

All of their way but the engine's part is short, so they need no task; and numpy and orjson are
asked once for many rows.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from service.codec.media import JSON
from service.codec.parameters import read_name
from service.codec.tensors import Array, read_lone_rows
from service.model import Answer, ServedModel, Slot
from service.routes.answers import Form, plain_answer, write_plain, write_plain_rows
from service.routes.exchange import Head, Written
from service.routes.operation import PLAIN_ACCEPT, Job, Operation, Order, wants_evaluations

_PLAIN_CONTENT_TYPE = (None, b"application/json")


class PlainVisit(Slot, Protocol):
    """A plain request from arrival to answer, as `service.routes.clients.Visit` is of others.

    arrived: `time.monotonic()` when it was there. model, rows: written here, for the count.
    """

    head: Head
    body: bytes
    arrived: float
    model: str
    rows: int | None

    def wait(self, job: Job, leave: Callable[[], None]) -> None:
        """Its rows wait for the engine; `leave` drops them."""
        ...

    def attend(self) -> None:
        """Something on its way takes long after all: `Operation.serve` must have it."""
        ...


class _Asked(NamedTuple):
    """A plain request whose tensor has not been looked at."""

    visit: PlainVisit
    served: ServedModel
    fields: dict[str, Any]
    form: Form
    with_evaluations: bool
    deadline: float


class PlainOperation(Operation):
    """An operation that plain requests go through in company."""

    def is_plain(self, head: Head) -> bool:
        """Whether a request is plain, so that it may go through `begin` and `reply`."""
        return (
            not head.query
            and head.headers.get(b"content-type") in _PLAIN_CONTENT_TYPE
            and head.headers.get(b"accept") in PLAIN_ACCEPT
            and self._desk.register.tracer is None
        )

    def begin(self, visits: Sequence[PlainVisit]) -> None:
        """Read plain requests and let their rows wait for the engine, which answers to the visits.

        Each is told what becomes of it; the others are not touched by what is wrong with it.
        """
        asked = []
        found: dict[str | None, ServedModel] = {}
        for visit in visits:
            # Told where it is caught: an error that a frame keeps is part of a cycle, and with it
            # the body stays in memory until the next collection.
            try:
                asked.append(self._read(visit, found))
            except Exception as error:
                visit.set_exception(error)
        for one, rows in zip(asked, self._read_together(asked), strict=True):
            try:
                self._enter(one, rows)
            except Exception as error:
                one.visit.set_exception(error)

    @staticmethod
    def kin(job: Job, answer: Answer) -> Hashable:
        """Equal for what `reply` may answer together."""
        is_lone = len(answer.log_det) == 1 and answer.solves is None and not job.with_evaluations
        return (id(job.served), job.order.wants_log_det) if is_lone else id(job)

    def reply(
        self, finished: Sequence[tuple[Job, Answer]], identities: Sequence[str]
    ) -> list[Written]:
        """Answer jobs that are kin, each under the id of its request.

        Raises:
            InvalidParameter: one of them asked for what the model does not have.
        """
        if len(finished) == 1:
            job, answer = finished[0]
            head, outputs = self._result(job, answer, JSON)
            bodies = [write_plain(job.served.card, head, outputs)]
        else:
            bodies = self._write_lone_rows(finished)
        return [
            plain_answer(body, answer, identity)
            for body, (_, answer), identity in zip(bodies, finished, identities, strict=True)
        ]

    def _read(self, visit: PlainVisit, found: dict[str | None, ServedModel]) -> _Asked:
        patience = min(self._admit(visit.head), self._settings.request_timeout_seconds)
        fields = self._read_json(visit.body)
        name = read_name(fields.get("model"), "model")
        served = found.get(name)
        if served is None:
            served = found[name] = self._desk.repository.get(name)
        visit.model = served.card.name
        form = self._choose_form(None, fields, served.card)
        return _Asked(
            visit, served, fields, form, wants_evaluations(fields), visit.arrived + patience
        )

    def _read_together(self, asked: Sequence[_Asked]) -> list[Array | None]:
        """Read the tensors that hold one good row, those for one model at once."""
        rows: list[Array | None] = [None] * len(asked)
        tensor = self.tensor
        if tensor is None or len(asked) == 1:
            return rows
        groups: dict[int, list[int]] = {}
        for index, one in enumerate(asked):
            value = one.fields.get(tensor)
            if type(value) is list and len(value) == 1:
                groups.setdefault(id(one.served), []).append(index)
        for group in groups.values():
            card = asked[group[0]].served.card
            values = [asked[index].fields[tensor] for index in group]
            read = read_lone_rows(values, self._event_shape(card), dtype=card.numpy_dtype)
            if read is not None:
                for index, row in zip(group, read, strict=True):
                    rows[index] = row
        return rows

    def _enter(self, asked: _Asked, rows: Array | None) -> None:
        visit, served, fields, form, with_evaluations, deadline = asked
        order = self._order(fields, served.card, form, rows)
        if not isinstance(order, Order):
            order.close()
            visit.attend()
            return
        visit.rows = len(order.rows)
        leave = self._queue(served, order).enter(order.rows, order.context, deadline, visit)
        visit.wait(Job(served, order, with_evaluations), leave)

    def _write_lone_rows(self, finished: Sequence[tuple[Job, Answer]]) -> list[bytes]:
        """Write answers of one row each: their outputs are computed as those of one request."""
        jobs, answers = zip(*finished, strict=True)
        card, orders = jobs[0].served.card, [job.order for job in jobs]
        value = np.concatenate([answer.value for answer in answers])
        log_det = np.concatenate([answer.log_det for answer in answers])
        outputs = self._outputs(card, self._join(orders), Answer(value, log_det, 0.0, 0.0))
        return write_plain_rows(card, [order.head for order in orders], outputs)

    def _join(self, orders: Sequence[Order]) -> Order:
        """Make one order of several, as far as `_outputs` looks at it."""
        return orders[0]
