"""Vector fields dx/dt = f(t, x, context) of continuous flows, with their derivatives."""

from models.dynamics.conv import ConvDynamics
from models.dynamics.dense import DenseDynamics
from models.dynamics.dynamics import Dynamics

__all__ = ["ConvDynamics", "DenseDynamics", "Dynamics"]
