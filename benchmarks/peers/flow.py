"""What every peer does with a request: decode, one torch call on the batch, encode.

A continuous flow is solved as FFJORD's code does it: D backward passes and one step for all rows.

FLOW_FOLDER is the checkpoint, FLOW_CALL is log_prob or sample, FLOW_FORMAT is json or npy,
FLOW_BATCH is how many requests go into one call at most.
"""

import io
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
import orjson
import torch

import models
from benchmarks import ffjord_references
from benchmarks.ffjord_references import brute_force, dense
from models.ode.transform import is_continuous

CALL = os.environ.get("FLOW_CALL", "log_prob")
FORMAT = os.environ.get("FLOW_FORMAT", "json")
MAX_BATCH = int(os.environ.get("FLOW_BATCH", "64"))
PORT = int(os.environ.get("PORT", "8000"))


class Served:
    """The flow, and a list of requests through it in one batch."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.flow = models.load(os.environ["FLOW_FOLDER"]).eval().requires_grad_(False)
        self.log_prob = self.flow.log_prob
        self.mode: Callable[[], AbstractContextManager[Any]] = torch.inference_mode
        if is_continuous(self.flow):
            self.mode = torch.no_grad  # the trace is had by autograd
            self.log_prob = partial(ffjord_references.log_prob, brute_force(dense(self.flow)))

    def run(self, requests: list[Any]) -> list[dict[str, Any]]:
        """Answer requests (arrays of rows, or how many samples) together."""
        with self.mode():
            if CALL == "sample":
                sizes = [int(count) for count in requests]
                x, log_prob = self.flow.sample(sum(sizes))
                parts = {"x": x, "log_prob": log_prob}
            else:
                sizes = [len(rows) for rows in requests]
                rows = torch.from_numpy(np.concatenate(requests))
                parts = {"log_prob": self.log_prob(rows)}
        split = {k: v.split(sizes) for k, v in parts.items()}
        return [{k: v[i].numpy() for k, v in split.items()} for i in range(len(sizes))]


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
