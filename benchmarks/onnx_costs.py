"""What it costs to have a model of the zoo: seconds to export and to load it, and memory.

Each figure of loading and memory is taken in a fresh process, which is this module run as a
command: `python -m benchmarks.onnx_costs ENGINE FOLDER GRAPHS` prints them as JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

ZOO = Path(__file__).resolve().parent.parent / "models" / "zoo"
MODELS = ("moons", "pinwheel", "magic", "digits-nice", "digits-realnvp", "digits-glow")
# "alone" is examples/onnx_only.py: a process that never imports torch.
ENGINES = ("torch", "onnx", "alone")
RUNS = 3
ROWS = 64


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one model: medians over processes, one figure an engine.

    export_seconds: of folding, tracing and certifying both graphs.
    load_seconds: from the folder to an engine that can be called.
    growth: bytes that loading and a batch in both directions add to a process.
    resident: bytes of that whole process.
    """

    model: str
    export_seconds: float
    load_seconds: dict[str, float]
    growth: dict[str, float]
    resident: dict[str, float]

    def row(self) -> str:
        """One line of the table."""
        loads = " | ".join(f"{1e3 * self.load_seconds[engine]:.0f}" for engine in ENGINES)
        growth = " | ".join(f"{self.growth[engine] / 2**20:.0f}" for engine in ENGINES)
        resident = " | ".join(f"{self.resident[engine] / 2**20:.0f}" for engine in ENGINES)
        return f"| {self.model} | {self.export_seconds:.1f} | {loads} | {growth} | {resident} |"


HEADING = (
    "| model | export, s "
    + "".join(f"| load {engine}, ms " for engine in ENGINES)
    + "".join(f"| + {engine}, MiB " for engine in ENGINES)
    + "".join(f"| process {engine}, MiB " for engine in ENGINES)
    + "|\n"
    + "|---" * (2 + 3 * len(ENGINES))
    + "|"
)


def measure(name: str) -> Cost:
    """Export a model, then load it in one process an engine and run."""
    from models.onnx.export import export_folder

    with tempfile.TemporaryDirectory() as scratch:
        began = time.perf_counter()
        made = export_folder(ZOO / name)
        seconds = time.perf_counter() - began
        made.write(scratch)
        found = {
            engine: [_probe(engine, ZOO / name, Path(scratch)) for _ in range(RUNS)]
            for engine in ENGINES
        }
    columns: dict[str, dict[str, float]] = {
        column: {engine: median(run[column] for run in runs) for engine, runs in found.items()}
        for column in ("load_seconds", "growth", "resident")
    }
    return Cost(name, seconds, **columns)


def _probe(engine: str, folder: Path, graphs: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.onnx_costs", engine, str(folder), str(graphs)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    figures: dict[str, float] = json.loads(printed)
    return figures


def _resident() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _torch(folder: Path, graphs: Path) -> Callable[[], Callable[[], object]]:
    import torch

    import models
    from service.engines.torch import TorchEngine

    torch.set_num_threads(1)

    def load() -> Callable[[], object]:
        flow = models.load(folder)
        engine, z = TorchEngine(flow), _noise(flow.features)
        return lambda: engine.encode(engine.decode(z, None)[0], None)

    return load


def _onnx(folder: Path, graphs: Path) -> Callable[[], Callable[[], object]]:
    from models.onnx.load import SerialisedExport
    from service.engines.onnx import OnnxEngine

    def load() -> Callable[[], object]:
        encode, decode = ((graphs / f"{name}.onnx").read_bytes() for name in ("encode", "decode"))
        certificate = json.loads((graphs / "certificate.json").read_text(encoding="utf-8"))
        engine = OnnxEngine(SerialisedExport(encode, decode, None, certificate), "cpu", threads=1)
        z = _noise(_features(folder))
        return lambda: engine.encode(engine.decode(z, None)[0], None)

    return load


def _alone(folder: Path, graphs: Path) -> Callable[[], Callable[[], object]]:
    from examples.onnx_only import ExportedFlow

    def load() -> Callable[[], object]:
        flow = ExportedFlow(graphs)
        return lambda: flow.log_prob(flow.sample(ROWS, seed=0)[0])

    return load


def _features(folder: Path) -> int:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return int(np.prod(config["config"]["event_shape"]))


def _noise(features: int) -> Any:
    return np.random.default_rng(0).standard_normal((ROWS, features)).astype(np.float32)


def main() -> None:
    """Load one model with one engine in this process, run it once, and print what that took."""
    engine, *folders = sys.argv[1:]
    prepare = {"torch": _torch, "onnx": _onnx, "alone": _alone}[engine]
    load = prepare(*map(Path, folders))
    before = _resident()
    began = time.perf_counter()
    run = load()
    seconds = time.perf_counter() - began
    run()
    after = _resident()
    print(json.dumps({"load_seconds": seconds, "growth": after - before, "resident": after}))


if __name__ == "__main__":
    main()
