"""An open loop of one body: requests leave on schedule, whatever has been answered."""

import asyncio
import time
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Reply:
    """One request: when it should have left, when it was answered (seconds), the status."""

    due: float
    done: float
    status: int

    @property
    def latency(self) -> float:
        """Seconds from schedule to answer: the client's own lateness counts too."""
        return self.done - self.due


class Lines:
    """Connections that are kept and used again."""

    def __init__(self, url: str, body: bytes, headers: dict[str, str]) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        head = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
        start = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{head}"
        self._message = f"{start}Content-Length: {len(body)}\r\n\r\n".encode() + body
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, due: float) -> Reply:
        """Send the body once; status 0: no answer.

        A server may close a connection that is idle just when it is used again: as clients do, the
        body is then sent on a new one.
        """
        try:
            try:
                reader, writer, head = await self._send(is_new=not self._idle)
            except (OSError, asyncio.IncompleteReadError):
                reader, writer, head = await self._send(is_new=True)
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
        except (OSError, ValueError, asyncio.IncompleteReadError):
            return Reply(due, time.monotonic(), 0)
        done = time.monotonic()
        if b"connection: close" in head.lower():
            writer.close()
        else:
            self._idle.append((reader, writer))
        return Reply(due, done, int(head.split(b" ", 2)[1]))

    async def _send(
        self, *, is_new: bool
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
        """Send the body and wait for the head of the answer."""
        reader, writer = (
            await asyncio.open_connection(self._host, self._port) if is_new else self._idle.pop()
        )
        writer.write(self._message)
        return reader, writer, await reader.readuntil(b"\r\n\r\n")

    def close(self) -> None:
        """Close all of them."""
        for _, writer in self._idle:
            writer.close()


async def open_loop(lines: Lines, rate: float, seconds: float) -> list[Reply]:
    """Send `rate` requests a second for `seconds`, and wait for every answer."""
    start = time.monotonic()
    running: list[asyncio.Task[Reply]] = []
    for index in range(int(rate * seconds)):
        due = start + index / rate
        if (wait := due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        running.append(asyncio.create_task(lines.ask(due)))
    return list(await asyncio.gather(*running))


async def closed_loop(lines: Lines, concurrency: int, seconds: float) -> list[Reply]:
    """Keep `concurrency` requests under way for `seconds`."""
    end = time.monotonic() + seconds

    async def one() -> list[Reply]:
        replies = []
        while (now := time.monotonic()) < end:
            replies.append(await lines.ask(now))
        return replies

    return [
        reply
        for part in await asyncio.gather(*(one() for _ in range(concurrency)))
        for reply in part
    ]
