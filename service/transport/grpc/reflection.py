"""Reflection (grpc.reflection.v1alpha): which services there are, and their messages.

Reference: gRPC, server-reflection.md.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any

from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from service.transport.grpc.messages import POOL
from service.transport.grpc.open_messages import OpenMessages

SERVICE_NAME: str = reflection.SERVICE_NAME


def make_reflection(
    services: Iterable[str], messages: OpenMessages
) -> Callable[[Any, Any], Coroutine[Any, Any, None]]:
    """Make what handles ServerReflectionInfo, a stream of messages in and out.

    Args:
        services: their names.
        messages: reads what is asked.
    """
    servicer = reflection.aio.ReflectionServicer((*services, SERVICE_NAME), pool=POOL)

    async def handle(_: Any, context: Any) -> None:
        async def asked() -> AsyncIterator[Any]:
            while (message := await messages.read(context, ServerReflectionRequest)) is not None:
                yield message

        async for answer in servicer.ServerReflectionInfo(asked(), context):
            await context.write(answer.SerializeToString())

    return handle
