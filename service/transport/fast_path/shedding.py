"""Refusals without reading: what its queue would refuse is answered at once.

Under an overload most requests are refused. To parse each, begin a task for it and make its rows
takes the processor from those that are computed, and on a busy machine the event loop falls behind:
what it accepts then has waited unseen. So while requests are refused the queue is asked first, and
who is not refused goes the usual way. What else is wrong with a request is told to those let in.
"""

import itertools
import operator
import re

from service.codec.media import JSON, NPY
from service.errors import DeadlineExceeded, Overloaded
from service.operations.response import RawResponse, error_response
from service.transport.fast_path.head_cache import RoutedRequest
from service.transport.request import request_id

_NAME = re.compile(rb'"model"\s*:\s*"([^"\\]*)"')
_NPY_ROWS = re.compile(rb"'shape': \((\d+),")
_NPY_HEAD_BYTES = 256


def refuse_unread(routed: RoutedRequest, body: bytes, now: float) -> RawResponse | None:
    """Refuse a request that its queue would refuse.

    Args:
        routed: its head.
        body: all of it.
        now: `time.monotonic()`.

    Returns:
        The answer, counted; None where the request is to be read.
    """
    endpoint, head = routed.endpoint, routed.head
    if head.query or endpoint.operation.tensor is None or endpoint.app.recorder.tracer is not None:
        return None
    model = version = ""
    key = None
    try:
        seconds, key = endpoint.admit(head)
        deadline = now + min(seconds, endpoint.longest_seconds)
        is_json = endpoint.reader.read_media(head) == JSON
        if not is_json and endpoint.reader.read_media(head) != NPY:
            return None
        served = endpoint.app.repository.get(_find_name(body) if is_json else None)
        model, version = served.card.name, served.card.version
        shape = endpoint.operation.row_shape(served.card)
        rows = _count_json_rows(body, shape) if is_json else _count_npy_rows(body)
        endpoint.operation.queue(served).check(
            max(1, rows), deadline, None if key is None else key.share
        )
        return None
    except (Overloaded, DeadlineExceeded) as error:
        endpoint.note_failure(error, model, version)
        identity = request_id(head.headers)
        response = error_response(error, identity).raw()
    except Exception:  # it is told to whom it concerns once the request is read
        return None
    endpoint.record(head, identity, response, 0.0, model=model, version=version, key=key)
    return response


def _find_name(body: bytes) -> str | None:
    """The model that a body of JSON names, as far as can be told without reading it."""
    names = _NAME.findall(body)
    return names[0].decode() if names else None


def _count_json_rows(body: bytes, shape: tuple[int, ...]) -> int:
    """About how many rows a body has: each has a bracket for each of its lists."""
    brackets: int = 1 + sum(itertools.accumulate(shape[:-1], operator.mul))
    return (body.count(b"[") - 1) // brackets


def _count_npy_rows(body: bytes) -> int:
    """How many rows a body has, by what stands before its numbers."""
    shape = _NPY_ROWS.search(body[:_NPY_HEAD_BYTES])
    return int(shape[1]) if shape else 1
