"""What every peer with torch does with a request: one call of the flow on the batch.

A continuous flow is solved as FFJORD's code does it: D backward passes and one step for all rows.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
import torch

import models
from benchmarks import ffjord_references
from benchmarks.ffjord_references import brute_force, dense
from benchmarks.peers.bodies import CALL
from models.ode.transform import is_continuous


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
