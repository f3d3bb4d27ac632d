"""What the cores can do with a graph and no server before it, and with a matrix product alone."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.workloads import Workload, rows_of
from models.onnx.runtime import open_session

BATCHES = (1, 16, 64, 256, 1000)
TRIES = 3
# Large enough that its panels are read from memory, small enough for a turn of a tenth of a second.
MATRIX = 2048


class GraphAlone:
    """The graph of a workload in this process, one onnxruntime thread in each of some threads.

    batch: rows a call, the best of those that one core was tried with.
    """

    def __init__(self, folder: Path, work: Workload, threads: int, models: int = 1) -> None:
        name = "decode.onnx" if work.call == "sample" else "encode.onnx"
        self._session = open_session(str(folder / name))
        self._outputs = ["x", "log_det"] if work.call == "sample" else ["log_prob"]
        self._input = self._session.get_inputs()[0].name
        # More than all connections send a model cannot be in a batch.
        most = max(1, work.rows * max(work.concurrencies) // models)
        asked = (*BATCHES, work.rows, min(most, max(BATCHES)))
        sizes = {size for size in asked if min(work.rows, 256) <= size <= most}
        rows = rows_of(work.flow, max(sizes))
        self._rows = rows.reshape(len(rows), -1) if work.call == "sample" else rows
        self._threads, self._work = threads, work
        tried: dict[int, list[float]] = {size: [] for size in sorted(sizes)}
        for _ in range(TRIES):
            for size, rates in tried.items():
                rates.append(self._rate(size, 1, 0.2))
        self.batch = max(tried, key=lambda size: median(tried[size]))

    def rate(self, seconds: float) -> float:
        """Requests a second that so many rows make."""
        return self._rate(self.batch, self._threads, seconds) / self._work.rows

    def _rate(self, batch: int, threads: int, seconds: float) -> float:
        x = self._rows[:batch]

        def compute(end: float) -> tuple[int, float]:
            self._session.run(self._outputs, {self._input: x})
            calls, started = 0, time.perf_counter()
            while time.perf_counter() < end or not calls:
                self._session.run(self._outputs, {self._input: x})
                calls += 1
            return calls, time.perf_counter() - started

        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(compute, [time.perf_counter() + seconds] * threads))
        return sum(batch * calls / elapsed for calls, elapsed in found)


def matrix_product(seconds: float = 1.0) -> float:
    """GFLOP/s of a large float32 matrix product on all cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        left, right = torch.ones(MATRIX, MATRIX), torch.ones(MATRIX, MATRIX)
        torch.mm(left, right)
        calls, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            torch.mm(left, right)
            calls += 1
        return 2e-9 * MATRIX**3 * calls / (time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)


def multiplications(folder: Path, work: Workload) -> float | None:
    """GFLOP of the matrix products of one request; None where a loop of the graph has them."""
    import onnx

    name = "decode.onnx" if work.call == "sample" else "encode.onnx"
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(folder / name))).graph
    if any(node.op_type == "Loop" for node in graph.node):
        return None
    weights = {one.name: tuple(one.dims) for one in graph.initializer}
    shapes = {
        one.name: tuple(dim.dim_value for dim in one.type.tensor_type.shape.dim)
        for one in graph.value_info
    }
    total = 0.0
    for node in graph.node:
        if node.op_type not in ("MatMul", "Gemm", "Conv"):
            continue
        size = max(np.prod(weights.get(given, (0,))) for given in node.input)
        places = np.prod(shapes[node.output[0]][2:]) if node.op_type == "Conv" else 1
        total += 2e-9 * float(size * places)
    return total * work.rows
