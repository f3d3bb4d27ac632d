"""A gRPC server over models in memory, and a client, in the process and loop of the test."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np

from service.app import create_app
from service.settings import Settings
from service.telemetry import Metrics
from service.transport.asgi import AppContext
from service.transport.grpc.messages import METHODS, SERVICE, message_class
from service.transport.grpc.server import GrpcServer
from tests.contract.grpc_calls import CONTENTS
from tests.service.fake_repository import FakeRepository

Ask = Callable[..., Any]


class Asking:
    """A client of a server in memory.

    app, repository, metrics, server: what is asked. channel, port: the connection.
    """

    def __init__(
        self,
        app: AppContext,
        server: GrpcServer,
        repository: FakeRepository,
        metrics: Metrics,
    ) -> None:
        self.app = app
        self.server = server
        self.repository = repository
        self.metrics = metrics
        self.channel: grpc.aio.Channel
        self.port = 0

    def begin(self, method: str, message: Any, **options: Any) -> Any:
        """Begin a call; bytes are sent as they are."""
        found = METHODS[method]
        ask = self.channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=_serialize,
            response_deserializer=message_class(found.output_type.name).FromString,
        )
        return ask(message, **options)

    def stream(self, messages: Any = None, **options: Any) -> Any:
        """Begin a stream of inferences; without messages they are written to it."""
        ask = self.channel.stream_stream(
            f"/{SERVICE}/ModelStreamInfer",
            request_serializer=_serialize,
            response_deserializer=message_class("ModelStreamInferResponse").FromString,
        )
        return ask(messages, **options)

    async def call(self, method: str, message: Any = b"", **options: Any) -> Any:
        """Call, and give the answer."""
        return await self.begin(method, message, **options)

    async def refusal(
        self, method: str, message: Any = b"", **options: Any
    ) -> tuple[str, str, str]:
        """Call what fails: status, details and the problem's code, if any."""
        call = self.begin(method, message, **options)
        code = (await call.code()).name
        told = dict(await call.trailing_metadata() or ())
        return code, await call.details(), told.get("problem-code", "")

    def counted(self, code: int, model: str) -> float:
        """How many calls the metrics have with a status, of a model."""
        labels = f'{{code="{code}",model="{model}",op="infer"'
        lines = self.metrics.render().decode().splitlines()
        found = [line for line in lines if line.startswith(f"pushforward_requests_total{labels}")]
        return sum(float(line.rpartition(" ")[2]) for line in found)


def _serialize(message: Any) -> bytes:
    written: bytes = message if type(message) is bytes else message.SerializeToString()
    return written


async def never() -> AsyncIterator[bytes]:
    """The messages of a client that sends none and goes on."""
    await asyncio.sleep(60)
    yield b""


@asynccontextmanager
async def asking(
    repository: FakeRepository | None = None, most_connections: int | None = None, **settings: Any
) -> AsyncIterator[Asking]:
    """Start a server with these settings and open a client."""
    repository, metrics = repository or FakeRepository(), Metrics()
    app = create_app(Settings(log_level="error", **settings), repository, metrics)
    server = GrpcServer(app.context, most_connections)
    client = Asking(app.context, server, repository, metrics)
    client.port = await client.server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{client.port}") as client.channel:
        try:
            yield client
        finally:
            await client.server.stop(0.0)


def run(test: Callable[[Asking], Awaitable[None]], **settings: Any) -> None:
    """Run a test of a server with these settings."""

    async def serve() -> None:
        async with asyncio.timeout(20), asking(**settings) as client:
            await test(client)

    asyncio.run(serve())


def question(rows: Any, datatype: str = "FP32", *, raw: bool = True, **fields: Any) -> Any:
    """Ask the model "line" to encode rows; `raw` sends them as bytes."""
    values = np.array(rows)
    message = message_class("ModelInferRequest")(**{"model_name": "line", **fields})
    tensor = message.inputs.add(name="x", datatype=datatype, shape=values.shape)
    if raw:
        message.raw_input_contents.append(values.tobytes())
    else:
        getattr(tensor.contents, CONTENTS[datatype]).extend(values.ravel().tolist())
    return message


def outputs(answer: Any) -> dict[str, Any]:
    """The tensors of an answer."""
    kinds = {"FP32": "<f4", "FP64": "<f8", "BOOL": "?", "INT32": "<i4", "INT64": "<i8"}
    return {
        each.name: np.frombuffer(raw, kinds[each.datatype]).reshape(tuple(each.shape))
        for each, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }
