"""Exponential moving average of weights."""

import copy

import torch

from models.flow import Flow


class EMA:
    """w_avg <- d w_avg + (1 - d) w after every step, with d = min(decay, (1 + step) / (10 + step)).

    The smaller d of the first steps forgets where training started (as in TensorFlow's
    `ExponentialMovingAverage`). Running statistics are averaged with the weights they belong to;
    integer buffers are copied.

    Args:
        flow: what is being trained; the average is a copy of it in evaluation mode.
        decay: d, in (0, 1).

    Reference: Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging".
    """

    def __init__(self, flow: Flow, decay: float) -> None:
        self.flow = copy.deepcopy(flow).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, flow: Flow, step: int) -> None:
        """Take the weights of `flow` after step 0, 1, ... into the average."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current = flow.state_dict()
        for key, value in self.flow.state_dict().items():
            if value.is_floating_point():
                value.lerp_(current[key], 1 - decay)
            else:
                value.copy_(current[key])
