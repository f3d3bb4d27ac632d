"""Several processes behind one port are one service."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

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
def team(tmp_path: Path, model: Path) -> Iterator[RunningServer]:
    with serving(tmp_path / "log", str(model), "--workers", str(WORKERS)) as server:
        yield server


def members(server: RunningServer) -> list[int]:
    """The processes that have the port."""
    tasks = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    children = [int(pid) for task in tasks for pid in task.read_text().split()]
    return [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def ask_all(server: RunningServer) -> int:
    """Ask on new connections until every process has answered.   -> how often."""
    deadline = time.monotonic() + START_SECONDS
    seen: set[str] = set()
    asked = 0
    while len(seen) < WORKERS:
        assert time.monotonic() < deadline, seen
        answer = httpx.post(f"{server.url}/encode", json=BODY)
        assert answer.status_code == 200
        # The first part of an id made by the service is the process' own.
        seen.add(answer.headers["x-request-id"].partition("-")[0])
        asked += 1
    return asked


def test_all_answer_and_their_metrics_add_up(team: RunningServer) -> None:
    asked = ask_all(team)
    text = httpx.get(f"{team.url}/metrics").text
    (count,) = re.findall(r'^pushforward_requests_total\{.*op="encode".*\} (.+)$', text, re.M)
    assert float(count) == asked
    (rows,) = re.findall(r'^pushforward_rows_total\{.*op="encode".*\} (.+)$', text, re.M)
    assert float(rows) == asked
    assert 'pushforward_model_ready{model="toy"} 1.0' in text
    pids = members(team)
    assert len(pids) == WORKERS
    assert team.terminate() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize("which", ["one", "first"])
def test_one_that_is_lost_ends_all(team: RunningServer, which: str) -> None:
    pids = members(team)
    os.kill(pids[0] if which == "one" else team.process.pid, signal.SIGKILL)
    code = team.process.wait(timeout=START_SECONDS)
    assert code == (128 + signal.SIGKILL if which == "one" else -signal.SIGKILL)
    deadline = time.monotonic() + START_SECONDS
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, team.log.read_text()
        time.sleep(0.05)


def test_what_keeps_them_from_starting_is_told_once(tmp_path: Path) -> None:
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
