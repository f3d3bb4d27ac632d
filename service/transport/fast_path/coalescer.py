"""Plain requests, JSON for JSON, many a step: read together, computed together, written together.

A request whose every step but the engine's is short needs no task. More than that: a processor that
does one step for many requests has its code and its tables at hand, where one that goes all the way
with each comes upon everything cold; and numpy, orjson and the queue are asked once for many rows.
"""

import asyncio
from collections import defaultdict

from service.codec.lone_rows import LoneRowReader
from service.transport.asgi import OperationEndpoint
from service.transport.fast_path.batch_assembly import assemble_batches
from service.transport.fast_path.coalesced_batch import CoalescedBatch
from service.transport.fast_path.fast_path_request import FastPathRequest


class RequestCoalescer:
    """The plain requests that arrive in two turns of the event loop; the second does not wait.

    Clients that were answered together answer together, but for the first, which is often a turn
    before the others. Where one connection alone is open nobody is waited for.

    One batch is computed and answered a turn, the smallest first: who asks for something else is
    not to wait until hundreds of answers are written. What arrives meanwhile begins after the last.
    """

    def __init__(self) -> None:
        self._arrived: list[FastPathRequest] = []
        self._batches: list[CoalescedBatch] = []  # the smallest is the last
        self._readers: defaultdict[OperationEndpoint, LoneRowReader] = defaultdict(LoneRowReader)

    def add(self, request: FastPathRequest) -> None:
        """Begin a request with all others that arrive in this turn and the next."""
        self._arrived.append(request)
        if len(self._arrived) > 1 or self._batches:
            return
        connection = request.connection
        if connection.is_only:
            self._begin_all()
        else:
            connection.loop.call_soon(connection.loop.call_soon, self._begin_all)

    def _begin_all(self) -> None:
        arrived, self._arrived = self._arrived, []
        by_endpoint: defaultdict[OperationEndpoint, list[FastPathRequest]] = defaultdict(list)
        for request in arrived:
            if not request.is_over:  # its client may have left
                by_endpoint[request.endpoint].append(request)
        is_computing = bool(self._batches)
        for endpoint, requests in by_endpoint.items():
            try:
                self._batches += assemble_batches(endpoint, requests, self._readers[endpoint])
            except Exception as error:  # a fault of ours: all that wait for nothing fail
                for request in requests:
                    if not request.is_waiting:
                        request.fail(error)
        if len(self._batches) > 1:
            self._batches.sort(key=CoalescedBatch.size, reverse=True)
        if self._batches and not is_computing:
            self._compute_smallest()

    def _compute_smallest(self) -> None:
        batch = self._batches.pop()
        if self._batches:
            asyncio.get_running_loop().call_soon(self._compute_smallest)
        elif self._arrived:
            asyncio.get_running_loop().call_soon(self._begin_all)
        batch.compute()
