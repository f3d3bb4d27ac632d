"""Reloads while clients ask: nothing fails, nothing is mixed up, nothing piles up.

Few of them in the suite; two hundred with RELOADS=200, as `make show` has it.
"""

import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from benchmarks.process import RunningServer, serving
from tests.e2e.live_flows import log_probs
from tests.e2e.test_clients import X

RELOADS = int(os.environ.get("RELOADS", "12"))
CLIENTS = 2
# After this many the process has the memory it needs: allocators, threads, caches.
SETTLED = RELOADS // 5
MAX_GROWTH_BYTES = 40 * 2**20

# One process for all: what they share is made once.
pytestmark = pytest.mark.xdist_group("reloads")


@pytest.fixture
def server(flows: Path, tmp_path: Path) -> Iterator[RunningServer]:
    shutil.copytree(flows / flow_of(1), tmp_path / "models" / "toy" / "1")
    options = ("--enable-model-control", "true", "--watch-models", "false")
    log = tmp_path / "server.log"
    with serving(log, str(tmp_path / "models"), *options, "--max-batch-size", "64") as running:
        yield running


def flow_of(version: int) -> str:
    """Which of two flows a version is."""
    return str(1 + version % 2)


class Asker(threading.Thread):
    """Asks until it is stopped, and keeps the answers."""

    def __init__(self, url: str, is_over: threading.Event) -> None:
        super().__init__()
        self.answers: list[tuple[int, float]] = []
        self.failures: list[str] = []
        self._url = url
        self._is_over = is_over

    def run(self) -> None:
        body: dict[str, Any] = {"model": "toy", "x": X.tolist()}
        with httpx.Client(base_url=self._url, timeout=60, verify=False) as client:
            while not self._is_over.is_set():
                answer = client.post("/log_prob", json=body)
                if answer.status_code != 200:
                    self.failures.append(answer.text)
                    continue
                content = answer.json()
                self.answers.append((int(content["version"]), content["log_prob"][0]))


def reload(server: RunningServer, flows: Path, toy: Path) -> list[int]:
    """Put version after version in place, and give the resident bytes after each."""
    resident = []
    with httpx.Client(base_url=server.url, timeout=60, verify=False) as client:
        for version in range(2, RELOADS + 2):
            shutil.copytree(flows / flow_of(version), toy / str(version))
            shutil.rmtree(toy / str(version - 1))
            answer = client.post("/v2/repository/models/toy/load")
            assert answer.status_code == 200, answer.text
            resident.append(server.resident_bytes())
    return resident


def test_reloads_under_load(server: RunningServer, flows: Path, tmp_path: Path) -> None:
    is_over = threading.Event()
    askers = [Asker(server.url, is_over) for _ in range(CLIENTS)]
    for asker in askers:
        asker.start()
    try:
        resident = reload(server, flows, tmp_path / "models" / "toy")
    finally:
        is_over.set()
        for asker in askers:
            asker.join(60)
    growth = resident[-1] - resident[SETTLED]
    answers = [answer for asker in askers for answer in asker.answers]
    seen = Counter(version for version, _ in answers)
    print(
        f"{RELOADS} reloads, {len(answers)} answers of {len(seen)} versions, resident "
        f"{resident[SETTLED] / 2**20:.0f} MiB after {SETTLED} and {resident[-1] / 2**20:.0f} MiB "
        f"at the end: {growth / 2**20:+.1f} MiB"
    )
    assert [failure for asker in askers for failure in asker.failures] == []
    assert len(seen) > RELOADS / 4
    wanted = [float(log_probs(flows / flow_of(parity), X)[0]) for parity in (0, 1)]
    assert abs(wanted[0] - wanted[1]) > 1e-2
    for version, log_prob in answers:
        np.testing.assert_allclose(log_prob, wanted[version % 2], rtol=1e-4)
    for asker in askers:
        versions = [version for version, _ in asker.answers]
        assert versions == sorted(versions), "an older version answered after a newer one"
    assert growth < MAX_GROWTH_BYTES


def test_bad_versions_under_load_cost_nobody_anything(
    server: RunningServer, flows: Path, tmp_path: Path
) -> None:
    is_over = threading.Event()
    asker = Asker(server.url, is_over)
    asker.start()
    bad = shutil.copytree(flows / flow_of(2), tmp_path / "models" / "toy" / "2")
    weights = bad / "model.safetensors"
    whole = weights.read_bytes()
    try:
        with httpx.Client(base_url=server.url, timeout=60, verify=False) as client:
            for size in range(0, len(whole), max(1, len(whole) // 10)):
                weights.write_bytes(whole[:size])
                answer = client.post("/v2/repository/models/toy/load")
                assert (answer.status_code, answer.json()["code"]) == (422, "model_refused")
                assert str(tmp_path) not in answer.text
            (listed,) = (
                entry
                for entry in client.post("/v2/repository/index").json()
                if entry["state"] == "UNAVAILABLE"
            )
            assert listed["version"] == "2"
            assert "model.safetensors" in listed["reason"]
    finally:
        is_over.set()
        asker.join(60)
    assert asker.failures == []
    assert {version for version, _ in asker.answers} == {1}
