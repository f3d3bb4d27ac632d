"""What a peer reads and writes, without torch, and what it was asked to be.

FLOW_FOLDER is the model's folder, FLOW_CALL is log_prob or sample, FLOW_FORMAT is json or npy,
FLOW_BATCH is how many requests go into one call at most, FLOW_ENGINE is torch or graph.
"""

import io
import os
from typing import Any, Protocol

import numpy as np
import orjson

CALL = os.environ.get("FLOW_CALL", "log_prob")
FORMAT = os.environ.get("FLOW_FORMAT", "json")
MEDIA_TYPE = "application/json" if FORMAT == "json" else "application/x-npy"
ENGINE = os.environ.get("FLOW_ENGINE", "torch")
MAX_BATCH = int(os.environ.get("FLOW_BATCH", "64"))
PORT = int(os.environ.get("PORT", "8000"))


class Computes(Protocol):
    """A model that answers requests together."""

    def run(self, requests: list[Any]) -> list[dict[str, Any]]:
        """Answer requests (arrays of rows, or how many samples) in one batch."""


def open_model() -> Computes:
    """The flow in torch, or the graphs that `pushforward export` wrote beside it."""
    # Who computes with one of them does not pay for the other: torch alone takes 200 MB.
    if ENGINE == "graph":
        from benchmarks.peers.graph import Graph

        return Graph()
    from benchmarks.peers.flow import Served

    return Served()


def parse(body: bytes) -> Any:
    """Read a request's body."""
    if CALL == "sample":
        return orjson.loads(body)["num_samples"]
    if FORMAT == "npy":
        return np.load(io.BytesIO(body), allow_pickle=False)
    return from_json(orjson.loads(body))


def from_json(request: dict[str, Any]) -> Any:
    """Read a request that was JSON."""
    if CALL == "sample":
        return request["num_samples"]
    return np.asarray(request["x"], np.float32)


def render(answer: dict[str, Any]) -> bytes:
    """Write an answer's body."""
    if FORMAT == "npy":
        out = io.BytesIO()
        np.save(out, next(iter(answer.values())))
        return out.getvalue()
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
