"""Vector fields dx/dt = f(t, x, context) of continuous flows, with their derivatives."""

from models.ode.fields.conv import ConvDynamics
from models.ode.fields.dense import DenseDynamics
from models.ode.fields.dynamics import Dynamics
from models.ode.fields.unet import UNetDynamics, UNetSettings

__all__ = ["ConvDynamics", "DenseDynamics", "Dynamics", "UNetDynamics", "UNetSettings"]
