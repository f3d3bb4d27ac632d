"""What families of continuous flows have in common."""

import dataclasses
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from models.families.config import (
    FamilyConfig,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Repeats,
)
from models.families.options import DynamicsNonlinearity
from models.flow import Facts
from models.noise import MAX_SEED
from models.ode.divergence import DivergenceSettings, Noise, Trace
from models.ode.fields.dynamics import Dynamics
from models.ode.solver import SolverSettings
from models.ode.transform import ContinuousTransform, DataTime, Gradient, TrainingSettings
from models.transforms.transform import Transform

# FFJORD's moving batch norm.
BATCH_NORM_EPS = 1e-4

_SOLVER = SolverSettings()
_DIVERGENCE = DivergenceSettings()
_TRAINING = TrainingSettings()

Tolerance = Annotated[float, Field(gt=0, lt=1)]


class SolverConfig(FamilyConfig):
    """How exactly rows are solved outside training.

    See `SolverSettings`.
    """

    rtol: Tolerance = Field(
        _SOLVER.rtol, description="A step's error is at most atol + rtol |y|, in each component."
    )
    atol: Tolerance = Field(_SOLVER.atol, description="The part of it that is absolute.")
    max_evaluations: PositiveInt = Field(
        _SOLVER.max_evaluations, description="Of f, for one row; then the row is given up."
    )


class DivergenceConfig(FamilyConfig):
    """How the trace of df/dx, which makes log_det, is had.

    See `DivergenceSettings`.
    """

    evaluation: Trace = Field(
        _DIVERGENCE.evaluation,
        description="Outside training: exact, Hutchinson's estimate, or auto: exact where cheap.",
    )
    training: Trace = Field(
        _DIVERGENCE.training,
        description="In training, where the estimate takes one probe a row, drawn afresh.",
    )
    num_probes: PositiveInt = Field(
        _DIVERGENCE.num_probes, description="Of the estimate outside training."
    )
    noise: Noise = Field(_DIVERGENCE.noise, description="What the probes are drawn from.")
    seed: int = Field(
        _DIVERGENCE.seed, ge=0, le=MAX_SEED, description="Of the probes outside training."
    )


class TrainingConfig(FamilyConfig):
    """How batches are solved in training.

    See `TrainingSettings`.
    """

    gradient: Gradient = Field(
        _TRAINING.gradient,
        description="adjoint: by a second equation, in little memory; direct: through the steps, "
        "faster for small networks.",
    )
    rtol: Tolerance = Field(_TRAINING.rtol, description="Of the solve and its adjoint, relative.")
    atol: Tolerance = Field(_TRAINING.atol, description="Of the solve and its adjoint, absolute.")
    kinetic: NonNegativeFloat = Field(
        _TRAINING.kinetic,
        description="Weight of the integral of |f|^2 in the loss: short, straight paths.",
    )
    jacobian: NonNegativeFloat = Field(
        _TRAINING.jacobian,
        description="Weight of the integral of |e^T df/dx|^2 in the loss: paths easy to solve.",
    )


class EquationConfig(FamilyConfig):
    """An ordinary differential equation and how it is solved, whatever its right side is."""

    end_time: PositiveFloat = Field(1.0, description="T: an equation is solved over [0, T].")
    learn_end_time: bool = Field(False, description="Train T too; `end_time` is its start.")
    data_time: DataTime = Field(
        "start", description="The data are at time 0 (FFJORD), or at T (flow matching)."
    )
    solver: SolverConfig = Field(
        SolverConfig(), description="How exactly rows are solved outside training."
    )
    divergence: DivergenceConfig = Field(
        DivergenceConfig(), description="How the trace of df/dx is had: exact, or an estimate."
    )
    training: TrainingConfig = Field(
        TrainingConfig(), description="How batches are solved in training."
    )


class ContinuousConfig(EquationConfig):
    """A number of ordinary differential equations, one after the other."""

    num_blocks: Repeats = Field(1, description="How many equations, each with a network f.")
    nonlinearity: DynamicsNonlinearity = "tanh"
    residual: bool = Field(False, description="The network's output minus x is f.")
    batch_norm: bool = Field(
        False, description="Moving batch norms, in the places where FFJORD's code has them."
    )


def build_continuous(config: EquationConfig, dynamics: Dynamics) -> ContinuousTransform:
    """Build one block around its dynamics."""
    return ContinuousTransform(
        dynamics,
        end_time=config.end_time,
        learn_end_time=config.learn_end_time,
        data_time=config.data_time,
        solver=SolverSettings(**config.solver.model_dump()),
        divergence=DivergenceSettings(**config.divergence.model_dump()),
        training=TrainingSettings(**config.training.model_dump()),
    )


def note_trace(
    facts: Facts, divergence: DivergenceConfig, transforms: Iterable[Transform]
) -> Facts:
    """Add to the facts whether log_prob is exact up to the solver, or an estimate."""
    modules = [module for transform in transforms for module in transform.modules()]
    exact = all(m.probes is None for m in modules if isinstance(m, ContinuousTransform))
    trace = "exact" if exact else f"Hutchinson's estimate with {divergence.num_probes} probes"
    return dataclasses.replace(facts, notes={**facts.notes, "trace": trace})
