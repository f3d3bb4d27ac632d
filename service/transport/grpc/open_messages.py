"""Messages that anybody may send, of health and reflection: small ones, few at a time.

gRPC takes every message up to the largest of all calls, and shows it when it is whole.
"""

import asyncio
from typing import Any

import grpc
from google.protobuf.message import DecodeError

# Names.
MOST_BYTES = 4096
# Of one process; a small one takes a millisecond.
_MOST_AT_A_TIME = 2
# A small message comes in one packet with the head of its call.
_PATIENCE_SECONDS = 0.05


class OpenMessages:
    """Reads the messages that anybody may send, few at a time.

    One that is slow gives way to the next; of those that wait the newest is next, since its client
    waits still.
    """

    def __init__(self) -> None:
        self._reading = 0
        self._slow: list[asyncio.Future[None]] = []
        self._waiting: list[asyncio.Future[None]] = []

    async def read(self, context: Any, kind: Any) -> Any:
        """Read a message, or end its call: one that is no message, too large, or slow among many.

        Args:
            context: of the call.
            kind: the class of the message.

        Returns:
            The message; None where no more come.
        """
        body = await self._receive(context)
        if body is grpc.aio.EOF:
            return None
        if body is None:
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            details = "message: it is slow, and others wait; send it again"
        elif len(body) > MOST_BYTES:
            code = grpc.StatusCode.OUT_OF_RANGE
            details = f"message: expected at most {MOST_BYTES} bytes, got {len(body)}"
        else:
            try:
                return kind.FromString(body)
            except DecodeError:
                code = grpc.StatusCode.INVALID_ARGUMENT
                details = f"message: expected {kind.DESCRIPTOR.full_name} as protobuf"
        # What ends a call is part of a cycle with this frame, which stays until it is collected.
        del body
        return await context.abort(code, details)

    async def _receive(self, context: Any) -> Any:
        """Receive a message; None where it gives way."""
        await self._enter()
        reading = asyncio.ensure_future(context.read())
        giving_way: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait((reading,), timeout=_PATIENCE_SECONDS)
            if not reading.done() and not self._waiting:
                self._slow.append(giving_way)
                both = (reading, giving_way)
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else None
        finally:
            reading.cancel()
            if giving_way in self._slow:
                self._slow.remove(giving_way)
            self._leave()

    async def _enter(self) -> None:
        """Wait for a turn to read."""
        if self._reading < _MOST_AT_A_TIME:
            self._reading += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        if self._slow:
            self._slow.pop(0).set_result(None)
        try:
            await asyncio.wait((turn,))
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            else:
                self._leave()
            raise

    def _leave(self) -> None:
        if self._waiting:
            self._waiting.pop().set_result(None)
        else:
            self._reading -= 1
