"""A PixelCNN decoded row by row beside whole passes until nothing changes, by its graphs."""

from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch

from benchmarks.harness import interleave
from models.fold import fold
from models.noise import base_noise
from models.onnx.graphs import build_graphs
from models.onnx.runtime import open_session
from models.registry import build
from pushforward import load

ROWS, ROUNDS = 4, 3


class Decoded(TypedDict):
    """One sample at a time, in milliseconds; passes of `jacobi` of each of ROWS samples.

    differing: pixels of these samples that the two decodings round to other levels.
    """

    features: int
    rows_ms: float
    jacobi_ms: float
    speedup: float
    passes: list[int]
    differing: int


def measure(folder: Path) -> Decoded:
    """Decode by both, in turns."""
    sessions = {decoding: _session(folder, decoding) for decoding in ("jacobi", "sequential")}
    features = load(folder).features
    z = base_noise(ROWS, features, seed=0).astype(np.float32)
    jacobi, found = (_run(sessions[name], z) for name in ("jacobi", "sequential"))
    ratios = interleave(
        {name: partial(_run, one, z[:1]) for name, one in sessions.items()},
        rounds=ROUNDS,
    )
    rows_ms, jacobi_ms = (
        1e3 * float(np.median(ratios.seconds[name])) for name in ("sequential", "jacobi")
    )
    return Decoded(
        features=features,
        rows_ms=rows_ms,
        jacobi_ms=jacobi_ms,
        speedup=ratios.speedup("sequential"),
        passes=[int(count) for count in jacobi["evaluations"]],
        differing=int((np.rint(jacobi["x"]) != np.rint(found["x"])).sum()),
    )


def _session(folder: Path, decoding: str) -> Any:
    """The graph of decode as it would be with another `decoding`."""
    flow = load(folder)
    other = build(flow.family, {**flow.config, "decoding": decoding}).eval()
    other.load_state_dict(flow.state_dict())
    graph = build_graphs(fold(other.double(), dtype=torch.float32), torch.float32).decode
    return open_session(graph.SerializeToString())


def _run(session: Any, z: Any) -> dict[str, Any]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"z": z}), strict=True))
