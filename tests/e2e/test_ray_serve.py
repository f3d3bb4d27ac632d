"""`examples/ray_serve.py` on a local cluster: the server's answers, and a replica that dies."""

import importlib.util
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from benchmarks.process import RunningServer, serving
from benchmarks.ray_cluster import RayCluster, serving_by_ray

MOONS = Path(__file__).resolve().parents[2] / "models" / "zoo" / "moons"
CLIENTS = 6
DEADLINE_SECONDS = 90.0

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray (extra ray)"),
    pytest.mark.xdist_group("ray_serve"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    arguments = json.dumps({"model_repository": str(MOONS), "max_request_rows": 100})
    with serving_by_ray(tmp_path_factory.mktemp("ray") / "log", arguments) as running:
        yield running


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serving(tmp_path_factory.mktemp("plain") / "log", str(MOONS)) as running:
        yield running


CALLS = {
    "log_prob": {"x": [[0.5, 1.0], [0.0, -0.25]]},
    "encode": {"x": [[0.5, 1.0]]},
    "decode": {"z": [[0.5, 1.0]]},
    "sample": {"num_samples": 3, "seed": 7},
    "score": {"x": [[0.5, 1.0], [9.0, 9.0]], "alpha": 0.01},
    "a row too wide": {"x": [[0.5, 1.0, 2.0]]},
    "no such field": {"rows": []},
}


@pytest.mark.parametrize("name", CALLS)
def test_answers_are_those_of_pushforward_serve(
    name: str, cluster: RayCluster, plain: RunningServer
) -> None:
    path = f"/{name}" if " " not in name else "/log_prob"
    call = {
        "json": {"model": "moons", **CALLS[name]},
        "headers": {"X-Request-Id": "one"},
    }
    by_ray = httpx.post(cluster.url + path, timeout=60, **call)
    wanted = httpx.post(plain.url + path, timeout=60, **call)
    assert (by_ray.status_code, by_ray.content) == (wanted.status_code, wanted.content)
    for header in ("content-type", "x-request-id"):
        assert by_ray.headers.get_list(header) == wanted.headers.get_list(header)


def test_settings_reach_the_replicas(cluster: RayCluster) -> None:
    rows = {"x": [[0.5, 1.0]] * 101}
    answer = httpx.post(cluster.url + "/log_prob", json=rows, timeout=60)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert "at most 100 rows" in answer.json()["detail"]


@dataclass
class Load:
    """Clients that ask one row after another; each answer with when it was asked for."""

    url: str
    answers: list[tuple[float, int, str]] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as client:
            while not self.stopping.is_set():
                asked = time.monotonic()
                answer = client.post("/log_prob", json={"x": [[0.5, 1.0]]})
                self.answers.append((asked, answer.status_code, answer.text))


def test_a_lost_replica_costs_what_it_had_and_is_replaced(cluster: RayCluster) -> None:
    _wait(lambda: len(_start_times(cluster)) == 2)
    before = cluster.replicas()
    load = Load(cluster.url)
    threads = [threading.Thread(target=load.run) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        _wait(lambda: len(load.answers) > 50)
        lost = min(before)
        os.kill(lost, signal.SIGKILL)
        killed = time.monotonic()
        _wait(lambda: len(cluster.replicas() - {lost}) == 2 and len(_start_times(cluster)) == 2)
    finally:
        load.stopping.set()
        for thread in threads:
            thread.join()
    failed = [answer for answer in load.answers if answer[1] != 200]
    # No more than were under way, and none that was asked for once Ray knew.
    assert len(failed) <= CLIENTS
    assert all(asked < killed + 1 for asked, _, _ in failed)
    assert {text for _, status, text in load.answers if status == 200} == {
        httpx.post(cluster.url + "/log_prob", json={"x": [[0.5, 1.0]]}, timeout=60).text
    }
    assert sum(asked > killed for asked, _, _ in load.answers) > CLIENTS


def _start_times(cluster: RayCluster) -> set[str]:
    """When the replicas that answer were started, of some that are asked."""
    texts = [httpx.get(cluster.url + "/metrics", timeout=60).text for _ in range(8)]
    return {
        line for text in texts for line in text.splitlines() if line.startswith("process_start")
    }


def _wait(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)
