"""The log and the access log on standard output: JSON lines for machines, or text for people.

Messages go through `logging`. Access lines, one a request, do not: at 20,000 requests a second
its records would cost as much as the requests. They are collected and written together.

Whoever reads standard output may stall: a pipe is full after some hundred lines, and a write then
waits. So a thread of its own writes, and what it has no room for is counted, not waited for.

Where several workers write, each of their lines has the worker's number.
"""

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, TextIO

import orjson

Format = Literal["console", "json"]

ACCESS_LOGGER = "pushforward.access"
# How long an access line waits for others.
FLUSH_SECONDS = 0.1
# Some 20,000 lines: a second of full load, or hours of a quiet service.
_MAX_WAITING_BYTES = 4 * 2**20
# How long the end of the process waits for a reader that does not read.
_LAST_FLUSH_SECONDS = 1.0
_JSON_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE
# What `logging` itself puts on a record; anything else came through `extra` and is a field.
_RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "color_message",
}


class LineWriter:
    """A log writer with a thread of its own; whoever logs never waits.

    Args:
        write: blocks as long as it likes, and may raise OSError.
        max_bytes: that wait; what does not fit is counted.

    on_drop: called with how many lines were not written; by one thread at a time.
    """

    def __init__(self, write: Callable[[bytes], None], max_bytes: int = _MAX_WAITING_BYTES) -> None:
        self._write = write
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        # Below: only with the condition held.
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._is_writing = False
        self._thread: threading.Thread | None = None
        self.on_drop: Callable[[int], None] = lambda lines: None

    def put(self, text: str) -> None:
        """Let whole lines be written, all of them or none."""
        data = text.encode("utf-8", "backslashreplace")
        with self._changed:
            if self._waiting_bytes + len(data) > self._max_bytes:
                self.on_drop(data.count(b"\n"))
                return
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, seconds: float = _LAST_FLUSH_SECONDS) -> bool:
        """Wait until all is written, but not longer.

        Returns:
            Whether it is.
        """
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._waiting and not self._is_writing, seconds
            )

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting)
                self._is_writing = True
                data = b"".join(self._waiting)
                self._waiting.clear()
                self._waiting_bytes = 0
            try:
                self._write(data)
            except OSError:  # nobody reads any more, or the disk is full
                with self._changed:
                    self.on_drop(data.count(b"\n"))


def _write_out(data: bytes) -> None:
    """Write to standard output past its buffer, whose lock a stalled reader would keep."""
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


# Standard output is one, and so is whoever writes to it.
standard_output = LineWriter(_write_out)


class _Handler(logging.Handler):
    """A logging handler over the writer to standard output."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            standard_output.put(f"{self.format(record)}\n")
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        standard_output.flush()


def configure(
    level: str, log_format: Format, stream: TextIO | None = None, *, worker: int | None = None
) -> None:
    """Configure the logging of this process: all to `stream` (standard output), in one form.

    Args:
        worker: the number of this process, where it is one of several.
    """
    handler = _Handler() if stream is None else logging.StreamHandler(stream)
    formatter = JsonFormatter if log_format == "json" else ConsoleFormatter
    handler.setFormatter(formatter(worker))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class JsonFormatter(logging.Formatter):
    """One JSON object a line; fields given as `extra` stand beside the message."""

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._of_worker = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """Render a record."""
        fields: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._of_worker,
        }
        fields |= {key: value for key, value in vars(record).items() if key not in _RECORD_FIELDS}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(fields, default=str, option=orjson.OPT_UTC_Z).decode()


class ConsoleFormatter(logging.Formatter):
    """Local time, level, message; a traceback below it where there is one."""

    def __init__(self, worker: int | None = None) -> None:
        text = f"{{asctime}} {{levelname:<7}} {_prefix(worker)}{{message}}"
        super().__init__(text, "%H:%M:%S", style="{")


class AccessRecord(NamedTuple):
    """What is logged of one answered request. Never tensors; of a key its name alone."""

    request_id: str
    method: str
    path: str
    status: int
    duration_seconds: float
    model: str = ""
    op: str = ""
    rows: int | None = None
    trace_id: str | None = None
    version: str = ""
    key: str = ""


class AccessLog:
    """The access log: collects lines on the event loop, writes them a few times a second.

    Args:
        log_format: "console" or "json".
        stream: where to; standard output if left out.
        flush_seconds: how long a line waits for others.
        worker: the number of this process, where it is one of several.
    """

    def __init__(
        self,
        log_format: Format,
        stream: TextIO | None = None,
        *,
        flush_seconds: float = FLUSH_SECONDS,
        worker: int | None = None,
    ) -> None:
        self._flush_seconds = flush_seconds
        self._worker = worker
        self._render = _json_line if log_format == "json" else _console_line
        self._stream = stream
        self._waiting: list[tuple[float, AccessRecord]] = []
        self._timer: asyncio.TimerHandle | None = None

    def write(self, access: AccessRecord) -> None:
        """Log a request; call it on the event loop."""
        if not logging.getLogger(ACCESS_LOGGER).isEnabledFor(logging.INFO):
            return
        self._waiting.append((time.time(), access))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._flush_seconds, self.flush)

    def flush(self) -> None:
        """Write what waits; call it once more before the end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._waiting = self._waiting, []
        if not lines:
            return
        text = "".join(self._render(when, access, self._worker) for when, access in lines)
        if self._stream is None:
            standard_output.put(text)
        else:
            self._stream.write(text)
            self._stream.flush()


def _json_line(when: float, access: AccessRecord, worker: int | None) -> str:
    fields: dict[str, Any] = {
        "timestamp": datetime.fromtimestamp(when, UTC),
        "level": "info",
        "logger": ACCESS_LOGGER,
        "message": f"{access.method} {access.path} {access.status}",
    }
    fields |= {key: value for key, value in access._asdict().items() if value not in (None, "")}
    if worker is not None:
        fields["worker"] = worker
    return orjson.dumps(fields, option=_JSON_OPTIONS).decode()


def _console_line(when: float, access: AccessRecord, worker: int | None) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(when))
    rows = "" if access.rows is None else f" {access.rows} rows"
    model = f" {access.model}" if access.model else ""
    key = f" key={access.key}" if access.key else ""
    duration = f"{1e3 * access.duration_seconds:.1f} ms"
    # The path comes from the client: its control characters must not reach a terminal.
    path = access.path if access.path.isprintable() else ascii(access.path)
    text = f"{access.method} {path} {access.status}{model}{rows} {duration}{key}"
    return f"{clock} INFO    {_prefix(worker)}{text} [{access.request_id}]\n"


def _prefix(worker: int | None) -> str:
    return "" if worker is None else f"worker {worker}: "
