"""Promotions and rollbacks while clients ask: each answer is that of one version, none is missing.

Few of them in the suite; two hundred with PROMOTIONS=200, as `make show` has it.
"""

import io
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from benchmarks.process import RunningServer, serving
from tests.e2e.live_flows import VERSIONS, log_probs
from tests.e2e.test_clients import X

PROMOTIONS = int(os.environ.get("PROMOTIONS", "8"))
PATIENCE_SECONDS = 60.0
# Between two requests of a client: in the suite others need the processors too.
PAUSE_SECONDS = 0.002
NPY = {"Content-Type": "application/x-npy", "Accept": "application/x-npy"}
ROWS = np.resize(X, (300, X.shape[1]))
# What is kept of an answer of scores.
SCORED = ("score", "score", "p_value", "p_value", "threshold", "id")

pytestmark = pytest.mark.xdist_group("reloads")


def say(toy: Path, policy: list[int], default: int) -> None:
    """Write which versions are live, in one step."""
    path = toy / ".serving.toml"
    path.write_text(f"version_policy = {policy}\ndefault_version = {default}\n")
    path.rename(toy / "serving.toml")


@pytest.fixture
def server(flows: Path, tmp_path: Path) -> Iterator[RunningServer]:
    """All three versions are live, 1 is the default."""
    toy = tmp_path / "models" / "toy"
    shutil.copytree(flows, toy)
    say(toy, [1, 2, 3], 1)
    options = ("--enable-model-control", "true", "--engine", "torch", "--batching", "invariant")
    log = tmp_path / "server.log"
    with serving(log, str(toy.parent), *options, "--max-batch-size", "64") as running:
        yield running


Ask = Callable[[httpx.Client], tuple[str, list[float]]]


def ask_json(model: str) -> Ask:
    """One row of JSON: the fast path."""

    def ask(client: httpx.Client) -> tuple[str, list[float]]:
        answer = client.post("/log_prob", json={"model": model, "x": X[:1].tolist()})
        answer.raise_for_status()
        content = answer.json()
        assert content["model"] == "toy"
        return content["version"], content["log_prob"]

    return ask


def ask_npy(model: str) -> Ask:
    """More rows than a batch has."""
    buffer = io.BytesIO()
    np.save(buffer, ROWS)
    body = buffer.getvalue()

    def ask(client: httpx.Client) -> tuple[str, list[float]]:
        url = f"/log_prob?model={model}"
        answer = client.post(url, content=body, headers=NPY)
        answer.raise_for_status()
        values = np.load(io.BytesIO(answer.content))
        return answer.headers["x-model-version"], values.tolist()

    return ask


def ask_score(model: str) -> Ask:
    """Some rows against the calibration, which the answer names."""

    def ask(client: httpx.Client) -> tuple[str, list[float]]:
        answer = client.post("/score", json={"model": model, "x": X[:2].tolist(), "alpha": 0.5})
        answer.raise_for_status()
        content = answer.json()
        calibration = content["calibration"]
        promised = [calibration["threshold"], float(int(calibration["id"], 16))]
        return content["version"], [*content["score"], *content["p_value"], *promised]

    return ask


def ask_v2(version: str | None) -> Ask:
    """One row in the Open Inference Protocol."""
    tensor = {"name": "x", "shape": [1, X.shape[1]], "datatype": "FP32", "data": X[:1].tolist()}
    body: dict[str, Any] = {"inputs": [tensor], "outputs": [{"name": "log_prob"}]}
    path = f"/v2/models/toy{'' if version is None else f'/versions/{version}'}/infer"

    def ask(client: httpx.Client) -> tuple[str, list[float]]:
        answer = client.post(path, json=body)
        answer.raise_for_status()
        content = answer.json()
        return content["model_version"], content["outputs"][0]["data"]

    return ask


# Who asks, and the version that must answer; None where whichever is the default may.
QUESTIONS: tuple[tuple[str | None, Ask], ...] = (
    (None, ask_json("toy")),
    (None, ask_json("toy")),
    (None, ask_npy("toy")),
    (None, ask_v2(None)),
    (None, ask_score("toy")),
    ("2", ask_score("toy@2")),
    ("1", ask_json("toy@1")),
    ("2", ask_json("toy@2")),
    ("2", ask_npy("toy@2")),
    ("1", ask_v2("1")),
)


class Asker(threading.Thread):
    """Asks one question until it is stopped, and keeps the answers."""

    def __init__(
        self, url: str, question: tuple[str | None, Ask], is_over: threading.Event
    ) -> None:
        super().__init__()
        self.answers: list[tuple[str, list[float]]] = []
        self.failures: list[str] = []
        self.version, self._ask = question
        self._url = url
        self._is_over = is_over

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60, verify=False) as client:
            while not self._is_over.is_set():
                try:
                    self.answers.append(self._ask(client))
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                time.sleep(PAUSE_SECONDS)


def until(client: httpx.Client, default: str, versions: list[str]) -> None:
    """Wait until one version is the default and some are live."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        facts = client.get("/models/toy").json()
        if (facts["version"], facts["versions"]) == (default, versions):
            return
        assert time.monotonic() < deadline, facts
        time.sleep(0.02)


def promote_by_call(client: httpx.Client, _: Path, __: Path) -> None:
    """1 -> 2."""
    body = {"parameters": {"default_version": 2}}
    client.post("/v2/repository/models/toy/load", json=body).raise_for_status()
    assert client.get("/models/toy").json()["version"] == "2"


def roll_back_by_call(client: httpx.Client, _: Path, __: Path) -> None:
    """2 -> 1; from here on the file decides."""
    client.post("/v2/repository/models/toy/load").raise_for_status()
    until(client, "1", ["1", "2"])


def promote_a_new_version(client: httpx.Client, toy: Path, flows: Path) -> None:
    """1 -> 3, whose folder comes first."""
    shutil.copytree(flows / "3", toy / ".3")
    (toy / ".3").rename(toy / "3")
    say(toy, [1, 2, 3], 3)
    until(client, "3", ["1", "2", "3"])


def roll_back_and_retire(client: httpx.Client, toy: Path, _: Path) -> None:
    """3 -> 1, and 3 is removed."""
    say(toy, [1, 2], 1)
    until(client, "1", ["1", "2"])
    shutil.rmtree(toy / "3")


CHANGES = (promote_by_call, roll_back_by_call, promote_a_new_version, roll_back_and_retire)


def test_promotions_and_rollbacks_cost_no_request_and_mix_no_numbers(
    server: RunningServer, flows: Path, tmp_path: Path
) -> None:
    toy, is_over = tmp_path / "models" / "toy", threading.Event()
    expected: dict[str, dict[int, list[float]]] = {}
    with httpx.Client(base_url=server.url, timeout=60, verify=False) as client:
        for version in VERSIONS:
            asked = [ask(f"toy@{version}") for ask in (ask_json, ask_npy, ask_score)]
            values = [ask(client)[1] for ask in asked]
            expected[version] = {len(each): each for each in values}
            np.testing.assert_allclose(values[1], log_probs(flows / version, ROWS), rtol=1e-4)
        for length in (1, len(ROWS), len(SCORED)):
            assert len({tuple(each[length]) for each in expected.values()}) == len(VERSIONS)
        calibrations = [each[len(SCORED)][-1] for each in expected.values()]
        assert len({*calibrations}) == len(VERSIONS)
        p_values = [tuple(each[len(SCORED)][2:4]) for each in expected.values()]
        assert len({*p_values}) == len(VERSIONS)
        say(toy, [1, 2], 1)
        until(client, "1", ["1", "2"])
        shutil.rmtree(toy / "3")
        askers = [Asker(server.url, question, is_over) for question in QUESTIONS]
        for asker in askers:
            asker.start()
        began, resident = time.monotonic(), server.resident_bytes()
        try:
            for turn in range(PROMOTIONS):
                CHANGES[turn % len(CHANGES)](client, toy, flows)
        finally:
            is_over.set()
            for asker in askers:
                asker.join(60)
    took, growth = time.monotonic() - began, server.resident_bytes() - resident
    seen = Counter(version for asker in askers for version, _ in asker.answers)
    rows = sum(len(values) for asker in askers for _, values in asker.answers)
    failures = [failure for asker in askers for failure in asker.failures]
    print(
        f"{PROMOTIONS} promotions and rollbacks in {took:.0f} s, {sum(seen.values()):,} answers "
        f"with {rows:,} rows by {len(askers)} connections: "
        + ", ".join(f"{seen[version]:,} of version {version}" for version in VERSIONS)
        + f"; {len(failures)} failed; memory {growth / 2**20:+.0f} MiB"
    )
    assert failures == []
    for asker in askers:
        for version, values in asker.answers:
            assert asker.version in (None, version)
            assert values == expected[version][len(values)], f"other numbers than {version} has"
    assert set(seen) == set(VERSIONS)
