"""Who takes part in the comparison: this server in its settings, another tree's, and the peers.

All that are up at a time answer the same request; whose numbers differ from ours is not measured.
"""

import io
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.peers import environment
from benchmarks.peers.environment import FLOOR, GRAPH, MIRA
from benchmarks.process import serving
from benchmarks.workloads import (
    BEFORE,
    TWO_WORKERS,
    ZOO_SHAPES,
    Workload,
    body_of,
    event_shape,
    headers_of,
)

OURS = "ours"
ONE_INSTANCE = "ours, 1 instance"
SETTINGS: dict[str, tuple[str, ...]] = {
    OURS: (),
    ONE_INSTANCE: ("--instances", "1"),
    TWO_WORKERS: ("--workers", "2"),
    "ours, torch": ("--engine", "torch"),
}
# Of one image's log_prob in nats: x came through one rounding to decimals more.
SAMPLE_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Server:
    """One that is up.

    ready_seconds: from the command until it is ready, or its port took a connection where it does
    not say. answer_seconds: until the first answer.
    """

    url: str
    pid: int
    ready_seconds: float
    answer_seconds: float


@dataclass(slots=True)
class Field:
    """All that are up, and why others are not."""

    up: dict[str, Server] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def candidates(work: Workload, before: Path | None) -> list[str]:
    """Who can take this workload."""
    names = [*SETTINGS, *([BEFORE] if before else [])]
    if work.flow in ZOO_SHAPES:
        return [*names, GRAPH]
    names += ["echo", GRAPH, MIRA, "mosec"]
    if work.form == "json":
        names += ["naive", "LitServe"]
        if work.call == "log_prob":
            names += ["BentoML", *([FLOOR] if work.rows == 1 else [])]
    return names


@contextmanager
def started(
    names: list[str], work: Workload, folder: Path, scratch: Path, before: Path | None
) -> Iterator[Field]:
    """Start some of the candidates, ours first, and check their answers."""
    body, headers = body_of(work), headers_of(work)
    found = Field()
    with ExitStack() as stack:
        for name in names:
            log = scratch / f"{name.replace(', ', '-').replace(' ', '-')}.log"
            if name in SETTINGS or name == BEFORE:
                server, answer = _start_own(stack, name, work, folder, log, before)
                if name == OURS:
                    (scratch / "answer").write_bytes(answer)
            else:
                env = {"FLOW_FOLDER": str(folder.absolute()), "FLOW_CALL": work.call}
                env |= {"FLOW_FORMAT": work.form, "FLOW_BATCH": str(work.peer_batch)}
                env["ECHO_ANSWER"] = str(scratch / "answer")
                try:
                    peer = stack.enter_context(environment.running(name, env, (body, headers), log))
                except RuntimeError as error:
                    found.failed[name] = str(error)[-300:]
                    print(f"{work.name}: {name} left out: {str(error)[:1500]}")
                    continue
                answer = peer.answer
                server = Server(peer.url, peer.pid, peer.listening_seconds, peer.answer_seconds)
            if name != "echo":
                check(name, work, answer, (scratch / "answer").read_bytes(), found)
            found.up[name] = server
        yield found


def _start_own(
    stack: ExitStack, name: str, work: Workload, folder: Path, log: Path, before: Path | None
) -> tuple[Server, bytes]:
    # Peers write no access log either. On a busy machine `auto` of another tree may take torch.
    options = SETTINGS.get(name, ("--engine", "onnx"))
    root = str((before or Path.cwd()).resolve()) if name == BEFORE else str(Path.cwd())
    command = (str(folder), *options, "--log-level", "warning")
    own = stack.enter_context(serving(log, *command, env={"PYTHONPATH": root}))
    url = f"{own.url}/{work.call}"
    response = httpx.post(url, content=body_of(work), headers=headers_of(work), timeout=60)
    if response.status_code != httpx.codes.OK:
        raise RuntimeError(f"{name}: {response.status_code} {response.text[:500]}")
    answer_seconds = own.seconds_to_ready + response.elapsed.total_seconds()
    return Server(url, own.process.pid, own.seconds_to_ready, answer_seconds), response.content


def check(name: str, work: Workload, theirs: bytes, ours: bytes, found: Field) -> None:
    """Hold an answer to ours; samples, which are random, to their shape and our log_prob of them.

    Raises:
        AssertionError: they are not the same numbers.
    """
    if work.call == "log_prob":
        agree(work.form, work.tolerance, ours, theirs)
        return
    x = _numbers(work.form, theirs, "x")
    if x.shape != (work.rows, *event_shape(work.flow)) or not np.isfinite(x).all():
        raise AssertionError(f"{name}: expected {work.rows} samples, got {x.shape}")
    if work.form == "json" and name != OURS and "log_prob" in json.loads(theirs):
        url = found.up[OURS].url.replace("/sample", "/log_prob")
        answer = httpx.post(url, json={"x": x.tolist()}, timeout=60).raise_for_status()
        own, given = _numbers("json", answer.content), _numbers("json", theirs)
        np.testing.assert_allclose(given, own, rtol=SAMPLE_TOLERANCE, err_msg=name)


def agree(form: str, tolerance: float, ours: bytes, theirs: bytes) -> None:
    """Hold two answers to one request together.

    Raises:
        AssertionError: they are not the same numbers.
    """
    np.testing.assert_allclose(
        _numbers(form, theirs), _numbers(form, ours), rtol=tolerance, atol=tolerance
    )


def _numbers(form: str, answer: bytes, name: str = "log_prob") -> Any:
    if form == "npy":
        return np.load(io.BytesIO(answer))
    values = json.loads(answer)
    return np.array(values[name] if isinstance(values, dict) else values)
