"""Continuous flows: the solution of an ordinary differential equation as an invertible map."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from models.ode.call import SolveCall, SolveReport, standard_error
from models.ode.divergence import (
    DivergenceSettings,
    fresh_probes,
    is_exact,
    seeded_probes,
    velocity_and_traces,
)
from models.ode.fields.dynamics import Dynamics
from models.ode.fixed_batch import FixedSolve
from models.ode.regularization import CostWeights, cost_rate
from models.ode.solver import Field, Solution, SolverSettings, solve
from models.ode.steps import StepRules
from models.ode.while_loop import keeps_places, repeat_while_any
from models.transforms.transform import SolvingTransform

DataTime = Literal["start", "end"]
Gradient = Literal["adjoint", "direct"]


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How the equation is solved while training: by torchdiffeq, one step for the whole batch.

    gradient: "adjoint" solves a second equation backwards (memory does not grow with the steps),
        "direct" back-propagates through the steps.
    rtol, atol: of the solve and of its adjoint.
    kinetic, jacobian: weights of what a path costs beside its likelihood; see `CostWeights`.
    """

    gradient: Gradient = "adjoint"
    rtol: float = 1e-5
    atol: float = 1e-5
    kinetic: float = 0.0
    jacobian: float = 0.0

    @property
    def costs(self) -> CostWeights:
        """What a path costs."""
        return CostWeights(self.kinetic, self.jacobian)


# Tangents of the rows solved in one loop: about a megabyte stays in a core's cache; on a GPU a
# quarter of a gigabyte keeps it busy and leaves room for others.
_CPU_NUMBERS = 2**18
_GPU_NUMBERS = 2**26


class ODETransform(SolvingTransform):
    """The flow of an ordinary differential equation over a time [0, T].

    Attributes:
        data_time: where on the time axis the data are; the latents are at the other end.
    """

    # Steps are chosen from values that differ in the last bits from machine to machine.
    reproduces_to = 1e-6

    data_time: DataTime

    @property
    def counts_evaluations(self) -> bool:
        return True

    def encode(
        self, x: Tensor, context: Tensor | None = None, *, call: SolveCall | None = None
    ) -> tuple[Tensor, Tensor]:
        return self._integrate(x, context, call, towards_end=self.data_time == "start")

    def decode(
        self, y: Tensor, context: Tensor | None = None, *, call: SolveCall | None = None
    ) -> tuple[Tensor, Tensor]:
        return self._integrate(y, context, call, towards_end=self.data_time == "end")

    @abstractmethod
    def _integrate(
        self, value: Tensor, context: Tensor | None, call: SolveCall | None, *, towards_end: bool
    ) -> tuple[Tensor, Tensor]:
        """Solve from the start to the end, or back; the value there and the log-det."""


class ContinuousTransform(ODETransform):
    """y = x + integral of f(t, x(t)) dt, log_det = integral of tr df/dx dt.

    The time runs over [0, T], from the data to the latents (FFJORD, zuko) or, with data_time="end",
    from the latents to the data (flow matching); decode runs it the other way.

    Outside training every row is solved alone by `models.ode.solver`, so its answer does not
    depend on its neighbours. A row that cannot be solved is NaN; `SolveCall.reports` says why.

    Args:
        dynamics: f.
        end_time: T.
        learn_end_time: whether sqrt(T) is a parameter.
        data_time: where on the time axis the data are.
        solver: tolerances outside training.
        divergence: how the trace is had.
        training: how the equation is solved in train mode.

    Reference: Chen et al. 2018, Neural ODEs, theorem 1 (arXiv 1806.07366); Grathwohl et al. 2019,
    FFJORD (arXiv 1810.01367).

    **Cost**: encode and decode are the same work, tens to hundreds of evaluations of f.
    """

    probes: Tensor | None

    def __init__(
        self,
        dynamics: Dynamics,
        *,
        end_time: float = 1.0,
        learn_end_time: bool = False,
        data_time: DataTime = "start",
        solver: SolverSettings | None = None,
        divergence: DivergenceSettings | None = None,
        training: TrainingSettings | None = None,
    ) -> None:
        super().__init__()
        if not end_time > 0:
            raise ValueError(f"end_time: expected a positive number, got {end_time}")
        self.dynamics = dynamics
        self.data_time = data_time
        self.solver = solver or SolverSettings()
        self._rules = StepRules(self.solver.rtol, self.solver.atol)
        self.divergence = divergence or DivergenceSettings()
        self.training_settings = training or TrainingSettings()
        root = torch.tensor(end_time).sqrt()
        if learn_end_time:
            self.sqrt_end_time = nn.Parameter(root)
        else:
            self.register_buffer("sqrt_end_time", root)
        exact = is_exact(self.divergence.evaluation, dynamics)
        probes = None if exact else seeded_probes(self.divergence, dynamics.event_shape)
        self.register_buffer("probes", probes)

    @property
    def time_span(self) -> float:
        """T."""
        return float(self.sqrt_end_time.detach().square())

    def decode_part(
        self, y: Tensor, context: Tensor | None, *, share: float, call: SolveCall | None = None
    ) -> Tensor:
        """Follow the way from the latents for a share of the time, 0 to 1."""
        end = self.sqrt_end_time.square().to(y.dtype)
        if self.data_time == "end":
            interval = torch.stack([torch.zeros_like(end), end * share])
        else:
            interval = torch.stack([end, end * (1 - share)])
        return self._follow(y, context, call, interval)[0]

    def _integrate(
        self, value: Tensor, context: Tensor | None, call: SolveCall | None, *, towards_end: bool
    ) -> tuple[Tensor, Tensor]:
        end = self.sqrt_end_time.square()
        interval = torch.stack([torch.zeros_like(end), end]).to(value.dtype)
        if not towards_end:
            interval = interval.flip(0)
        return self._follow(value, context, call, interval)

    def _follow(
        self, value: Tensor, context: Tensor | None, call: SolveCall | None, interval: Tensor
    ) -> tuple[Tensor, Tensor]:
        run = self._solve_together if self.training else self._solve_alone
        value, traces = run(value, context, interval, call or SolveCall())
        return value, traces[:, 0] if traces.shape[1] == 1 else traces.mean(1)

    def _solve_alone(
        self, value: Tensor, context: Tensor | None, interval: Tensor, call: SolveCall
    ) -> tuple[Tensor, Tensor]:
        """Solve row by row: value (B, *shape) -> (B, *shape), log-dets (B, K)."""
        shape = value.shape[1:]
        features = shape.numel()
        traced = call.wants_log_det
        estimates = (1 if self.probes is None else len(self.probes)) if traced else 0

        def field(t: Tensor, state: Tensor, context: Tensor | None) -> Tensor:
            x = state[:, :features].reshape(-1, *shape)
            if not traced:
                return self.dynamics.velocity(t, x, context).flatten(1)
            dx, traces = velocity_and_traces(self.dynamics, self.probes, t, x, context)
            return torch.cat([dx.flatten(1), traces], 1)

        start, end = interval.unbind()
        state = torch.cat([value.flatten(1), value.new_zeros(len(value), estimates)], 1)
        rows = self._rows_at_once(state.device, traced=traced)
        chunks = state.split(rows)
        contexts = [None] * len(chunks) if context is None else context.split(rows)
        # Keeping a solve differentiable takes a tenth of its time, in `no_grad` too. What is
        # recorded or captured takes none, and inference mode does not take operations apart.
        # To leave inference mode would turn gradients on.
        in_place, has_grad = keeps_places(), torch.is_grad_enabled()
        with (
            torch.inference_mode(mode=not (has_grad or in_place)),
            torch.set_grad_enabled(has_grad),
        ):
            if in_place:
                solutions = [self._solve_in_place(field, state, context, interval)]
            else:
                solutions = [
                    solve(field, chunk, part, start=start, end=end, settings=self.solver)
                    for chunk, part in zip(chunks, contexts, strict=True)
                ]
        solved = torch.cat([solution.state for solution in solutions])
        traces = solved[:, features:] if traced else solved.new_full((len(solved), 1), torch.nan)
        estimated = traced and self.probes is not None
        call.reports.append(_report(solutions, traces if estimated else None))
        return solved[:, :features].reshape(value.shape), traces

    def _solve_in_place(
        self, field: Field, state: Tensor, context: Tensor | None, interval: Tensor
    ) -> Solution:
        """As `models.ode.solver.solve`, with every row in its place to the end."""
        fixed = FixedSolve(field, self._rules.of(state), self.solver.max_evaluations)
        ended = repeat_while_any(fixed.body, *fixed.start(state, context, interval))
        return Solution(*fixed.finish(ended))

    def _rows_at_once(self, device: torch.device, *, traced: bool) -> int:
        """How many rows to solve in one loop, so that their tangents fit where they are fast."""
        tangents = 1
        if traced:
            tangents = self.dynamics.num_exact_probes if self.probes is None else len(self.probes)
        room = _CPU_NUMBERS if device.type == "cpu" else _GPU_NUMBERS
        return max(1, room // (tangents * self.dynamics.width))

    def _solve_together(
        self, value: Tensor, context: Tensor | None, interval: Tensor, call: SolveCall
    ) -> tuple[Tensor, Tensor]:
        """Solve the batch as one system: value (B, *shape) -> (B, *shape), log-dets (B, 1)."""
        exact = is_exact(self.divergence.training, self.dynamics)
        probes = None if exact else fresh_probes(self.divergence, value)
        settings = self.training_settings
        weights = settings.costs
        # Rademacher, the least variance: the Jacobian's norm is always an estimate.
        probe = fresh_probes(DivergenceSettings(), value)[:, 0] if weights.jacobian else None

        def field(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            times = t.expand(len(value), 1)
            x = state[0]
            dx, traces = velocity_and_traces(self.dynamics, probes, times, x, context)
            if not weights:
                return dx, traces
            return dx, traces, cost_rate(weights, self.dynamics, (times, x, dx, context), probe)

        state = (value, *[value.new_zeros(len(value), 1)] * (2 if weights else 1))
        options = {"rtol": settings.rtol, "atol": settings.atol, "method": "dopri5"}
        # Here, since it imports scipy, which no server needs: 40 MB, and memory a thread of its own
        # linear algebra, which it asks for again and again where it is limited.
        from torchdiffeq import odeint, odeint_adjoint

        if settings.gradient == "adjoint":
            inputs: list[Tensor] = [p for p in self.dynamics.parameters() if p.requires_grad]
            if context is not None and context.requires_grad:
                inputs.append(context)
            path = odeint_adjoint(field, state, interval, adjoint_params=tuple(inputs), **options)
        else:
            path = odeint(field, state, interval, **options)
        if weights:
            # A rate is never negative; its integral is where the time runs backwards.
            call.costs.append(path[2][-1].squeeze(1).abs())
        return path[0][-1], path[1][-1]


def is_continuous(module: nn.Module) -> bool:
    """Whether any part of it solves an equation."""
    return any(isinstance(part, ODETransform) for part in module.modules())


def _report(solutions: list[Solution], estimates: Tensor | None) -> SolveReport:
    like = torch.cat([solution.state[:, 0] for solution in solutions]).detach()
    return SolveReport(
        status=torch.cat([solution.status for solution in solutions]),
        evaluations=torch.cat([solution.evaluations for solution in solutions]),
        log_det_error=standard_error(estimates, like=like),
        estimates=estimates,
    )
