"""What the models cost by default: rows a second of the four operations, memory, start."""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from benchmarks.images.caller import Caller
from benchmarks.process import serving, tree_bytes
from models.checkpoints.folder import read_manifest
from models.datasets import Dataset

Array: TypeAlias = NDArray[Any]

OPERATIONS = ("log_prob", "encode", "sample", "decode")
# Of a request, one way and back.
ROWS = {"log_prob": 64, "encode": 64, "sample": 16, "decode": 16}
# A pair of model and operation has its turns until it has taken so long, but two at least.
SECONDS_A_PAIR = 4.0


class Rate(TypedDict):
    """One operation of one model: medians over the rounds, and the passes that rows took."""

    model: str
    operation: str
    rows: int
    rounds: int
    rows_a_second: float
    one_row_ms: float
    passes: tuple[float, float] | None


class Footprint(TypedDict):
    """One model served alone."""

    model: str
    megabytes_on_disk: float
    seconds_to_ready: float
    ready_mib: float
    used_mib: float


class Requests:
    """The requests of a benchmark to one server.

    Args:
        url: of the server.
        images: what is scored, encoded, and decoded again.
    """

    def __init__(self, url: str, images: Dataset) -> None:
        self._caller = Caller(url)
        self._images = images
        self._latents: dict[str, Array] = {}

    def send(self, model: str, operation: str, rows: int, **query: Any) -> dict[str, Array]:
        """Send one and read its answer."""
        part = self._images.take(np.arange(rows))
        arrays = dict(self._caller.context(model, part))
        if operation == "sample":
            query |= {"num_samples": rows, "seed": 0}
        elif operation == "decode":
            arrays["z"] = self._latents_of(model)[:rows]
        else:
            arrays["x"] = part.x.astype(np.float32)
        return self._caller.call(operation, model, arrays, **query)

    def seconds(self, model: str, operation: str, rows: int) -> float:
        """How long one request takes; what it decodes was encoded before."""
        if operation == "decode":
            self._latents_of(model)
        started = time.perf_counter()
        self.send(model, operation, rows)
        return time.perf_counter() - started

    def _latents_of(self, model: str) -> Array:
        if model not in self._latents:
            self._latents[model] = self.send(model, "encode", ROWS["decode"])["z"]
        return self._latents[model]


def rates(folders: Mapping[str, Path], images: Dataset, rounds: int) -> list[Rate]:
    """Serve all models by default, and let them take turns.

    Args:
        folders: of the models by name.
        images: rows to send.
        rounds: turns of each operation of each model, as far as they are short.
    """
    pairs = [(model, operation) for operation in OPERATIONS for model in folders]
    many: dict[tuple[str, str], list[float]] = {pair: [] for pair in pairs}
    one: dict[tuple[str, str], list[float]] = {pair: [] for pair in pairs}
    passes: dict[tuple[str, str], tuple[float, float] | None] = {}
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log"
        with serving(log, *map(str, folders.values()), "--log-level", "warning") as server:
            requests = Requests(server.url, images)
            for model, operation in pairs:
                asked = {"return_evaluations": "true"} if _counts(folders[model]) else {}
                answer = requests.send(model, operation, ROWS[operation], **asked)
                passes[model, operation] = _passes(answer)
            for _ in range(rounds):
                for pair in pairs:
                    model, operation = pair
                    if len(many[pair]) >= 2 and sum(many[pair] + one[pair]) > SECONDS_A_PAIR:
                        continue
                    many[pair].append(requests.seconds(model, operation, ROWS[operation]))
                    one[pair].append(requests.seconds(model, operation, 1))
    return [
        Rate(
            model=model,
            operation=operation,
            rows=ROWS[operation],
            rounds=len(many[model, operation]),
            rows_a_second=ROWS[operation] / median(many[model, operation]),
            one_row_ms=1e3 * median(one[model, operation]),
            passes=passes[model, operation],
        )
        for model, operation in pairs
    ]


def footprints(folders: Mapping[str, Path], images: Dataset, runs: int) -> list[Footprint]:
    """Start a server with each model alone, in turns; memory before requests and after some."""
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in folders}
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(runs):
            for name, folder in folders.items():
                log = Path(scratch) / "log"
                with serving(log, str(folder), "--log-level", "warning") as server:
                    ready = tree_bytes(server.process.pid)
                    requests = Requests(server.url, images)
                    for operation in OPERATIONS:
                        requests.send(name, operation, 1)
                    used = tree_bytes(server.process.pid)
                    found[name].append((server.seconds_to_ready, ready, used))
    return [_footprint(name, folders[name], found[name]) for name in folders]


def _footprint(name: str, folder: Path, runs: list[tuple[float, float, float]]) -> Footprint:
    seconds, ready, used = (median(values) for values in zip(*runs, strict=True))
    return Footprint(
        model=name,
        megabytes_on_disk=sum(path.stat().st_size for path in folder.iterdir()) / 2**20,
        seconds_to_ready=seconds,
        ready_mib=ready / 2**20,
        used_mib=used / 2**20,
    )


def _counts(folder: Path) -> bool:
    """Whether a model tells how many passes its rows took."""
    return read_manifest(folder).config.get("decoding") in ("jacobi", "passes")


def _passes(answer: Mapping[str, Array]) -> tuple[float, float] | None:
    """The least and the most passes that a row took; None where nothing counts them."""
    counted = answer.get("evaluations")
    if counted is None:
        return None
    return float(np.min(counted)), float(np.max(counted))
