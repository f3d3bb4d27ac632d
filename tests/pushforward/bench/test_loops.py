"""Closed and open loops against a server that stalls, refuses, closes connections and dies."""

import asyncio
import errno
import gc
import itertools
import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from pushforward.bench.arrivals import due_times
from pushforward.bench.connection import Connection
from pushforward.bench.endpoint import Endpoint
from pushforward.bench.load import Load, Measurement
from pushforward.bench.loops import OpenLoop, PreciseSelector, run_load
from pushforward.bench.processes import send_load, split
from pushforward.bench.processor import ProcessorUse
from pushforward.bench.report import warnings
from pushforward.bench.summary import summarize
from tests.pushforward.bench.small_server import BUSY, OK, running


def test_a_closed_loop_keeps_all_connections_asking() -> None:
    with running() as server:
        load = server.load(connections=3, warmup_seconds=0.1, seconds=0.2)
        measured = run_load(load)
    figures = summarize(load, measured, rows=10)
    assert server.num_connections == 3
    assert abs(server.bodies.count(b"0") - server.bodies.count(b"1")) <= 1
    assert len(measured.recording.due) == len(server.bodies)
    assert 0 < figures["requests"] < len(server.bodies)  # those of the warm-up are not counted
    assert figures["rows_per_second"] == pytest.approx(10 * figures["requests_per_second"])
    assert figures["requests_per_second"] == pytest.approx(figures["requests"] / 0.2, rel=0.1)
    assert figures["server_timing_ms"]["queue"]["p99"] == pytest.approx(1.5)
    assert figures["server_timing_ms"]["compute"]["mean"] == pytest.approx(2)
    assert figures["errors"]["total"] == 0
    message = len(load.messages[0])
    assert figures["sent_bytes"] == message * len(server.bodies)
    assert figures["received_bytes"] == len(OK) * len(server.bodies)


def test_an_open_loop_counts_what_waits_behind_a_stall() -> None:
    """At 200/s, 0.3 s in which nobody is answered are felt by 60 requests, not by one a client."""
    started = time.monotonic()

    async def reply(_: bytes) -> bytes:
        since = time.monotonic() - started
        if 0.3 < since < 0.6:
            await asyncio.sleep(0.6 - since)
        return OK

    with running(reply) as server:
        load = server.load(rate=200.0, arrivals="constant", seconds=1.2, connections=2)
        figures = summarize(load, run_load(load), rows=1)
    assert figures["offered_per_second"] == pytest.approx(200, abs=1)
    assert figures["requests"] == 240
    # Two connections: all but two requests of the stall wait here, and their wait counts.
    assert figures["latency_ms"]["p99"] > 270
    assert figures["latency_ms"]["p90"] > 100
    assert figures["latency_from_sent_ms"]["p90"] < 100
    assert figures["generator"]["waited_for_connection_ms"]["p99"] > 250


def test_refusals_are_counted_by_status_and_reason() -> None:
    async def reply(body: bytes) -> bytes:
        return OK if body == b"0" else BUSY

    with running(reply) as server:
        load = server.load(rate=100.0, arrivals="constant", warmup_seconds=0.1, connections=64)
        figures = summarize(load, run_load(load), rows=1)
    assert server.num_connections == 8  # no more than requests wait for
    assert figures["requests"] == 15
    errors = figures["errors"]
    assert (errors["total"], errors["by_status"]) == (15, {"429": 15})
    assert errors["by_reason"] == {"overloaded": 15}
    assert figures["requests_per_second"] == pytest.approx(50, rel=0.1)


def test_a_connection_that_the_server_closes_is_replaced() -> None:
    async def reply(_: bytes) -> bytes | None:
        return None

    with running(reply) as server:
        load = server.load(rate=50.0, arrivals="constant", connections=2)
        measured = run_load(load)
    figures = summarize(load, measured, rows=1)
    assert figures["errors"]["by_reason"] == {"connection closed by the server": 15}
    assert figures["errors"]["by_status"] == {}
    assert server.num_connections >= 15
    assert len(server.bodies) == 15  # none is sent again: no connection was idle for long
    assert figures["latency_ms"] is None


def test_a_server_that_ends_each_connection_with_its_answer_is_believed() -> None:
    """And what is no problem document is told by its status."""

    async def reply(_: bytes) -> bytes:
        return b"HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"

    with running(reply) as server:
        load = server.load(rate=50.0, arrivals="constant", connections=1)
        figures = summarize(load, run_load(load), rows=1)
    assert figures["errors"]["by_reason"] == {"status 503": 15}
    assert server.num_connections >= 15


def test_what_is_no_http_is_told_as_that() -> None:
    async def reply(_: bytes) -> bytes:
        return b"SSH-2.0-server\r\n"

    with running(reply) as server:
        load = server.load(rate=50.0, arrivals="constant", seconds=0.1)
        figures = summarize(load, run_load(load), rows=1)
    [(reason, count)] = figures["errors"]["by_reason"].items()
    assert (count, "HTTP" in reason) == (5, True)


def test_what_meets_a_connection_that_was_just_closed_is_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Servers close connections that are idle, and every HTTP client does this."""
    monkeypatch.setattr("pushforward.bench.generator.IDLE_SECONDS", 0.0)
    count = itertools.count()

    async def reply(_: bytes) -> bytes | None:
        return None if next(count) % 2 else OK

    with running(reply) as server:
        load = server.load(rate=50.0, arrivals="constant", connections=1)
        figures = summarize(load, run_load(load), rows=1)
    assert (figures["requests"], figures["errors"]["total"]) == (15, 0)


def test_what_is_not_answered_in_time_is_given_up() -> None:
    async def reply(_: bytes) -> bytes:
        await asyncio.sleep(10)
        return OK

    with running(reply) as server:
        load = server.load(rate=20.0, connections=1, arrivals="constant", timeout_seconds=0.3)
        figures = summarize(load, run_load(load), rows=1)
    reasons = figures["errors"]["by_reason"]
    assert set(reasons) <= {"timeout", "timeout before a connection was free"}
    assert sum(reasons.values()) == 6
    assert reasons["timeout"] >= 2  # another connection took the place of the first


def test_a_server_that_dies_ends_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushforward.bench.generator.DOWN_SECONDS", 0.2)
    with running() as server:
        load = server.load(seconds=30.0)
        threading.Timer(0.3, server.die).start()
        measured = run_load(load)
    assert measured.given_up == "the server takes no connections any more: Connection refused"
    assert measured.seconds < 5
    figures = summarize(load, measured, rows=1)
    assert figures["requests"] > 0
    assert "connection refused" in " ".join(figures["errors"]["by_reason"]).lower()


def test_what_waits_for_a_server_that_is_gone_is_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And nothing goes on behind the end, of which asyncio would complain."""
    monkeypatch.setattr("pushforward.bench.generator.DOWN_SECONDS", 0.2)
    with running() as server:
        load = server.load(rate=1000.0, arrivals="constant", seconds=30.0, connections=64)
        threading.Timer(0.2, server.die).start()
        measured = run_load(load)
    gc.collect()
    assert caplog.text == ""
    figures = summarize(load, measured, rows=1)
    assert figures["given_up"] in figures["errors"]["by_reason"]
    assert figures["offered_per_second"] == pytest.approx(1000, abs=5)


def test_a_machine_that_gives_no_connections_is_the_generators_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where there are more --connections than a process may have files."""

    async def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("pushforward.bench.generator.DOWN_SECONDS", 0.2)
    monkeypatch.setattr(asyncio.BaseEventLoop, "create_connection", refuse)
    load = Load(Endpoint("127.0.0.1", 1, "h", None, ""), (b"",), 0.5, 0.0, 4)
    figures = summarize(load, run_load(load), rows=1)
    assert figures["given_up"] is None  # the server is there
    assert figures["limited_by"] == "generator"
    assert figures["errors"]["by_reason"].keys() == {"cannot connect: Too many open files"}
    assert "this machine gave no connection" in warnings(figures)[0]


def test_an_interrupt_ends_the_load_with_what_was_measured() -> None:
    former = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with running() as server:
            load = server.load(seconds=30.0)
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            measured = run_load(load)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, former)
    assert measured.is_stopped
    assert 0.1 < measured.seconds < 5
    assert summarize(load, measured, rows=1)["requests"] > 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_in_the_warm_up_measures_nothing() -> None:
    with running() as server:
        load = server.load(warmup_seconds=30.0)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        measured = run_load(load)
    figures = summarize(load, measured, rows=1)
    assert (figures["seconds"], figures["requests"], figures["requests_per_second"]) == (0, 0, 0)
    assert server.bodies


def test_processor_time_is_that_of_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    used = iter([ProcessorUse(1.0, 1.0), ProcessorUse(2.0, 4.0), ProcessorUse(2.5, 4.25)])
    monkeypatch.setattr("pushforward.bench.generator.processor_use", lambda: next(used))
    with running() as server:
        measured = run_load(server.load(seconds=0.1))
    assert (measured.cpu_seconds, measured.waited_seconds) == (0.5, 0.25)


def test_an_interrupt_in_a_stall_counts_what_waits() -> None:
    """What is under way, and what waits here for a connection."""

    async def reply(_: bytes) -> bytes:
        if time.monotonic() - started > 0.2:
            await asyncio.Event().wait()
        return OK

    with running(reply) as server:
        load = server.load(rate=200.0, arrivals="constant", seconds=30.0, connections=4)
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        started = time.monotonic()
        measured = run_load(load)
    figures = summarize(load, measured, rows=1)
    assert figures["is_interrupted"]
    assert figures["seconds"] == pytest.approx(0.5, abs=0.15)
    assert figures["offered_per_second"] == pytest.approx(200, abs=10)
    assert figures["errors"]["by_reason"] == {"interrupted": figures["still_waiting"]["requests"]}
    assert figures["still_waiting"]["requests"] == pytest.approx(60, abs=20)
    assert figures["still_waiting"]["longest_ms"] == pytest.approx(300, abs=150)
    assert figures["errors"]["latency_ms"]["max"] == figures["still_waiting"]["longest_ms"]


def test_what_is_due_when_a_load_is_ended_counts_and_nothing_is_opened_behind_the_end() -> None:
    """Who ends it keeps its event loop for 0.2 s before: 40 requests are not taken up yet."""

    async def reply(_: bytes) -> bytes:
        await asyncio.Event().wait()
        return OK

    async def end_late(load: Load) -> Measurement:
        stop = asyncio.Event()
        generator = OpenLoop(load, stop)
        running_load = asyncio.create_task(generator.run())
        await asyncio.sleep(0.1)
        time.sleep(0.2)
        stop.set()
        measured = await running_load
        await asyncio.sleep(0)
        assert generator.num_connections == 0
        late = Connection(generator, bytearray(1))
        generator.opened(late)
        assert late.is_closing
        assert generator.num_connections == 0
        return measured

    with running(reply) as server:
        load = server.load(rate=200.0, arrivals="constant", seconds=30.0, connections=2)
        figures = summarize(load, asyncio.run(end_late(load)), rows=1)
    assert figures["seconds"] == pytest.approx(0.3, abs=0.05)
    assert figures["offered_per_second"] == pytest.approx(200, abs=5)
    assert figures["errors"]["total"] == figures["still_waiting"]["requests"]


def test_an_interrupt_of_the_wait_for_the_last_answers_leaves_none_out() -> None:
    async def reply(_: bytes) -> bytes:
        await asyncio.Event().wait()
        return OK

    with running(reply) as server:
        load = server.load(rate=50.0, arrivals="constant", seconds=0.2, connections=2)
        threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT)).start()
        measured = run_load(load)
    assert measured.is_stopped
    assert measured.seconds == pytest.approx(0.2)
    waited = measured.recording.sent - measured.recording.taken
    assert (waited >= 0).all()
    assert (waited < 0.1).sum() == 2  # those that had a connection
    assert summarize(load, measured, rows=1)["errors"]["by_reason"] == {"interrupted": 10}


def test_a_late_generator_says_so() -> None:
    """What is due while the process is stopped is late by that: the generator's own doing."""

    async def reply(_: bytes) -> bytes:
        return OK

    with running(reply) as server:
        load = server.load(rate=100.0, arrivals="constant", seconds=0.5)
        blocked = threading.Timer(0.1, lambda: signal.raise_signal(signal.SIGUSR1))
        former = signal.signal(signal.SIGUSR1, lambda *_: time.sleep(0.3))
        blocked.start()
        try:
            figures = summarize(load, run_load(load), rows=1)
        finally:
            signal.signal(signal.SIGUSR1, former)
    assert figures["generator"]["late_ms"]["p99"] > 200
    assert figures["generator"]["waited_for_connection_ms"]["p99"] < 100
    assert figures["limited_by"] == "generator"
    assert figures["latency_ms"]["p99"] > 200


def test_what_is_due_in_less_than_a_millisecond_is_not_late_by_one() -> None:
    """As epoll alone would have it; of several waits the best, since others use the cores too."""
    waits = []
    with PreciseSelector() as selector:
        for _ in range(30):
            started = time.monotonic()
            assert selector.select(0.0002) == []
            waits.append(time.monotonic() - started)
    assert 0.0002 <= min(waits) < 0.0008


def test_several_processes_send_one_load() -> None:
    """The requests that are due are those of one process."""
    with running() as server:
        load = server.load(connections=3, processes=2, rate=300.0, warmup_seconds=0.1, seed=5)
        measured = send_load(load)
    recording = measured.recording
    assert measured.seconds == pytest.approx(0.3)
    np.testing.assert_allclose(
        np.sort(recording.due) - measured.start, due_times(300.0, 0.4, "poisson", 5) - 0.1
    )
    assert recording.is_ok.all()


def test_a_load_is_split_whole() -> None:
    with running() as server:
        load = server.load(connections=7, processes=3)
    assert [one.connections for one in split(load)] == [3, 2, 2]
    assert len(split(replace(load, connections=2))) == 2
    assert split(replace(load, processes=1))[0].part == (0, 1)
