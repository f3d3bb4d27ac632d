"""Messages that anybody may send, of health and reflection: small ones, and few that are slow.

gRPC takes every message up to the largest of all calls, and shows it when it is whole.
"""

import asyncio
from typing import Any

import grpc
from google.protobuf.message import DecodeError

# Names.
MOST_BYTES = 4096
# Of one process: beyond it the oldest gives way.
_MOST_SLOW = 2
# A small message comes in one packet with the head of its call.
_PATIENCE_SECONDS = 0.05


class OpenMessages:
    """Reads the messages that anybody may send.

    patience_seconds: from when on a message that was not there is slow.
    """

    patience_seconds = _PATIENCE_SECONDS

    def __init__(self) -> None:
        self._slow: list[asyncio.Future[None]] = []

    async def read(self, context: Any, kind: Any) -> Any:
        """Read a message, or end its call: one that is no message, too large, or slow among many.

        Args:
            context: of the call.
            kind: the class of the message.

        Returns:
            The message; None where no more come.
        """
        reading = asyncio.ensure_future(context.read())
        giving_way: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = (reading, giving_way)
        try:
            await asyncio.wait((reading,), timeout=self.patience_seconds)
            if not reading.done():
                self._take_turn(giving_way)
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reading.cancel()
            if giving_way in self._slow:
                self._slow.remove(giving_way)
        if not reading.done():
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"message: it is slow, and {_MOST_SLOW} others are; send it again",
            )
        return await _parse(context, kind, reading.result())

    def _take_turn(self, giving_way: asyncio.Future[None]) -> None:
        self._slow.append(giving_way)
        if len(self._slow) > _MOST_SLOW:
            self._slow.pop(0).set_result(None)


async def _parse(context: Any, kind: Any, body: Any) -> Any:
    if body is grpc.aio.EOF:
        return None
    if len(body) > MOST_BYTES:
        await context.abort(
            grpc.StatusCode.OUT_OF_RANGE,
            f"message: expected at most {MOST_BYTES} bytes, got {len(body)}",
        )
    try:
        return kind.FromString(body)
    except DecodeError:
        return await context.abort(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"message: expected {kind.DESCRIPTOR.full_name} as protobuf",
        )
