"""The server on the device, over HTTP: what it answers, and how it behaves under load and change.

It is started as where no distribution is installed: by the function behind the command.
"""

import json
import os
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.gpu.correctness import Wanted, errors_of
from benchmarks.gpu.results import Results
from benchmarks.gpu.subjects import SAMPLE_SEED, ZOO, Subject
from benchmarks.open_loop import Load
from benchmarks.process import RunningServer, serving
from models.onnx.replay import ReplayAnswers

PART = "HTTP"
MAIN = "from pushforward.cli.main import main; main()"
JSON = {"Content-Type": "application/json", "Accept": "application/json"}
OK, OVERLOADED, DRAINING = 200, 429, 503

# The model that is loaded until it refuses, drained and replaced, as it is called there.
_SMALL = "small"
_LIMITS = ("--max-batch-size", "16", "--max-queue-rows", "16")
_ROWS = 8
_CONNECTIONS = 48
_LOAD_SECONDS = 0.4
_RELOAD_SECONDS = 60.0

# A subject, and what it should answer.
Known = Mapping[str, tuple[Subject, Wanted]]


@contextmanager
def served(
    folder: Path, name: str, device: str, *arguments: str, cores: frozenset[int] = frozenset()
) -> Iterator[RunningServer]:
    """Start the server and wait until it is ready.

    Args:
        folder: of its log.
        name: of its log.
        device: as the setting has it.
        arguments: of `pushforward serve`, beside the device.
        cores: the processors that it may use; all, where none is named.
    """
    bound = f"import os; os.sched_setaffinity(0, {set(cores)}); " if cores else ""
    words = (sys.executable, "-c", bound + MAIN)
    with serving(
        folder / f"{name}.log", *arguments, "--device", device, executable=words
    ) as server:
        yield server


def check_answers(results: Results, server: RunningServer, device: str, known: Known) -> None:
    """Check the four operations on every model of the zoo, and what is said of the device."""
    with server.client() as http:
        for name, (subject, wanted) in known.items():
            with results.guard(PART, name):
                _check_model(results, http, device, subject, wanted)
        with results.guard(PART, "metrics"):
            lines = http.get("/metrics").text.splitlines()
            shown = any(line.startswith("pushforward_gpu_") for line in lines)
            results.check(PART, "metrics", "GPU memory is shown on a GPU", shown == _is_gpu(device))


def _check_model(
    results: Results,
    http: httpx.Client,
    device: str,
    subject: Subject,
    wanted: Wanted,
) -> None:
    name, exact = subject.name, wanted.exact
    card = http.get(f"/models/{name}").json()
    computes = card["device"].partition(":")[0]
    results.check(PART, name, "device", computes == device.partition(":")[0], card["device"])
    results.note("card", {key: card[key] for key in ("name", "engine", "device", "engine_choice")})
    stored = len(subject.rows.x) - subject.samples
    encoded = _ask(http, "encode", model=name, x=subject.rows.x.tolist())
    scored = _ask(http, "log_prob", model=name, x=subject.rows.x.tolist())
    decoded = _ask(http, "decode", model=name, z=subject.rows.z[:stored].tolist())
    drawn = _ask(http, "sample", model=name, num_samples=subject.samples, seed=SAMPLE_SEED)
    got = ReplayAnswers(
        z=_array(encoded["z"]),
        log_prob=_array(scored["log_prob"]),
        x=np.concatenate([_array(decoded["x"]), _array(drawn["x"])]),
        # The rows of the record are decoded without a log_prob: theirs is not asked for.
        sample_log_prob=np.concatenate([exact.sample_log_prob[:stored], _array(drawn["log_prob"])]),
    )
    for what, error in errors_of(subject, got, exact).items():
        results.check_error(PART, name, what, error, wanted.allowed[what])


def check_behaviour(results: Results, folder: Path, device: str) -> None:
    """Overload, a new version and SIGTERM, on one server with a short queue."""
    models = folder / "models"
    shutil.rmtree(models, ignore_errors=True)
    shutil.copytree(ZOO / "digits-glow", models / _SMALL / "1")
    with served(folder, "behaviour", device, "--model-repository", str(models), *_LIMITS) as server:
        body = _body_of(server)
        with results.guard(PART, "overload"):
            _check_overload(results, server, body)
        with results.guard(PART, "reload"):
            _check_reload(results, server, models, body)
        with results.guard(PART, "drain"):
            _check_drain(results, server, body)


def _check_overload(results: Results, server: RunningServer, body: bytes) -> None:
    load = Load(f"{server.url}/log_prob", body, JSON)
    requests = load.closed_loop(_CONNECTIONS, _LOAD_SECONDS)
    load.close()
    codes = Counter(request.status for request in requests)
    shown = str(dict(codes))
    results.check(PART, "overload", "429 or an answer", set(codes) <= {OK, OVERLOADED}, shown)
    results.check(PART, "overload", "some are refused", codes[OVERLOADED] > 0, shown)
    results.check(PART, "overload", "some are answered", codes[OK] > 0, shown)
    refused = [request for request in requests if request.status == OVERLOADED]
    told = all(request.retry_after > 0 for request in refused)
    results.check(PART, "overload", "Retry-After", told)
    with server.client() as http:
        again = http.post("/log_prob", content=body, headers=JSON)
    results.check(PART, "overload", "it recovers", again.status_code == OK, again.text[:200])


def _check_reload(results: Results, server: RunningServer, models: Path, body: bytes) -> None:
    """A second version takes the place of the first, and no request notices."""
    shutil.copytree(models / _SMALL / "1", models / "copy")
    os.rename(models / "copy", models / _SMALL / "2")
    codes: Counter[int] = Counter()
    version, until = "1", time.monotonic() + _RELOAD_SECONDS
    with server.client() as http:
        while version != "2" and time.monotonic() < until:
            answer = http.post("/log_prob", content=body, headers=JSON)
            codes[answer.status_code] += 1
            version = answer.json().get("version", version)
    results.check(PART, "reload", "the new version serves", version == "2", f"version {version}")
    results.check(PART, "reload", "every request is answered", set(codes) == {OK}, str(dict(codes)))


def _check_drain(results: Results, server: RunningServer, body: bytes) -> None:
    """SIGTERM under load: what was accepted is answered, and the exit code is 0."""
    timer = threading.Timer(_LOAD_SECONDS / 2, server.process.terminate)
    load = Load(f"{server.url}/log_prob", body, JSON)
    timer.start()
    requests = load.closed_loop(2, _LOAD_SECONDS)
    load.close()
    codes = Counter(request.status for request in requests)
    shown = str(dict(codes))
    results.check(PART, "drain", "answered or 503", set(codes) <= {OK, DRAINING}, shown)
    results.check(PART, "drain", "some are answered", codes[OK] > 0, shown)
    code = server.process.wait(timeout=60)
    results.check(PART, "drain", "exit code", code == 0, str(code))


def _body_of(server: RunningServer) -> bytes:
    with server.client() as http:
        shape = http.get(f"/models/{_SMALL}").json()["event_shape"]
    x = np.random.default_rng(0).integers(0, 256, (_ROWS, *shape))
    return json.dumps({"x": x.tolist()}).encode()


def _ask(http: httpx.Client, operation: str, **fields: Any) -> dict[str, Any]:
    answer = http.post(f"/{operation}", json=fields)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def _array(rows: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Numbers of an answer; null is what JSON cannot hold."""
    return np.array(rows, dtype=np.float64)


def _is_gpu(device: str) -> bool:
    return device != "cpu"
