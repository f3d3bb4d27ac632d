"""Batch assembly: plain requests that arrived together are read, prepared and made into batches.

Those that are one row of numbers and nothing else are parsed by one call and prepared as one; the
others are read and prepared one by one, and wait together where they may.
"""

import asyncio
import logging
from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any

from service.codec.json import Explain
from service.codec.lone_rows import LoneFields, LoneRowReader, LoneText, parse_lone_rows
from service.codec.media import JSON
from service.codec.valid_rows import beyond_levels
from service.contracts import InferenceResult, ServedModel
from service.errors import NotReady, ServiceError
from service.keys import ApiKey
from service.operations.fields import MODEL
from service.operations.model_input import ModelInput, join_inputs
from service.operations.response import AS_JSON, Scalars, Tensors, write_json, write_json_rows
from service.transport.asgi import OperationEndpoint
from service.transport.fast_path.coalesced_batch import (
    Answered,
    CoalescedBatch,
    WriteBodies,
    record_each,
)
from service.transport.fast_path.fast_path_request import FastPathRequest

# Of a batch: computed, answered and written they hold the event loop for about 2 ms.
MOST_COALESCED_ROWS = 128

# What is said of coalesced requests is said under one name.
_log = logging.getLogger("service.transport.fast_path.coalescer")

# Requests of one row each for a model, and the text of their numbers.
_LoneRows = list[tuple[FastPathRequest, bytes]]
# Those that may be prepared as one, by model, patience, key and what else they say.
_Alike = dict[tuple[int, float, ApiKey | None, LoneFields], tuple[ServedModel, _LoneRows]]
# The models that were found in this turn, by the name that a request gives.
_Found = dict[str | None, ServedModel]
# What may wait together, by what it must have in common.
_Groups = dict[Hashable, tuple[WriteBodies, list[tuple[FastPathRequest, ModelInput]]]]


def assemble_batches(
    endpoint: OperationEndpoint, requests: Sequence[FastPathRequest], reader: LoneRowReader
) -> list[CoalescedBatch]:
    """Read plain requests and make batches of them.

    Each gets an answer or an error of its own, which does not touch the others.
    """
    found: _Found = {}
    batches, left = _join_lone_rows(endpoint, requests, reader, found)
    groups: _Groups = {}
    for request in left:
        # Told where it is caught: an error that a frame keeps is part of a cycle, and with it
        # the body stays in memory until the next collection.
        try:
            model = _read(request, reader, found)
        except Exception as error:
            request.fail(error)
            continue
        try:
            _prepare(request, model, groups)
        except NotReady as error:
            request.ask_successor(error)
        except Exception as error:
            request.fail(error)
    record = partial(_record, endpoint)
    for write, members in groups.values():
        start, most = 0, min(members[0][1].queue.max_coalesced_rows, MOST_COALESCED_ROWS)
        while start < len(members):
            some, inputs = zip(*members[start : start + most], strict=True)
            scalars = [given.scalars for given in inputs]
            batches.append(CoalescedBatch(write, some, join_inputs(inputs), scalars, record))
            start += most
    return batches


def _join_lone_rows(
    endpoint: OperationEndpoint,
    requests: Sequence[FastPathRequest],
    reader: LoneRowReader,
    found: _Found,
) -> tuple[list[CoalescedBatch], list[FastPathRequest]]:
    """Parse and prepare those requests as one that are one row of numbers and nothing else.

    Returns:
        Batches of them, and the requests that have to be read and prepared one by one.
    """
    alike, left = _find_alike(_admit(endpoint, requests), reader, found)
    batches: list[CoalescedBatch] = []
    for (*_, fields), (model, rows) in alike.items():
        made = _prepare_together(endpoint, model, dict(fields), rows)
        if made is None:
            left += [request for request, _ in rows]
        else:
            batches += made
    return batches, left


def _admit(
    endpoint: OperationEndpoint, requests: Sequence[FastPathRequest]
) -> list[FastPathRequest]:
    """Admit requests and say until when each waits; one that may not be served fails."""
    admitted: list[FastPathRequest] = []
    head, timeout, key = None, 0.0, None
    for request in requests:
        try:
            if request.head is not head:  # what a client sends again is the same object
                timeout, key = endpoint.admit(request.head)
                timeout = min(timeout, endpoint.longest_seconds)
                head = request.head
            if key is not None:
                request.use_key(key)
        except Exception as error:
            request.fail(error)
            continue
        request.timeout = timeout
        request.deadline = request.arrived + timeout
        admitted.append(request)
    return admitted


def _find_alike(
    requests: Sequence[FastPathRequest], reader: LoneRowReader, found: _Found
) -> tuple[_Alike, list[FastPathRequest]]:
    """Find the lone rows among requests, without parsing them.

    Returns:
        Those that may be prepared as one, and the requests that are no lone rows.
    """
    left: list[FastPathRequest] = []
    alike: _Alike = {}
    text: LoneText | None = None
    timeout, key = 0.0, None
    for request in requests:
        row = reader.find(request.body)
        if row is None:
            left.append(request)
            continue
        try:
            if request.key is not None:
                request.hold_rows(1)
            # Mostly as the one before.
            if row[0] is not text or request.timeout != timeout or request.key is not key:
                model = _find(request, row[0].model, found)
                text, timeout, key = row[0], request.timeout, request.key
                name, version = model.card.name, model.card.version
                _, rows = alike.setdefault((id(model), timeout, key, text.fields), (model, []))
        except Exception as error:
            request.fail(error)
            continue
        request.served, request.model, request.version = model, name, version
        rows.append((request, row[1]))
    return alike, left


def _prepare_together(
    endpoint: OperationEndpoint, model: ServedModel, fields: dict[str, Any], members: _LoneRows
) -> list[CoalescedBatch] | None:
    """Make batches of lone rows for one model; None where one of them is at fault."""
    operation, card = endpoint.operation, model.card
    numbers = [text for _, text in members]
    rows = parse_lone_rows(numbers, operation.row_shape(card), dtype=card.numpy_dtype)
    levels = card.num_levels if operation.has_named_rows else None
    if rows is None or beyond_levels(rows, levels):
        return None
    most = min(operation.queue(model).max_coalesced_rows, MOST_COALESCED_ROWS)
    write, record = partial(_write, endpoint, model), partial(_record, endpoint)
    batches = []
    for start in range(0, len(members), most):
        some = [request for request, _ in members[start : start + most]]
        part, deadline = rows[start : start + most], some[0].deadline
        try:
            given = operation.prepare(fields, model, AS_JSON, deadline, rows=part)
        except ServiceError:
            return None
        if not isinstance(given, ModelInput) or given.follows:
            return None
        batches.append(CoalescedBatch(write, some, given, [given.scalars] * len(some), record))
    for request, _ in members:
        request.rows = 1
    return batches


def _find(request: FastPathRequest, name: str | None, found: _Found) -> ServedModel:
    """Find the model of a request."""
    model = found.get(name)
    if model is None:
        model = found[name] = request.endpoint.app.repository.get(name)
    request.served = model
    request.model, request.version = model.card.name, model.card.version
    return model


def _read(request: FastPathRequest, reader: LoneRowReader, found: _Found) -> ServedModel:
    """Read the fields of a request, and find its model."""
    operation = request.endpoint.operation
    request.fields = fields = request.endpoint.reader.read_json(request.body)
    name = MODEL.value(fields)
    model = _find(request, name, found)
    if not fields.keys() <= operation.plain_fields:
        request.form = operation.choose_format(None, fields, model.card)
    elif fields.keys() <= operation.row_fields:
        rows = fields.get(operation.tensor_name or "")
        if type(rows) is list and len(rows) == 1 and type(rows[0]) is list:
            beside = {key: fields[key] for key in operation.lone_fields & fields.keys()}
            reader.learn(request.body, name, beside)
    return model


def _prepare(request: FastPathRequest, model: ServedModel, groups: _Groups) -> None:
    """Make a request's rows, and put it with those that it can wait with."""
    operation, deadline = request.endpoint.operation, request.deadline
    given = operation.prepare(request.fields, model, request.form, deadline)
    if not isinstance(given, ModelInput) or given.rejected is not None or given.follows:
        request.serve_alone()
        return
    request.rows = count = len(given.rows)
    request.hold_rows(count)
    is_lone = (
        count == 1
        and not given.with_evaluations
        and given.column_order is None
        and given.is_observed
    )
    key = (
        (
            *(id(model), id(given.queue), given.wants_log_det),
            *(given.decision, request.timeout, request.key),
        )
        if is_lone
        else id(request)
    )
    group = groups.get(key)
    if group is None:
        group = groups[key] = (partial(_write, request.endpoint, model), [])
    group[1].append((request, given))


def _write(
    endpoint: OperationEndpoint,
    model: ServedModel,
    given: ModelInput,
    scalars: Sequence[Scalars],
    result: InferenceResult,
    identities: Sequence[str],
) -> list[bytes]:
    """Write the body of each request: one of any size, or several of one row each."""
    card, operation = model.card, endpoint.operation
    said, outputs = operation.finish(card, given, result, JSON)
    if len(scalars) == 1:
        explain = partial(_explain, endpoint, model, given, result)
        bodies = [write_json(card, said, outputs, explain)]
    else:
        explain_row = partial(_explain_row, endpoint, model, given, result)
        bodies = write_json_rows(card, scalars, outputs, explain_row)
    operation.note(model, given, outputs, identities, endpoint.app.recorder.metrics)
    return bodies


def _record(endpoint: OperationEndpoint, answered: Sequence[Answered], now: float) -> None:
    """Count the answers to requests of one model, once they are on their way."""
    asyncio.get_running_loop().call_soon(_count, endpoint, answered, now)


def _count(endpoint: OperationEndpoint, answered: Sequence[Answered], now: float) -> None:
    first, status = answered[0][0], answered[0][1].status
    is_alike = len({response.status for _, response, _ in answered}) == 1
    try:
        seconds = [now - member.arrived for member, _, _ in answered]
        if is_alike and endpoint.count_batch(first.model, status, seconds, version=first.version):
            return
    except Exception:
        _log.exception("requests of %s could not be counted", endpoint.name)
        return
    record_each(answered, now)


def _explain(
    endpoint: OperationEndpoint,
    model: ServedModel,
    given: ModelInput,
    result: InferenceResult,
    outputs: Tensors,
) -> Scalars:
    """Say which rows of an answer failed, and why."""
    counter = endpoint.count_failures(model)
    return endpoint.operation.failures(model.card, given, result, counter).explain(outputs)


def _explain_row(
    endpoint: OperationEndpoint,
    model: ServedModel,
    given: ModelInput,
    result: InferenceResult,
    index: int,
) -> Explain:
    """Make what explains the answer of one of several requests."""
    alone = given.row(index, given.scalars)
    return partial(_explain, endpoint, model, alone, result.row(index))
