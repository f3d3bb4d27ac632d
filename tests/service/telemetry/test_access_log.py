"""Lines for machines and for people; one a request, together, in order."""

import asyncio
import io
import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from service.telemetry.access_log import (
    ACCESS_LOGGER,
    AccessLog,
    AccessRecord,
    JsonFormatter,
    LineWriter,
    configure,
)

LINE = AccessRecord(
    "id-1", "POST", "/encode", 200, 0.0123, "moons", "encode", 4, "f" * 32, "2", "nightly"
)


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_a_json_line_has_its_fields() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    logging.getLogger("service.test").info("loaded %s", "moons", extra={"model": "moons"})
    logging.getLogger("service.test").debug("not shown")
    fields = json.loads(stream.getvalue())
    written = datetime.fromisoformat(fields.pop("timestamp"))
    assert abs((datetime.now(UTC) - written).total_seconds()) < 60
    assert fields == {
        "level": "info",
        "logger": "service.test",
        "message": "loaded moons",
        "model": "moons",
    }


def test_a_traceback_stays_in_its_line() -> None:
    try:
        raise ValueError("bad\nnews")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "failed", None, sys.exc_info())
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert "ValueError: bad" in json.loads(line)["exception"]


def test_people_get_a_short_line() -> None:
    stream = io.StringIO()
    configure("warning", "console", stream)
    logging.getLogger("service.test").warning("careful")
    assert stream.getvalue().endswith(" WARNING careful\n")


def written(form: str, *lines: AccessRecord) -> str:
    stream = io.StringIO()
    logging.getLogger().setLevel(logging.INFO)

    async def test() -> None:
        log = AccessLog("json" if form == "json" else "console", stream)
        for line in lines:
            log.write(line)
        assert stream.getvalue() == ""  # not one by one
        log.flush()

    asyncio.run(test())
    return stream.getvalue()


def test_access_lines_are_json_without_what_is_absent() -> None:
    bare = AccessRecord("id-2", "GET", "/models", 200, 0.5)
    first, second = map(json.loads, written("json", LINE, bare).splitlines())
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "level": "info",
        "logger": ACCESS_LOGGER,
        "message": "POST /encode 200",
        **LINE._asdict(),
    }
    assert second["request_id"] == "id-2"
    assert not {"model", "version", "op", "rows", "trace_id", "key"} & set(second)


def test_access_lines_for_people() -> None:
    text = written("console", LINE)
    assert text.endswith(" INFO    POST /encode 200 moons 4 rows 12.3 ms key=nightly [id-1]\n")


def test_a_path_cannot_write_to_the_terminal() -> None:
    text = written("console", LINE._replace(path="/\x1b[2Jx\n2026 INFO forged"))
    assert "\x1b" not in text
    assert text.count("\n") == 1


def test_access_lines_are_silent_above_info() -> None:
    stream = io.StringIO()

    async def test() -> None:
        log = AccessLog("json", stream)
        log.write(LINE)
        log.flush()

    logging.getLogger().setLevel(logging.WARNING)
    asyncio.run(test())
    assert stream.getvalue() == ""


def test_access_lines_are_written_without_being_asked() -> None:
    logging.getLogger().setLevel(logging.INFO)

    class Stream(io.StringIO):
        flushed = asyncio.Event()

        def flush(self) -> None:
            self.flushed.set()

    stream = Stream()

    async def test() -> None:
        AccessLog("console", stream, flush_seconds=0.0).write(LINE)
        async with asyncio.timeout(20):
            await stream.flushed.wait()

    asyncio.run(test())
    assert stream.getvalue().count("\n") == 1


class StalledReader:
    """Takes lines only while it may."""

    def __init__(self) -> None:
        self.may_read = threading.Event()
        self.began = threading.Event()
        self.read: list[bytes] = []

    def __call__(self, data: bytes) -> None:
        self.began.set()
        assert self.may_read.wait(20)
        self.read.append(data)


def test_a_reader_that_stalls_is_not_waited_for() -> None:
    reader, dropped = StalledReader(), []
    writer = LineWriter(reader, max_bytes=30)
    writer.on_drop = dropped.append
    writer.put("being written\n")
    assert reader.began.wait(20)
    began = time.monotonic()
    writer.put("0123456789\n0123456789\n")
    writer.put("two that\ndo not fit\n")
    writer.put("fits\n")
    assert not writer.flush(0.05)
    assert time.monotonic() - began < 5
    assert dropped == [2]
    reader.may_read.set()
    assert writer.flush(20)
    assert b"".join(reader.read) == b"being written\n0123456789\n0123456789\nfits\n"


def test_lines_that_cannot_be_written_are_counted_and_the_next_are_tried() -> None:
    dropped: list[int] = []
    kept: list[bytes] = []

    def write(data: bytes) -> None:
        if data == b"lost\n":
            raise OSError("no space")
        kept.append(data)

    writer = LineWriter(write)
    writer.on_drop = dropped.append
    for line in ("lost\n", "kept\n"):
        writer.put(line)
        assert writer.flush(20)
    assert (dropped, kept) == ([1], [b"kept\n"])


def test_lines_of_several_workers_have_its_number() -> None:
    for form in ("json", "console"):
        stream = io.StringIO()
        configure("info", "json" if form == "json" else "console", stream, worker=2)
        logging.getLogger("service.test").info("loaded")

        async def test(log: AccessLog) -> None:
            log.write(LINE)
            log.flush()

        asyncio.run(test(AccessLog("json" if form == "json" else "console", stream, worker=2)))
        lines = stream.getvalue().splitlines()
        assert len(lines) == 2
        if form == "json":
            assert [json.loads(line)["worker"] for line in lines] == [2, 2]
        else:
            assert lines[0].endswith(" INFO    worker 2: loaded")
            assert lines[1].endswith(
                " INFO    worker 2: POST /encode 200 moons 4 rows 12.3 ms key=nightly [id-1]"
            )
