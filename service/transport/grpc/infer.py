"""ModelInfer: V2's inference, read from a message and answered as one.

It is an endpoint as those of HTTP: keys, request ids, counting, logging, tracing and the form of
errors are `Endpoint`'s, what is computed is `InferEndpoint`'s.
"""

from typing import Any

from service.codec.json_slices import LARGE_BYTES, is_large
from service.codec.v2 import Inference
from service.operations import OPERATIONS
from service.operations.request_context import RequestContext
from service.operations.response import Response, failure_headers, server_timing
from service.transport.asgi import AppContext, ReadBody
from service.transport.grpc.messages import message_class, parse
from service.transport.grpc.tensors import read_request, write_answer
from service.transport.request import Head
from service.transport.v2 import InferEndpoint, InferOutputs

_InferRequest = message_class("ModelInferRequest")


class GrpcInferEndpoint(InferEndpoint):
    """ModelInfer, over all operations."""

    def __init__(self, app: AppContext) -> None:
        super().__init__(app)
        fields = [field for kind in OPERATIONS for field in kind.fields]
        self._numbers = frozenset(each.name for each in fields if not each.is_text)

    def route(self, path: str) -> str:
        """Its path has no parts that vary."""
        return path

    async def _answer(self, head: Head, request: RequestContext, read_body: ReadBody) -> Response:
        message = await self._parse(await read_body(), request)

        async def read() -> Inference:
            return await self._read_message(message, request)

        answered = await self.compute(
            message.model_name, message.model_version or None, request, read
        )
        body = await self._write(answered, request)
        headers = [server_timing(answered.result), *failure_headers(answered.failed)]
        return Response(200, headers, body)

    async def _parse(self, body: bytes | bytearray, request: RequestContext) -> Any:
        if not is_large(body):
            return parse(_InferRequest, body)
        # Whole bodies that wait for a thread.
        budget = self.app.receive_budget
        budget.grow(0, len(body))
        request.held_bytes += len(body)
        return await self.app.threads.run(request.deadline, parse, _InferRequest, body)

    async def _read_message(self, message: Any, request: RequestContext) -> Inference:
        if not request.held_bytes:
            return read_request(message, self._numbers)
        inference = await self.app.threads.run(
            request.deadline, read_request, message, self._numbers
        )
        self.app.receive_budget.release(request.held_bytes)
        request.held_bytes = 0
        return inference

    async def _write(self, answered: InferOutputs, request: RequestContext) -> bytes:
        if sum(values.nbytes for values, _ in answered.tensors.values()) <= LARGE_BYTES:
            return write_answer(answered)
        return await self.app.threads.run(request.deadline, write_answer, answered)
