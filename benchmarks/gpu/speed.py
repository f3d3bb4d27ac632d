"""Speed: every engine beside eager torch on the same device, and the server's rates."""

import json
import os
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import NamedTuple
from urllib.parse import urlencode

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.ffjord_references import brute_force, dense, solve
from benchmarks.gpu.candidates import engines_of
from benchmarks.gpu.over_http import JSON, served
from benchmarks.gpu.results import Measurement, Results
from benchmarks.gpu.subjects import SLOW_ON_A_CPU, ZOO_NAMES
from benchmarks.gpu.works import BEST, ON_A_GPU, QUICK, Work, checkpoint_of
from benchmarks.harness import Ratios, interleave
from benchmarks.open_loop import Load
from benchmarks.process import RunningServer
from models.checkpoints.loading import Checkpoint
from models.noise import base_noise
from service.contracts import Array
from service.engines.engine import Engine

PART = "speed"
EAGER, PUBLIC = "torch", "public code"
NPY = "application/x-npy"

_MATRIX = 8192
_MATRIX_CALLS = 5
_NOISE = (256, 3 * 32 * 32)
# Below this much time left no further measurement begins.
_LEAST_SECONDS = 8.0
# Models of which a GPU is to make more of an image than two cores do, and the others.
_LARGE = ("digits-glow", "digits-realnvp")
_GOALS = {True: 10.0, False: 0.8}


class _Turns(NamedTuple):
    """How long a comparison lasts."""

    rounds: int
    seconds: float


def measure_engines(results: Results, device: str, *, is_quick: bool) -> None:
    """Time all engines on the works of this device."""
    is_small = is_quick or device == "cpu"
    works = QUICK if is_small else ON_A_GPU
    turns = _Turns(2, 0.01) if is_quick else _Turns(5, 0.1)
    rate = 0.0
    if not is_small:
        rate = _matrix_rate(device)
        results.measure(Measurement("Device", "float32 matrices", EAGER, {"TFLOP/s": rate / 1e12}))
    began = time.perf_counter()
    base_noise(*_NOISE, seed=0)
    took = 1e3 * (time.perf_counter() - began)
    results.measure(Measurement("Device", "noise of 256 images", "CPU", {"ms": took}))
    for work in works:
        if results.has_time(PART, work.name, _LEAST_SECONDS * (not is_small)):
            with results.guard(PART, work.name):
                _measure_work(results, work, device, turns, rate)


def _measure_work(
    results: Results, work: Work, device: str, turns: _Turns, matrix_rate: float
) -> None:
    checkpoint = checkpoint_of(work, device)
    found = engines_of(results, PART, checkpoint, max(work.rows))
    engines = {name: selection.engine for name, selection in found}
    for operation in work.operations:
        for rows in work.rows:
            label = f"{work.name}, {operation}, {rows} rows"
            if not results.has_time(PART, label):
                continue
            given = _given(checkpoint, operation, rows)
            calls = {name: _call(engine, operation, given) for name, engine in engines.items()}
            if work.is_public:
                calls = {PUBLIC: _public(checkpoint, given), **calls}
            ratios = interleave(calls, rounds=turns.rounds, turn_seconds=turns.seconds, rows=rows)
            share = _flops(checkpoint) * rows / matrix_rate if matrix_rate else 0.0
            _report(results, work, operation, ratios, share)


def _report(
    results: Results, work: Work, operation: str, ratios: Ratios, least_seconds: float
) -> None:
    """Note what every candidate took, beside its goal.

    Args:
        least_seconds: what the operations would take at the device's matrix rate; 0 if not known.
    """
    best = max(ratios.seconds, key=ratios.speedup)
    goals = work.goals.get(ratios.rows, {})
    for name, seconds in ratios.seconds.items():
        low, high = ratios.spread(name)
        values: dict[str, float | str] = {
            "ms": 1e3 * median(seconds),
            "rows/s": ratios.rows / median(seconds),
            f"times {ratios.baseline}": ratios.speedup(name),
            "quartiles": f"{low:.3g} to {high:.3g}",
            "noise %": 100 * ratios.noise,
        }
        if least_seconds:
            values["% of matrix rate"] = 100 * least_seconds / median(seconds)
        goal = goals.get(name, goals.get(BEST, 0.0) if name == best else 0.0)
        reached: bool | None = ratios.speedup(name) >= goal if goal else None
        text = f"{goal:g}x" if goal else ""
        if goal and work.matrix_share and ratios.rows == max(work.rows):
            reached = bool(reached) and least_seconds / median(seconds) >= work.matrix_share
            text += f", {work.matrix_share:.0%} of the matrix rate"
        table = f"{work.name}, {operation}"
        results.measure(Measurement(table, f"{ratios.rows} rows", name, values, text, reached))


def _given(checkpoint: Checkpoint, operation: str, rows: int) -> Array:
    """Latents, or data that they stand for, in float32: the golden ones as often as needed."""
    if operation == "samples":
        return base_noise(rows, checkpoint.flow.features, seed=1).astype(np.float32)
    x = checkpoint.record["x"].numpy().astype(np.float32)
    spread = np.random.default_rng(0).standard_normal((rows, *x.shape[1:])).astype(np.float32)
    given: Array = x[np.arange(rows) % len(x)] + np.float32(0.01) * spread
    return given


def _call(engine: Engine, operation: str, given: Array) -> Callable[[], object]:
    if operation == "samples":
        return lambda: engine.decode(given, None)
    return lambda: engine.encode(given, None)


def _public(checkpoint: Checkpoint, given: Array) -> Callable[[], object]:
    """Public code's arithmetic, from an array to arrays as an engine has it."""
    flow, x = checkpoint.flow, torch.from_numpy(given)
    field = brute_force(dense(flow))

    def call() -> tuple[Array, Array]:
        z, log_det = solve(field, x.to(flow.device))
        return z.cpu().numpy(), log_det.cpu().numpy()

    return call


def _matrix_rate(device: str) -> float:
    """Operations a second of a large product in float32, without TF32."""
    left = torch.randn(_MATRIX, _MATRIX, device=device)
    left @ left
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    for _ in range(_MATRIX_CALLS):
        left @ left
    torch.cuda.synchronize(device)
    return float(2 * _MATRIX**3 * _MATRIX_CALLS / (time.perf_counter() - began))


@torch.no_grad()
def _flops(checkpoint: Checkpoint) -> int:
    """Operations of one row of a discrete flow."""
    flow = checkpoint.flow
    with FlopCounterMode(display=False) as counter:
        flow.encode(checkpoint.record["x"][:1].to(flow.device, flow.dtype))
    return int(counter.get_total_flops())


def measure_server(
    results: Results, folder: Path, server: RunningServer, device: str, *, is_quick: bool
) -> None:
    """Measure what the server answers a second; on a GPU beside the CPU engine on two cores."""
    rates = {device: _rates(results, server, is_quick=is_quick)}
    if device != "cpu":
        cores = frozenset(sorted(os.sched_getaffinity(0))[:2])
        with served(folder, "cpu", "cpu", cores=cores) as beside:
            rates["cpu, 2 cores"] = _rates(results, beside, is_quick=is_quick)
    for name, here in rates.items():
        for (model, what), rate in here.items():
            baseline = rates.get("cpu, 2 cores", {}).get((model, what))
            values: dict[str, float | str] = {"rows/s": rate}
            goal, reached = "", None
            if baseline and name == device:
                least = _GOALS[model in _LARGE]
                values["times the CPU"] = rate / baseline
                goal, reached = f"{least:g}x", rate / baseline >= least
            subject = f"{model}, {what}"
            results.measure(Measurement("Over HTTP", subject, name, values, goal, reached))


def _rates(
    results: Results, server: RunningServer, *, is_quick: bool
) -> dict[tuple[str, str], float]:
    """Rows a second of each model: one row at 64 connections, many rows at 2."""
    seconds, many = (0.05, 16) if is_quick else (1.0, 1000)
    found = {}
    with server.client() as http:
        for model in ZOO_NAMES:
            if is_quick and model in SLOW_ON_A_CPU:
                continue
            fields: dict[str, str | int] = {"model": model}
            if http.get(f"/models/{model}").json().get("num_classes") is not None:
                fields["context"] = 0
            drawn = http.post("/sample", json={**fields, "num_samples": 16, "seed": 1})
            x = np.array(drawn.json()["x"])
            one = json.dumps({**fields, "x": x[:1].round(5).tolist()}).encode()
            rows = np.resize(x, (many, *x.shape[1:])).astype(np.float32)
            works: dict[str, tuple[str, bytes, dict[str, str], int, int]] = {
                "one row, 64 connections": ("/log_prob", one, JSON, 64, 1),
                f"{many} rows, npy": (
                    f"/log_prob?{urlencode(fields)}",
                    _npy(rows),
                    {"Content-Type": NPY, "Accept": NPY},
                    2,
                    many,
                ),
            }
            for what, (path, body, headers, connections, count) in works.items():
                if results.has_time(PART, f"{model}, {what}, over HTTP"):
                    rate = _rate(f"{server.url}{path}", body, headers, connections, seconds)
                    found[model, what] = rate * count
    return found


def _rate(
    url: str, body: bytes, headers: dict[str, str], connections: int, seconds: float
) -> float:
    """Answers a second."""
    load = Load(url, body, headers)
    began = time.monotonic()
    requests = load.closed_loop(connections, seconds)
    load.close()
    answered = [request.done for request in requests if request.status == 200]
    return len(answered) / (max(answered) - began) if answered else 0.0


def _npy(rows: Array) -> bytes:
    file = BytesIO()
    np.save(file, rows)
    return file.getvalue()
