"""Plain requests, JSON for JSON, many a step: read together, computed together, written together.

All of their way but the engine's part is short, so they need no task; and numpy, orjson and the
queue are asked once for many rows.
"""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, NamedTuple

from service.codec.media import JSON
from service.codec.parameters import read_name
from service.codec.tensors import Array, read_lone_rows
from service.contracts import InferenceResult, RowQueue, ServedModel
from service.operations.response import PLAIN, ResponseFormat, write_plain, write_plain_rows
from service.operations.spec import PLAIN_ACCEPT, Job, ModelInput, Operation, wants_evaluations
from service.transport.asgi import AppContext
from service.transport.fast_path.coalesced_batch import CoalescedBatch, FastPathContext
from service.transport.request import Head

# What may wait together, by what it must have in common.
_Write = Callable[[Sequence[ModelInput], InferenceResult], list[bytes]]
_Groups = dict[Hashable, tuple[RowQueue, _Write, list[tuple[FastPathContext, ModelInput]]]]

_PLAIN_CONTENT_TYPE = (None, b"application/json")


class _Asked(NamedTuple):
    """A plain request whose tensor has not been looked at."""

    visit: FastPathContext
    served: ServedModel
    fields: dict[str, Any]
    form: ResponseFormat
    with_evaluations: bool
    patience: float


class PlainOperation(Operation):
    """An operation that plain requests go through in company."""

    def __init__(self, desk: AppContext) -> None:
        super().__init__(desk)
        # What most requests name: it says nothing of the form of the answer.
        self._usual = frozenset(filter(None, ("model", "context", self.tensor)))

    def is_plain(self, head: Head) -> bool:
        """Whether a request is plain, so that it may go through `begin`."""
        return (
            not head.query
            and head.headers.get(b"content-type") in _PLAIN_CONTENT_TYPE
            and head.headers.get(b"accept") in PLAIN_ACCEPT
            and self._desk.register.tracer is None
        )

    def begin(self, visits: Sequence[FastPathContext]) -> None:
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
                visit.refuse(error)
        groups: _Groups = {}
        for one, rows in zip(asked, self._read_together(asked), strict=True):
            try:
                self._order_plainly(one, rows, groups)
            except Exception as error:
                one.visit.refuse(error)
        for queue, write, members in groups.values():
            start = 0
            while start < len(members):
                company = members[start : start + queue.company_rows]
                start += len(company)
                CoalescedBatch(queue, write, company).enter()

    def _read(self, visit: FastPathContext, found: dict[str | None, ServedModel]) -> _Asked:
        patience = min(self._admit(visit.head), self._settings.request_timeout_seconds)
        visit.deadline = visit.arrived + patience
        fields = self._read_json(visit.body)
        name = read_name(fields.get("model"), "model")
        served = found.get(name)
        if served is None:
            served = found[name] = self._desk.repository.get(name)
        visit.model = served.card.name
        if fields.keys() <= self._usual:
            return _Asked(visit, served, fields, PLAIN, False, patience)
        form = self._choose_form(None, fields, served.card)
        return _Asked(visit, served, fields, form, wants_evaluations(fields), patience)

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

    def _order_plainly(self, asked: _Asked, rows: Array | None, groups: _Groups) -> None:
        """Make a request's rows, and put it with those that it can wait with."""
        visit, served, fields, form, with_evaluations, patience = asked
        order = self._order(fields, served, form, visit.deadline, rows)
        if not isinstance(order, ModelInput):
            order.close()
            visit.attend()
            return
        visit.rows = count = len(order.rows)
        queue = self._queue(served, order.wants_log_det)
        is_lone = count == 1 and not with_evaluations
        key = (id(queue), order.wants_log_det, patience) if is_lone else id(visit)
        group = groups.get(key)
        if group is None:
            group = groups[key] = (queue, partial(self._write, served, with_evaluations), [])
        group[2].append((visit, order))

    def _write(
        self,
        served: ServedModel,
        with_evaluations: bool,
        orders: Sequence[ModelInput],
        answer: InferenceResult,
    ) -> list[bytes]:
        """Write the body of each order: one of any size, or several of one row each."""
        card = served.card
        if len(orders) == 1:
            head, outputs = self._result(Job(served, orders[0], with_evaluations), answer, JSON)
            return [write_plain(card, head, outputs)]
        outputs = self._outputs(card, self._join(orders), answer)
        return write_plain_rows(card, [order.head for order in orders], outputs)

    def _join(self, orders: Sequence[ModelInput]) -> ModelInput:
        """Make one order of several, as far as `_outputs` looks at it."""
        return orders[0]
