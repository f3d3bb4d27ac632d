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
from models.flow import Facts
from models.noise import MAX_SEED
from models.ode.divergence import DivergenceSettings, Noise, Trace
from models.ode.fields.activations import Nonlinearity
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
    """How exactly rows are solved outside training; see `SolverSettings`."""

    rtol: Tolerance = _SOLVER.rtol
    atol: Tolerance = _SOLVER.atol
    max_evaluations: PositiveInt = _SOLVER.max_evaluations


class DivergenceConfig(FamilyConfig):
    """How the trace is had; see `DivergenceSettings`."""

    evaluation: Trace = _DIVERGENCE.evaluation
    training: Trace = _DIVERGENCE.training
    num_probes: PositiveInt = _DIVERGENCE.num_probes
    noise: Noise = _DIVERGENCE.noise
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = _DIVERGENCE.seed


class TrainingConfig(FamilyConfig):
    """How batches are solved in train mode; see `TrainingSettings`."""

    gradient: Gradient = _TRAINING.gradient
    rtol: Tolerance = _TRAINING.rtol
    atol: Tolerance = _TRAINING.atol
    kinetic: NonNegativeFloat = _TRAINING.kinetic
    jacobian: NonNegativeFloat = _TRAINING.jacobian


class ContinuousConfig(FamilyConfig):
    """A number of ordinary differential equations, one after the other.

    Attributes:
        num_blocks: how many, each with dynamics of its own.
        nonlinearity, residual: of the dynamics.
        end_time: T, or where it starts if `learn_end_time`.
        data_time: whether the data are at time 0 (FFJORD) or T (flow matching).
        batch_norm: moving batch norms, in the places where FFJORD's code has them.
    """

    num_blocks: Repeats = 1
    nonlinearity: Nonlinearity = "tanh"
    residual: bool = False
    end_time: PositiveFloat = 1.0
    learn_end_time: bool = False
    data_time: DataTime = "start"
    batch_norm: bool = False
    solver: SolverConfig = SolverConfig()
    divergence: DivergenceConfig = DivergenceConfig()
    training: TrainingConfig = TrainingConfig()


def build_continuous(config: ContinuousConfig, dynamics: Dynamics) -> ContinuousTransform:
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
