"""A load from several processes, where one core cannot send it."""

import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import NamedTuple

import numpy as np

from pushforward.bench.load import Load, Measurement
from pushforward.bench.loops import run_load
from pushforward.bench.recording import join

# From when all of them are ready until they start together.
_SOON_SECONDS = 0.05


def send_load(load: Load) -> Measurement:
    """Send a load from as many processes as it says."""
    parts = split(load)
    return run_load(load) if len(parts) == 1 else merge(_run_parts(parts))


def split(load: Load) -> list[Load]:
    """Divide a load: its connections, and of an open loop every so-manieth of the requests due."""
    count = load.num_processes
    return [
        replace(
            load,
            connections=load.connections // count + (part < load.connections % count),
            part=(part, count),
        )
        for part in range(count)
    ]


def merge(parts: Sequence[Measurement]) -> Measurement:
    """Put together what the processes of one load have measured."""
    busiest = max(parts, key=lambda one: one.cpu_seconds + np.nan_to_num(one.waited_seconds))
    return Measurement(
        join([one.recording for one in parts]),
        start=max(one.start for one in parts),
        end=min(one.end for one in parts),
        cpu_seconds=busiest.cpu_seconds,
        waited_seconds=busiest.waited_seconds,
        sent_bytes=sum(one.sent_bytes for one in parts),
        received_bytes=sum(one.received_bytes for one in parts),
        is_stopped=any(one.is_stopped for one in parts),
        given_up=next((one.given_up for one in parts if one.given_up), ""),
    )


class _Sender(NamedTuple):
    process: SpawnProcess
    pipe: "Connection[Load, Measurement | None]"


def _run_parts(parts: list[Load]) -> list[Measurement]:
    context = multiprocessing.get_context("spawn")
    senders = []
    for _ in parts:
        own, theirs = context.Pipe()
        process = context.Process(target=_serve_part, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        senders.append(_Sender(process, own))
    try:
        for sender in senders:
            sender.pipe.recv()  # it is ready
        start = time.monotonic() + _SOON_SECONDS
        for sender, part in zip(senders, parts, strict=True):
            sender.pipe.send(replace(part, start_at=start))
        found = [_receive(sender, senders) for sender in senders]
    finally:
        for sender in senders:
            sender.process.terminate()
            sender.process.join()
            sender.pipe.close()
    return [one for one in found if one is not None]


def _receive(sender: _Sender, all_senders: list[_Sender]) -> Measurement | None:
    """Wait for what a process has to say; an interrupt is passed on to all of them.

    Raises:
        RuntimeError: it has ended without a word.
    """
    while True:
        try:
            return sender.pipe.recv()
        except KeyboardInterrupt:
            for one in all_senders:
                with suppress(ProcessLookupError):
                    os.kill(one.process.pid or 0, signal.SIGINT)
        except EOFError:
            sender.process.join()
            code = sender.process.exitcode
            raise RuntimeError(f"a process of the load tester ended with {code}") from None


def _serve_part(pipe: "Connection[Measurement | None, Load]") -> None:
    """Send a part of a load, in a process of its own."""
    # An interrupt at the terminal reaches all processes: while a load runs it ends that, before and
    # after it is for the first process alone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe.send(None)
    pipe.send(run_load(pipe.recv()))
