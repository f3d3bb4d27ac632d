"""The graphs that `pushforward export` wrote, one onnxruntime thread, in a peer's process."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.bodies import CALL
from models.noise import base_log_prob
from models.onnx.runtime import open_session


class Graph:
    """encode or decode, and a list of requests through it in one batch."""

    def __init__(self) -> None:
        name = "decode.onnx" if CALL == "sample" else "encode.onnx"
        self._session = open_session(str(Path(os.environ["FLOW_FOLDER"]) / name))
        (given,) = self._session.get_inputs()
        self._features = given.shape[1]
        self._rng = np.random.default_rng(os.getpid())

    def run(self, requests: list[Any]) -> list[dict[str, Any]]:
        """Answer requests (arrays of rows, or how many samples) together."""
        if CALL == "sample":
            sizes = [int(count) for count in requests]
            z = self._rng.standard_normal((sum(sizes), self._features), dtype=np.float32)
            x, log_det = self._session.run(["x", "log_det"], {"z": z})
            parts = {"x": x, "log_prob": (base_log_prob(z) - log_det).astype(np.float32)}
        else:
            sizes = [len(rows) for rows in requests]
            rows = requests[0] if len(requests) == 1 else np.concatenate(requests)
            (log_prob,) = self._session.run(["log_prob"], {"x": rows})
            parts = {"log_prob": log_prob}
        ends = np.cumsum(sizes)[:-1]
        split = {name: np.split(values, ends) for name, values in parts.items()}
        return [{name: values[i] for name, values in split.items()} for i in range(len(sizes))]
