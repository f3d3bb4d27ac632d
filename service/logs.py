"""Logs on standard output: JSON lines for machines, or text for people.

Messages go through `logging`. Access lines, one a request, do not: at 20,000 requests a second
its records would cost as much as the requests. They are collected and written together.
"""

import asyncio
import logging
import sys
import time
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, TextIO

import orjson

Format = Literal["console", "json"]

ACCESS_LOGGER = "pushforward.access"
_FLUSH_SECONDS = 0.1
_JSON_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE
# What `logging` itself puts on a record; anything else came through `extra` and is a field.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


def configure(level: str, form: Format, stream: TextIO | None = None) -> None:
    """Send all messages of this process to `stream` (standard output) in one form."""
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(JsonFormatter() if form == "json" else ConsoleFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class JsonFormatter(logging.Formatter):
    """One JSON object a line; fields given as `extra` stand beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a record."""
        fields: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {key: value for key, value in vars(record).items() if key not in _OWN}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(fields, default=str, option=orjson.OPT_UTC_Z).decode()


class ConsoleFormatter(logging.Formatter):
    """Local time, level, message; a traceback below it where there is one."""

    def __init__(self) -> None:
        super().__init__("{asctime} {levelname:<7} {message}", "%H:%M:%S", style="{")


class Access(NamedTuple):
    """What is said of one answered request. Never tensors, never keys."""

    request_id: str
    method: str
    path: str
    status: int
    duration_seconds: float
    model: str = ""
    op: str = ""
    rows: int | None = None
    trace_id: str | None = None


class AccessLog:
    """Collects access lines on the event loop and writes them a few times a second.

    Args:
        form: "console" or "json".
        stream: where to; standard output if left out.
    """

    def __init__(self, form: Format, stream: TextIO | None = None) -> None:
        self._render = _json_line if form == "json" else _console_line
        self._stream = stream or sys.stdout
        self._waiting: list[tuple[float, Access]] = []
        self._timer: asyncio.TimerHandle | None = None

    def write(self, access: Access) -> None:
        """Note a request; call it on the event loop."""
        if not logging.getLogger(ACCESS_LOGGER).isEnabledFor(logging.INFO):
            return
        self._waiting.append((time.time(), access))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Write what waits; call it once more before the end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._waiting = self._waiting, []
        if lines:
            self._stream.write("".join(self._render(when, access) for when, access in lines))
            self._stream.flush()


def _json_line(when: float, access: Access) -> str:
    fields: dict[str, Any] = {
        "timestamp": datetime.fromtimestamp(when, UTC),
        "level": "info",
        "logger": ACCESS_LOGGER,
        "message": f"{access.method} {access.path} {access.status}",
    }
    fields |= {key: value for key, value in access._asdict().items() if value not in (None, "")}
    return orjson.dumps(fields, option=_JSON_OPTIONS).decode()


def _console_line(when: float, access: Access) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(when))
    rows = "" if access.rows is None else f" {access.rows} rows"
    model = f" {access.model}" if access.model else ""
    duration = f"{1e3 * access.duration_seconds:.1f} ms"
    # The path comes from the client: its control characters must not reach a terminal.
    path = access.path if access.path.isprintable() else ascii(access.path)
    text = f"{access.method} {path} {access.status}{model}{rows} {duration}"
    return f"{clock} INFO    {text} [{access.request_id}]\n"
