"""This server against others with the same flow: naive FastAPI, LitServe, BentoML, mosec.

Model A is a RealNVP (D = 8, 8 couplings 128x2), model B a Glow (3x32x32, L3 K8, hidden 128), model
C an FFJORD (D = 2, 64x3), which the others solve as its public code does; weights are seeded and
saved once. Beside the servers stand a bare ASGI echo of the same bodies and
the same engine in this process at its best batch. wrk (one thread) makes the load and shares the
cores with the server. All servers of a workload are up and take turns, and so does the engine
in this process; who has not the turn is stopped, since some of them spin while they wait. Ours has
two turns a round: how much it differs from itself is the noise.

    python -m benchmarks.bench_serving [--quick] [--only "A, one row"]
"""

import argparse
import io
import json
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np

import models
from benchmarks.bench_ffjord import make_flow as make_ffjord
from benchmarks.harness import machine
from benchmarks.onnx_candidates import make_flow
from benchmarks.peers import environment, load
from benchmarks.process import serving
from models.checkpoints.folder import load_checkpoint
from models.ode.transform import is_continuous
from service.engines.autotune import select_engine
from service.engines.selection import EngineConfig

OUT = Path("runs/benchmarks/serving.json")
MLP = {"kind": "mlp", "widths": [128, 128]}
FLOWS: dict[str, tuple[str, dict[str, Any]]] = {
    "A": ("realnvp", {"event_shape": [8], "num_layers": 8, "conditioner": MLP}),
    "B": (
        "glow",
        {"event_shape": [3, 32, 32], "num_levels": 3, "num_steps": 8, "hidden_channels": 128},
    ),
    "C": ("ffjord", {"event_shape": [2]}),
}
TYPES = {"json": "application/json", "npy": "application/x-npy"}
OURS = {
    "ours": ("--engine", "auto"),
    "ours, torch": ("--engine", "torch"),
    "ours, 2 workers": ("--engine", "auto", "--workers", "2"),
}
AGAIN = "ours again"
ALONE = "in process"
LIMITS = (*OURS, AGAIN, "echo", ALONE)


@dataclass(frozen=True, slots=True)
class Workload:
    """One line of the comparison.

    targets: other -> concurrency -> our rate over its. seconds: of a window, several times as long
    as the slowest takes for a full batch. tolerance: within which all answers are the same.
    peer_batch: requests that a peer takes into one.
    """

    name: str
    flow: str
    rows: int
    form: str
    concurrencies: tuple[int, ...]
    targets: dict[str, dict[int, float]]
    call: str = "log_prob"
    seconds: float = 2.0
    tolerance: float = 1e-4
    peer_batch: int = 64


WORKLOADS = (
    Workload(
        "A, one row",
        "A",
        1,
        "json",
        (1, 16, 64, 256),
        {
            "naive": {1: 3.0},
            "LitServe": {16: 6.0, 64: 10.0},
            "mosec": {16: 2.0, 64: 1.2, 256: 1.0},
            "echo": {1: 0.7, 16: 0.7, 64: 0.7, 256: 0.7},
        },
    ),
    *(
        Workload(
            f"A, 1,000 rows, {form}",
            "A",
            1000,
            form,
            (8,),
            {"mosec": {8: peer}, ALONE: {8: own}},
        )
        for form, peer, own in (("json", 1.1, 0.8), ("npy", 1.05, 0.9))
    ),
    *(
        Workload(
            f"B, one image, {form}",
            "B",
            1,
            form,
            (16,),
            {"mosec": {16: 1.4}, ALONE: {16: 0.85}},
        )
        for form in TYPES
    ),
    *(
        Workload(
            f"B, 16 samples, {form}",
            "B",
            16,
            form,
            (16,),
            {"mosec": {16: 1.3}, "LitServe": {16: 1.3}},
            "sample",
            8.0,
            # A peer that took all 16 would leave its second process nothing to do.
            4,
        )
        for form in TYPES
    ),
    # FFJORD's code is up to 3e-4 from the exact integral.
    Workload("C, one row", "C", 1, "json", (32,), {"mosec": {32: 5.0}}, tolerance=1e-3),
)


def candidates(work: Workload) -> list[str]:
    """Who can take this workload."""
    names = [*OURS, "echo", "mosec"]
    if work.form == "json":
        names += ["naive", "LitServe"]
        names += ["BentoML"] if work.call == "log_prob" else []
    return names


def body_of(work: Workload) -> bytes:
    """The request."""
    if work.call == "sample":
        return json.dumps({"num_samples": work.rows}).encode()
    shape = FLOWS[work.flow][1]["event_shape"]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((work.rows, *shape)).astype(np.float32)
    if work.form == "json":
        return json.dumps({"x": x.round(5).tolist()}).encode()
    with tempfile.TemporaryFile() as file:
        np.save(file, x)
        file.seek(0)
        return file.read()


class InProcess:
    """The engine that auto picks, one thread, at its best batch."""

    def __init__(self, folder: Path, call: str) -> None:
        checkpoint = load_checkpoint(folder)
        self._engine = select_engine("auto", EngineConfig(checkpoint, 1, 1024)).engine
        self._event = checkpoint.flow.event_shape
        self._call = call
        self._rows = max((1, 4, 16, 64, 256, 1024), key=lambda rows: self._rate(rows, 0.5))

    def rate(self, seconds: float) -> float:
        """Rows a second."""
        return self._rate(self._rows, seconds)

    def _rate(self, rows: int, seconds: float) -> float:
        x = np.random.default_rng(0).standard_normal((rows, *self._event)).astype(np.float32)
        is_sample, engine = self._call == "sample", self._engine
        run = (
            partial(engine.decode, x.reshape(rows, -1)) if is_sample else partial(engine.encode, x)
        )
        run(None)
        started, calls = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            run(None)
            calls += 1
        return rows * calls / (time.perf_counter() - started)


def agree(form: str, tolerance: float, ours: bytes, theirs: bytes) -> None:
    """Hold two answers to one request together.

    Raises:
        AssertionError: they are not the same numbers.
    """

    def read(answer: bytes) -> Any:
        if form == "npy":
            return np.load(io.BytesIO(answer))
        values = json.loads(answer)
        return np.array(values["log_prob"] if isinstance(values, dict) else values)

    np.testing.assert_allclose(read(theirs), read(ours), rtol=tolerance, atol=tolerance)


def measure(work: Workload, folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Start everybody, take turns, and give the windows of each at each concurrency."""
    scratch = folder.parent
    alone = InProcess(folder, work.call)
    body = scratch / "body"
    body.write_bytes(body_of(work))
    kind = TYPES["json"] if work.call == "sample" else TYPES[work.form]
    accept = TYPES[work.form]
    headers = {"Content-Type": kind, "Accept": accept}
    up: dict[str, tuple[str, int]] = {}
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        for name in candidates(work):
            slug = name.replace(", ", "-")
            log = scratch / f"{slug}.log"
            if name in OURS:
                # Peers write no access log either.
                options = (*OURS[name], "--log-level", "warning")
                own = stack.enter_context(serving(log, str(folder), *options))
                url = f"{own.url}/{work.call}"
                answer = httpx.post(url, content=body.read_bytes(), headers=headers, timeout=60)
                answer.raise_for_status()
                (scratch / "answer").write_bytes(answer.content)
                up[name] = (url, own.process.pid)
                continue
            env = {"FLOW_FOLDER": str(folder), "FLOW_CALL": work.call, "FLOW_FORMAT": work.form}
            env |= {"ECHO_ANSWER": str(scratch / "answer"), "FLOW_BATCH": str(work.peer_batch)}
            try:
                peer = stack.enter_context(
                    environment.running(name, env, (body.read_bytes(), headers), log)
                )
            except RuntimeError as error:
                failed[name] = str(error)[-300:]
                print(f"{work.name}: {name} left out: {str(error)[:1500]}")
                continue
            if work.call == "log_prob" and name != "echo":
                agree(work.form, work.tolerance, (scratch / "answer").read_bytes(), peer.answer)
            up[name] = (peer.url, peer.pid)
        windows: dict[int, dict[str, list[load.Window]]] = {}
        turns = [*up, AGAIN, ALONE]
        for concurrency in work.concurrencies:
            taken: dict[str, list[load.Window]] = {name: [] for name in turns}
            for turn in range(-1, rounds):
                for name in turns[turn:] + turns[:turn]:
                    length = seconds if turn >= 0 else 1.0
                    url, mine = up.get("ours" if name == AGAIN else name, ("", 0))
                    for _, pid in up.values():
                        load.signal_all(pid, signal.SIGCONT if pid == mine else signal.SIGSTOP)
                    if name == ALONE:
                        window = load.Window(alone.rate(length) / work.rows, 0.0, 0.0, 0)
                    else:
                        window = load.closed_loop(url, body, kind, accept, concurrency, length)
                    if turn >= 0:
                        taken[name].append(window)
            windows[concurrency] = taken
        for _, pid in up.values():
            load.signal_all(pid, signal.SIGCONT)
        peaks = {name: load.peak_bytes(pid) for name, (_, pid) in up.items()}
    return {"windows": windows, "peaks": peaks, "failed": failed}


def report(work: Workload, found: dict[str, Any]) -> dict[str, Any]:
    """Print the table of one workload beside its targets."""
    out: dict[str, Any] = {"failed": found["failed"], "at": {}}
    for concurrency, taken in found["windows"].items():
        print(f"\n### {work.name}, concurrency {concurrency}\n")
        print("| server | requests/s | rows/s | p50 ms | p99 ms | errors | peak MiB | ours / it |")
        print("|---|---|---|---|---|---|---|---|")
        rates = {name: [w.rate for w in windows] for name, windows in taken.items()}
        # Each side with its best setting; limits are those of one process.
        best = max((rates["ours"], rates["ours, 2 workers"]), key=median)
        ratio = {
            name: median(
                a / b if b else float("inf")
                for a, b in zip(rates["ours"] if name in LIMITS else best, rate, strict=True)
            )
            for name, rate in rates.items()
        }
        for name, rate in rates.items():
            windows, many = taken[name], median(rate)
            numbers = (median(w.p50 for w in windows), median(w.p99 for w in windows))
            errors = sum(w.errors for w in windows)
            target = work.targets.get(name, {}).get(concurrency)
            verdict = ""
            if target is not None:
                outcome = "met" if ratio[name] >= target else "MISSED"
                verdict = f" (target {target:g}: {outcome if many else 'no answer to compare'})"
            peak = found["peaks"].get(name, 0) / 2**20
            print(
                f"| {name} | {many:,.0f} | {many * work.rows:,.0f} | {numbers[0]:.2f} | "
                f"{numbers[1]:.2f} | {errors} | {peak:.0f} | {ratio[name]:.2f}{verdict} |",
                flush=True,
            )
        pairs = zip(rates["ours"], rates[AGAIN], strict=True)
        noise = median(abs(first / second - 1) for first, second in pairs)
        print(f"\nNoise: ours differs from itself by {100 * noise:.0f} %.", flush=True)
        out["at"][concurrency] = {
            "ratios": ratio,
            "noise": noise,
            "windows": {name: [asdict(w) for w in taken[name]] for name in taken},
        }
    out["peak_bytes"] = found["peaks"]
    return out


def draw(workloads: dict[str, Any], path: Path) -> None:
    """Draw every workload's requests a second as bars, one group a concurrency."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.6 * len(workloads)), layout="constrained")
    for index, (name, found) in enumerate(workloads.items(), 1):
        axes = figure.add_subplot(len(workloads), 1, index)
        for place, one in enumerate(found["at"].values()):
            rates = {who: median(w["rate"] for w in ws) for who, ws in one["windows"].items()}
            for offset, (who, rate) in enumerate(rates.items()):
                label = who if place == 0 else None
                axes.bar(place * 10 + offset, rate, color=f"C{offset}", label=label)
        places = range(0, 10 * len(found["at"]), 10)
        axes.set_xticks([place + 3 for place in places], [f"c = {c}" for c in found["at"]])
        axes.set(title=name, ylabel="requests/s", yscale="log")
        axes.legend(fontsize="x-small", ncols=7)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure and print."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds: no server is left behind
    load.require_wrk()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short window of each")
    parser.add_argument("--only", default="", help="workloads whose names begin so")
    asked = parser.parse_args()
    rounds = 1 if asked.quick else 3
    results: dict[str, Any] = {"workloads": {}}
    if asked.only and OUT.exists():
        results = json.loads(OUT.read_text(encoding="utf-8"))
    results["machine"] = machine()
    with tempfile.TemporaryDirectory() as scratch:
        for name, (family, config) in FLOWS.items():
            flow = make_flow(family, config)
            if is_continuous(flow):
                flow = make_ffjord(*config["event_shape"])
            models.save(flow, Path(scratch) / name)
        for work in WORKLOADS:
            if not work.name.startswith(asked.only):
                continue
            folder = Path(scratch) / work.flow
            found = measure(work, folder, rounds, work.seconds / (2 if asked.quick else 1))
            results["workloads"][work.name] = report(work, found)
            OUT.parent.mkdir(parents=True, exist_ok=True)
            OUT.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    draw(results["workloads"], OUT.with_suffix(".png"))


if __name__ == "__main__":
    main()
