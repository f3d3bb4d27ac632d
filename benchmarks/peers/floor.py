"""The floor of one Python process on one row a request: httptools, orjson, onnxruntime on the loop.

What arrives in one turn of the loop is one batch. Nothing is validated, counted, named or limited:
a ruler to lay beside a server, not one to use. JSON and log_prob only.
"""

import asyncio
import os
from pathlib import Path
from typing import Any

import httptools
import numpy as np
import orjson
import uvloop

from benchmarks.peers.bodies import PORT
from models.onnx.runtime import open_session

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"


class Batch:
    """Rows of one turn of the loop."""

    def __init__(self, graph: Path) -> None:
        self._session = open_session(str(graph))
        self._waiting: list[tuple[asyncio.Transport, list[float]]] = []

    def add(self, transport: asyncio.Transport, row: list[float]) -> None:
        """Compute a row at the end of this turn."""
        self._waiting.append((transport, row))
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        waiting, self._waiting = self._waiting, []
        rows = np.array([row for _, row in waiting], dtype=np.float32)
        (values,) = self._session.run(["log_prob"], {"x": rows})
        for (transport, _), value in zip(waiting, values.tolist(), strict=True):
            body = orjson.dumps({"model": "floor", "version": "1", "log_prob": [value]})
            transport.write(HEAD % (len(body), body))


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._body = b""
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: Any) -> None:
        """Keep where answers go."""
        self._transport: asyncio.Transport = transport

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Keep a part of a body; called by the parser."""
        self._body += body

    def on_message_complete(self) -> None:
        """Send a whole request on its way; called by the parser."""
        body, self._body = self._body, b""
        (row,) = orjson.loads(body)["x"]
        self._batch.add(self._transport, row)


async def main() -> None:
    """Serve."""
    batch = Batch(Path(os.environ["FLOW_FOLDER"]) / "encode.onnx")
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(batch), "127.0.0.1", PORT)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
