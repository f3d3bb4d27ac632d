"""Several processes behind one port are one service."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

import models
from benchmarks.process import START_SECONDS, RunningServer, command, serving

BODY = {"x": [[1.0, 2.0]]}
WORKERS = 2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "toy"
    models.save(models.build("realnvp", {"event_shape": [2], "num_layers": 2}), folder)
    return folder


@pytest.fixture
def server(tmp_path: Path, model: Path) -> Iterator[RunningServer]:
    with serving(tmp_path / "log", str(model), "--workers", str(WORKERS)) as server:
        yield server


@pytest.fixture(scope="module")
def asked_server(
    tmp_path_factory: pytest.TempPathFactory, model: Path
) -> Iterator[tuple[RunningServer, int]]:
    """A server all of whose processes have answered, and how many requests they were."""
    log = tmp_path_factory.mktemp("asked") / "log"
    with serving(log, str(model), "--workers", str(WORKERS)) as server:
        yield server, ask_all(server)


def worker_pids(server: RunningServer) -> list[int]:
    """The processes that have the port."""
    tasks = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    children = [int(pid) for task in tasks for pid in task.read_text().split()]
    return [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def ask_all(server: RunningServer) -> int:
    """Ask on new connections until every process has answered, and count how often."""
    deadline = time.monotonic() + START_SECONDS
    seen: set[str] = set()
    asked = 0
    while len(seen) < WORKERS:
        assert time.monotonic() < deadline, seen
        answer = httpx.post(f"{server.url}/encode", json=BODY, verify=False)
        assert answer.status_code == 200
        # The first part of an id made by the service is the process' own.
        seen.add(answer.headers["x-request-id"].partition("-")[0])
        asked += 1
    return asked


@pytest.mark.xdist_group("asked_server")
def test_all_answer_and_their_metrics_add_up(asked_server: tuple[RunningServer, int]) -> None:
    server, asked = asked_server
    text = httpx.get(f"{server.url}/metrics", verify=False).text
    (count,) = re.findall(r'^pushforward_requests_total\{.*op="encode".*\} (.+)$', text, re.M)
    assert float(count) == asked
    (rows,) = re.findall(r'^pushforward_rows_total\{.*op="encode".*\} (.+)$', text, re.M)
    assert float(rows) == asked
    assert 'pushforward_model_ready{model="toy"} 1.0' in text
    pids = worker_pids(server)
    assert len(pids) == WORKERS


@pytest.mark.xdist_group("asked_server")
def test_each_line_says_whose_it_is(asked_server: tuple[RunningServer, int], model: Path) -> None:
    server, _ = asked_server
    pids = worker_pids(server)
    assert server.terminate() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    first, *others = (line.partition(" ")[2] for line in server.log.read_text().splitlines())
    port = server.url.rpartition(":")[2]
    assert first.startswith(
        f"INFO    settings: --model-repository {model} --port {port} --workers 2 "
    )
    found = [re.match(r"INFO    worker (\d): (?:--)?(\w+)", line) for line in others]
    assert None not in found, others
    said = {match.groups() for match in found if match is not None}
    words = ("ready", "serving", "POST", "SIGTERM")
    assert said >= {(str(number), word) for number in (1, 2) for word in words}


def until(condition: Callable[[], object], server: RunningServer) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.05)


def has_ended(pid: int) -> bool:
    """Whether a process has ended, its sockets closed: it is gone, or waits to be asked for.

    The first thread may wait while others end, which share its sockets.
    """
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        threads = len(os.listdir(f"/proc/{pid}/task"))
    except FileNotFoundError:
        return True
    return state in ("Z", "X") and threads == 1


def ready(server: RunningServer) -> dict[str, Any]:
    answer = httpx.get(f"{server.url}/health/ready", verify=False)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def test_one_that_is_lost_is_started_anew_while_the_other_serves(server: RunningServer) -> None:
    assert ready(server) == {"ready": True, "workers_ready": 2, "workers": 2}
    (lost, *others) = worker_pids(server)
    os.kill(lost, signal.SIGKILL)
    until(lambda: has_ended(lost), server)
    # Every new connection is answered meanwhile: none is sent to the one that is gone.
    while len(worker_pids(server)) < WORKERS:
        answer = httpx.post(f"{server.url}/encode", json=BODY, timeout=30, verify=False)
        assert answer.status_code == 200
        time.sleep(0.01)
    assert ready(server)["workers_ready"] == 1
    until(lambda: ready(server)["workers_ready"] == WORKERS, server)
    assert set(others) < set(worker_pids(server))
    ask_all(server)
    metrics = httpx.get(f"{server.url}/metrics", verify=False).text
    assert "\npushforward_worker_restarts_total 1.0\n" in metrics
    assert "another takes its place" in server.log.read_text()
    assert server.terminate() == 0


def test_without_the_first_all_end(server: RunningServer) -> None:
    pids = worker_pids(server)
    server.process.kill()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), server)


def test_what_keeps_them_from_starting_is_reported_once(tmp_path: Path) -> None:
    result = subprocess.run(
        command("serve", str(tmp_path), "--workers", "2", "--port", "0"),
        capture_output=True,
        text=True,
        check=False,
        timeout=START_SECONDS,
    )
    assert result.returncode == 3
    (line,) = result.stderr.splitlines()
    assert str(tmp_path) in line


def test_model_control_wants_one_process(model: Path) -> None:
    result = subprocess.run(
        command("serve", str(model), "--workers", "2", "--enable-model-control", "true"),
        capture_output=True,
        text=True,
        check=False,
        timeout=START_SECONDS,
    )
    assert result.returncode == 3
    assert "--enable-model-control" in result.stderr
