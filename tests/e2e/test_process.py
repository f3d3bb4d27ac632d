"""The command itself: how fast it answers, and how it ends."""

import contextlib
import json
import resource
import shutil
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest

from benchmarks.process import command, serving

ZOO = Path(__file__).parents[2] / "models" / "zoo"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=60, check=False
    )


def test_help_costs_less_than_half_a_second_of_processor_time() -> None:
    costs = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(costs) < 0.5


def test_a_folder_without_models_is_one_clear_line_and_exit_3(tmp_path: Path) -> None:
    result = run("serve", str(tmp_path))
    assert result.returncode == 3
    message = result.stderr.strip().splitlines()[-1]
    assert str(tmp_path) in message
    assert "Traceback" not in result.stderr


def test_a_broken_model_among_others_is_one_clear_line_and_exit_3(tmp_path: Path) -> None:
    """While the first is refused, others are being loaded in threads."""
    for number in range(3):
        shutil.copytree(ZOO / "digits-realnvp", tmp_path / f"m{number}")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    result = run("serve", str(tmp_path), "--port", "0")
    assert result.returncode == 3, result.stderr
    assert "broken/config.json" in result.stderr.strip().splitlines()[-1]


def test_sigterm_answers_what_was_accepted(tmp_path: Path) -> None:

    answers: list[int] = []
    with serving(tmp_path / "log", str(ZOO / "moons"), "--log-format", "json") as server:

        def ask() -> None:
            # A connection may be refused or reset once the server is gone; what counts is that
            # every request it took, by its own log, was answered.
            with server.client() as http, contextlib.suppress(httpx.TransportError):
                while not answers or answers[-1] != httpx.codes.SERVICE_UNAVAILABLE:
                    answers.append(http.post("/sample", json={"num_samples": 200}).status_code)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(answers) < 20:
            time.sleep(0.01)
        assert server.terminate() == 0
        for thread in threads:
            thread.join(timeout=60)
        lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    taken = [line["status"] for line in lines if line.get("op") == "sample"]
    assert sorted(taken) == sorted(answers)
    assert set(answers) <= {httpx.codes.OK, httpx.codes.SERVICE_UNAVAILABLE}


@pytest.mark.parametrize("arguments", [("--no-such-flag",), ("serve", "--port", "many")])
def test_a_bad_flag_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.returncode in (2, 3)
    assert "Traceback" not in result.stderr
