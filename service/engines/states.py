"""The states between noise and data, by torch: see `models.trajectory`."""

from typing import TYPE_CHECKING

import numpy as np

from service.contracts import Array
from service.engines.flow_on_demand import FlowOnDemand

if TYPE_CHECKING:
    from models.flow import Flow
    from models.trajectory import Trajectory


class FlowStates:
    """States of the rows of one model: of latents, each with how far its way is to be followed.

    Args:
        flow: of the model.
    """

    def __init__(self, flow: FlowOnDemand) -> None:
        self._flow = flow
        self._trajectory: Trajectory | None = None

    @property
    def refusal(self) -> str:
        """Why there are none, as far as is known without reading the model; else empty."""
        return self._flow.refusal("the states of a trajectory")

    def label(self, progress: float) -> str | float:
        """Say what a state is; once one was computed."""
        assert self._trajectory is not None
        return self._trajectory.label(progress)

    def __call__(self, rows: Array, context: Array | None) -> tuple[Array, Array]:
        """Compute the state of each row.

        Args:
            rows: (B, D + 1): z, and the progress from 0, the noise, to 1, the data.
            context: one a row, None for an unconditional model.

        Returns:
            States (B, *event_shape), and zeros (B,).

        Raises:
            FlowUnavailable, EngineOutOfMemory, EngineLost: as `FlowOnDemand.run`.
        """
        return self._flow.run(lambda flow: self._compute(flow, rows, context))

    def _compute(self, flow: "Flow", rows: Array, context: Array | None) -> tuple[Array, Array]:
        import torch

        if self._trajectory is None:
            from models.trajectory import Trajectory

            self._trajectory = Trajectory(flow)
        z = torch.from_numpy(rows[:, :-1]).to(self._flow.device)
        given = None if context is None else torch.from_numpy(context).to(self._flow.device)
        with torch.no_grad():
            states = self._trajectory.states(z, given, rows[:, -1].tolist())
        return states.cpu().numpy(), np.zeros(len(rows), rows.dtype)
