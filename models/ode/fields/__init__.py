"""Vector fields dx/dt = f(t, x, context) of continuous flows, with their derivatives."""

from models.ode.fields.conv import ConvDynamics
from models.ode.fields.dense import DenseDynamics
from models.ode.fields.dynamics import Dynamics

__all__ = ["ConvDynamics", "DenseDynamics", "Dynamics"]
