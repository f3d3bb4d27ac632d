"""Score rows and draw samples of an exported flow with numpy and onnxruntime alone.

    pushforward export FOLDER --out exported
    pip install numpy onnxruntime
    python onnx_only.py exported --rows rows.npy
    python onnx_only.py exported --samples 16 --seed 7 --out samples.npy

One log-density in nats is printed for each row.
"""

import argparse
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Before the import: builds of onnxruntime send reports of their use to their makers otherwise.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

Array = NDArray[Any]

DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64}


class ExportedFlow:
    """The two graphs in a folder that `pushforward export` wrote.

    Continuous flows also have an output `status`, one number a row: where it is not 0 the row
    could not be solved, and its numbers here are NaN.
    """

    def __init__(self, folder: Path) -> None:
        self._encode = open_graph(folder / "encode.onnx")
        self._decode = open_graph(folder / "decode.onnx")

    def log_prob(self, x: ArrayLike, context: ArrayLike | None = None) -> Array:
        """log p(x) in nats.   x (B, *event_shape) -> (B,)."""
        (log_prob,) = run(self._encode, ["log_prob"], x, context)
        return log_prob

    def sample(
        self, rows: int, seed: int, temperature: float = 1.0, context: ArrayLike | None = None
    ) -> tuple[Array, Array]:
        """Draw rows.   -> x (rows, *event_shape), its log p(x) (rows,).

        The generator is the service's: one seed gives the rows that it gives, up to 256 of them.
        """
        features = self._decode.get_inputs()[0].shape[1]
        generator = np.random.Generator(np.random.Philox(seed))
        z = temperature * generator.standard_normal((rows, features))
        x, log_det = run(self._decode, ["x", "log_det"], z, context)
        base = -0.5 * (np.square(z).sum(1) + features * math.log(2 * math.pi))
        return x, base - log_det


def open_graph(path: Path) -> Any:
    """Open a graph; with one thread a row has the same bits in every batch."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(graph: Any, outputs: list[str], rows: ArrayLike, context: ArrayLike | None) -> list[Array]:
    """Run a graph in the dtype it wants."""
    given = [rows] if context is None else [rows, context]
    feed = {
        wanted.name: np.asarray(array, DTYPES[wanted.type])
        for wanted, array in zip(graph.get_inputs(), given, strict=True)
    }
    found: list[Array] = graph.run(outputs, feed)
    return found


def main() -> None:
    """Score the rows of a file, or draw samples."""
    parser = argparse.ArgumentParser(description="Score rows or draw samples of an exported flow.")
    parser.add_argument("folder", type=Path, help="holds encode.onnx and decode.onnx")
    parser.add_argument("--rows", type=Path, help=".npy file of rows to score")
    parser.add_argument("--context", type=Path, help=".npy file of contexts, one a row")
    parser.add_argument("--samples", type=int, default=4, help="how many to draw without --rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help=".npy file for the samples")
    arguments = parser.parse_args()

    flow = ExportedFlow(arguments.folder)
    context = None if arguments.context is None else np.load(arguments.context)
    if arguments.rows is not None:
        log_prob = flow.log_prob(np.load(arguments.rows), context)
    else:
        x, log_prob = flow.sample(arguments.samples, arguments.seed, context=context)
        if arguments.out is not None:
            np.save(arguments.out, x)
    for value in log_prob:
        print(f"{value:.7g}")


if __name__ == "__main__":
    main()
