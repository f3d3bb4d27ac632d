"""A client that writes HTTP/2 frame by frame, and reads and grants only what a test lets it."""

import asyncio
import socket
import struct
from typing import Any

from service.transport.grpc.messages import SERVICE

_DATA, _HEADERS, _SETTINGS, _PING, _WINDOW_UPDATE = 0, 1, 4, 6, 8
_INITIAL_WINDOW_SIZE = 4


class RawClient:
    """One connection to a gRPC server.

    Args:
        port: of the server, on loopback.
        window: how many bytes of each answer the server may send.
        receive_buffer: of the socket.
    """

    def __init__(self, port: int, *, window: int = 65_535, receive_buffer: int = 2**20) -> None:
        self._port = port
        self._window = window
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.setblocking(False)
        self._streams = 0

    async def connect(self) -> None:
        """Connect, and say how much may be sent."""
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._socket, ("127.0.0.1", self._port))
        settings = struct.pack(">HI", _INITIAL_WINDOW_SIZE, self._window)
        grant = _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**30))
        await self._send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, settings))
        await self._send(grant)

    async def ask(self, method: str, message: Any, *, is_whole: bool = True) -> None:
        """Send a call with one message of less than 16 KiB, or with half of it."""
        self._streams += 1
        stream = 2 * self._streams - 1
        named = {
            ":method": "POST",
            ":scheme": "http",
            ":path": f"/{SERVICE}/{method}",
            ":authority": "test",
            "content-type": "application/grpc",
            "te": "trailers",
        }
        head = b"".join(
            bytes((0, len(name))) + name.encode() + bytes((len(value),)) + value.encode()
            for name, value in named.items()
        )
        body = message.SerializeToString()
        data = struct.pack(">BI", 0, len(body)) + body
        part = data if is_whole else data[: len(data) // 2]
        await self._send(_frame(_HEADERS, 4, stream, head))
        await self._send(_frame(_DATA, int(is_whole), stream, part))

    async def read_to_end(self) -> bool:
        """Read until the server ends the connection, and answer its pings.

        Returns:
            Whether it ended it without a reset.
        """
        loop, data = asyncio.get_running_loop(), b""
        try:
            while received := await loop.sock_recv(self._socket, 2**20):
                data += received
                while len(data) >= 9 and len(data) >= (end := 9 + int.from_bytes(data[:3])):
                    kind, flags, body = data[3], data[4], data[9:end]
                    data = data[end:]
                    if kind == _PING and not flags & 1:
                        await self._send(_frame(_PING, 1, 0, body))
        except ConnectionError:
            return False
        return True

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    async def _send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, data)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + struct.pack(">I", stream) + payload
