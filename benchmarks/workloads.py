"""What the benchmarks of the server send: models with seeded weights, requests, and targets."""

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import models
from benchmarks.bench_ffjord import make_flow as make_ffjord
from benchmarks.onnx_candidates import make_flow
from benchmarks.peers.environment import FLOOR, GRAPH
from models.onnx.export import export_folder

MLP = {"kind": "mlp", "widths": [128, 128]}
FLOWS: dict[str, tuple[str, dict[str, Any]]] = {
    "A": ("realnvp", {"event_shape": [8], "num_layers": 8, "conditioner": MLP}),
    "B": (
        "glow",
        {"event_shape": [3, 32, 32], "num_levels": 3, "num_steps": 8, "hidden_channels": 128},
    ),
    "C": ("ffjord", {"event_shape": [2]}),
}
ZOO = Path(models.__file__).parent / "zoo"
# Of integers, which a flow with dequantisation asks for.
ZOO_SHAPES = {"digits-glow": (1, 28, 28)}
TYPES = {"json": "application/json", "npy": "application/x-npy"}
# Beside the servers: the graph alone, on all cores and on one; the server of another tree.
CEILING, ONE_THREAD, BEFORE, TWO_WORKERS = "ceiling", "one thread", "before", "ours, 2 workers"
Targets = dict[str, dict[int, float]]


@dataclass(frozen=True, slots=True)
class Workload:
    """One line of the comparison.

    targets: other -> concurrency -> the default command's rate over its. seconds: of a window,
    several times as long as the slowest takes for a full batch. tolerance: within which all answers
    are the same. peer_batch: requests that a peer takes into one call; what keeps both its
    processes at work is best.
    """

    name: str
    flow: str
    rows: int
    form: str
    concurrencies: tuple[int, ...]
    targets: Targets = field(default_factory=dict)
    call: str = "log_prob"
    seconds: float = 2.0
    tolerance: float = 1e-4
    peer_batch: int = 64


def _heavy(concurrency: int, ceiling: float, **more: float) -> Targets:
    """Targets of work that computes."""
    found = {CEILING: ceiling, GRAPH: 1.1, TWO_WORKERS: 0.95, **more}
    return {name: {concurrency: ratio} for name, ratio in found.items()}


def _one_row(name: str, concurrencies: tuple[int, ...], peer_batch: int) -> Workload:
    """One row a request. Peers wait for a full batch, so theirs is as large as can be filled."""
    targets = {
        other: dict.fromkeys(concurrencies, ratio)
        for other, ratio in ((FLOOR, 0.7), (BEFORE, 1.3), (GRAPH, 1.1))
    }
    wanted = {
        "naive": {1: 3.0},
        "LitServe": {16: 6.0, 64: 10.0},
        "mosec": {16: 2.0, 64: 1.2, 256: 1.0},
    }
    return Workload(name, "A", 1, "json", concurrencies, targets | wanted, peer_batch=peer_batch)


WORKLOADS = (
    _one_row("A, one row, few at a time", (1, 16), 16),
    *(
        Workload(
            f"A, 1,000 rows, {form}", "A", 1000, form, (8,), _heavy(8, ceiling), peer_batch=2
        )
        for form, ceiling in (("json", 0.75), ("npy", 0.9))
    ),
    *(
        Workload(
            f"B, one image, {form}",
            "B",
            1,
            form,
            (16,),
            _heavy(16, ceiling, mosec=1.4),
            peer_batch=8,
        )
        for form, ceiling in (("json", 0.8), ("npy", 0.85))
    ),
    *(
        Workload(
            f"B, 16 samples, {form}",
            "B",
            16,
            form,
            (4,),
            _heavy(4, 0.92, mosec=1.3, LitServe=1.3),
            "sample",
            8.0,
            peer_batch=1,
        )
        for form in TYPES
    ),
    _one_row("A, one row, many at a time", (64, 256), 64),
    # FFJORD's code is up to 3e-4 from the exact integral.
    Workload(
        "C, one row",
        "C",
        1,
        "json",
        (32,),
        {"mosec": {32: 5.0}, GRAPH: {32: 1.8}},
        tolerance=1e-3,
        peer_batch=16,
    ),
    Workload(
        "digits-glow, 64 images, npy", "digits-glow", 64, "npy", (6,), {ONE_THREAD: {6: 1.5}},
        peer_batch=1,
    ),
)  # fmt: skip


def event_shape(flow: str) -> tuple[int, ...]:
    """The shape of a row."""
    return ZOO_SHAPES[flow] if flow in ZOO_SHAPES else tuple(FLOWS[flow][1]["event_shape"])


def rows_of(flow: str, rows: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Rows of a model, the same every time."""
    rng, shape = np.random.default_rng(0), (rows, *event_shape(flow))
    if flow in ZOO_SHAPES:
        return rng.integers(0, 256, shape).astype(np.float32)
    return rng.standard_normal(shape).astype(np.float32)


def body_of(work: Workload) -> bytes:
    """The request."""
    if work.call == "sample":
        return json.dumps({"num_samples": work.rows}).encode()
    x = rows_of(work.flow, work.rows)
    if work.form == "json":
        return json.dumps({"x": x.round(5).tolist()}).encode()
    with tempfile.TemporaryFile() as file:
        np.save(file, x)
        file.seek(0)
        return file.read()


def headers_of(work: Workload) -> dict[str, str]:
    """What the request and its answer are written in."""
    kind = TYPES["json"] if work.call == "sample" else TYPES[work.form]
    return {"Content-Type": kind, "Accept": TYPES[work.form]}


def write_model(flow: str, scratch: Path) -> Path:
    """Write a model with its graphs, as `pushforward export` does; the zoo's stand written.

    Returns:
        Its folder.
    """
    if flow in ZOO_SHAPES:
        return ZOO / flow
    folder = scratch / flow
    if not folder.exists():
        family, config = FLOWS[flow]
        is_solved = family == "ffjord"
        made = make_ffjord(*config["event_shape"]) if is_solved else make_flow(family, config)
        models.save(made, folder)
        export_folder(folder).write(folder)
    return folder
