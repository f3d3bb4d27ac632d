"""Work and precision of continuous flows: error of log_prob against evaluations and tolerance.

Ours, with steps of every row's own, beside torchdiffeq's dopri5 with one step for the batch, chosen
by its default norm and by the worst row, and torchode's, with steps a row by the row's RMS, where
it is installed (`pip install torchode`). The same closed-form trace for all, in float32; errors are
against float64 at 1e-10. Draws docs/continuous.svg.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor

from benchmarks.bench_ffjord import block, exact_log_prob, make_flow, with_tolerance
from benchmarks.ffjord_references import Augmented, closed_form, dense, solve
from models.flow import Flow
from models.noise import base_log_prob_torch
from models.ode.call import SolveCall

FEATURES = (2, 6, 43)
ROWS = 48
TOLERANCES = (1e-4, 1e-5, 3e-6, 1e-6, 3e-7)
PROMISE = 1e-4
OUT = Path("docs/continuous.svg")

# log_prob (B,) and evaluations a row.
Result = tuple[Tensor, float]


def ours(flow: Flow, x: Tensor, tolerance: float) -> Result:
    """Every row on its own steps."""
    call = SolveCall()
    with torch.inference_mode():
        log_prob = with_tolerance(flow, tolerance).log_prob(x, call=call)
    return log_prob, float(call.reports[0].evaluations.double().mean())


def shared(flow: Flow, x: Tensor, tolerance: float, *, by_worst_row: bool) -> Result:
    """torchdiffeq: one step for all rows."""
    count = 0
    field: Augmented = closed_form(dense(flow))

    def counted(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal count
        count += 1
        return field(t, x)

    z, log_det = solve(counted, x, tolerance=tolerance, by_worst_row=by_worst_row)
    return base_log_prob_torch(z) + log_det, float(count)


def torchode(flow: Flow, x: Tensor, tolerance: float) -> Result:
    """torchode: every row on its own steps, judged by the RMS of its components."""
    package = import_module("torchode")
    dynamics, features, rows = dense(flow), x.shape[1], len(x)

    def field(t: Tensor, state: Tensor) -> Tensor:
        dx, trace = dynamics.velocity_and_trace(t[:, None], state[:, :features])
        return torch.cat([dx, trace.reshape(-1, 1)], 1)

    term = package.ODETerm(field)
    control = package.IntegralController(atol=tolerance, rtol=tolerance, term=term)
    solver = package.AutoDiffAdjoint(package.Dopri5(term=term), control)
    problem = package.InitialValueProblem(
        y0=torch.cat([x, x.new_zeros(rows, 1)], 1),
        t_start=torch.zeros(rows),
        t_end=torch.ones(rows),
    )
    with torch.no_grad():
        solution = solver.solve(problem)
    state = solution.ys[:, -1]
    log_prob = base_log_prob_torch(state[:, :features]) + state[:, features]
    # Six evaluations a step, and one at first.
    return log_prob, float(1 + 6 * solution.stats["n_steps"].double().mean())


METHODS: dict[str, Callable[[Flow, Tensor, float], Result]] = {
    "ours, steps a row": ours,
    "torchdiffeq, RMS over the batch": lambda f, x, t: shared(f, x, t, by_worst_row=False),
    "torchdiffeq, worst row": lambda f, x, t: shared(f, x, t, by_worst_row=True),
}
if find_spec("torchode"):
    METHODS["torchode, steps a row"] = torchode


def main() -> None:
    """Measure, print and draw."""
    torch.set_num_threads(1)
    figure, axes = plt.subplots(1, len(FEATURES), figsize=(11, 3.4), sharey=True)
    print("| D | method | tolerance | evaluations a row | largest error | mean error (nats) |")
    print("|---|---|---|---|---|---|")
    for features, axis in zip(FEATURES, axes, strict=True):
        flow = make_flow(features)
        x = 1.3 * torch.randn(ROWS, features, generator=torch.Generator().manual_seed(2))
        exact = exact_log_prob(flow, x)
        for name, method in METHODS.items():
            points = []
            for tolerance in TOLERANCES:
                log_prob, evaluations = method(flow, x, tolerance)
                error = (log_prob.double() - exact).abs()
                points.append((evaluations, float(error.max())))
                print(
                    f"| {features} | {name} | {tolerance:.0e} | {evaluations:.0f} | "
                    f"{error.max():.1e} | {error.mean():.1e} |"
                )
            axis.loglog(*zip(*points, strict=True), "o-", label=name)
        axis.axhline(PROMISE, color="grey", linestyle=":")
        axis.set_title(f"D = {features}")
        axis.set_xlabel("evaluations a row")
    axes[0].set_ylabel("largest error of log_prob (nats)")
    axes[-1].legend(fontsize=8)
    figure.tight_layout()
    # The date would make every run another file.
    figure.savefig(OUT, metadata={"Date": None})
    default = block(make_flow(FEATURES[0])).solver.rtol
    print(f"\nthe default tolerance is {default:.0e}; the promise is {PROMISE:.0e} nats")


if __name__ == "__main__":
    main()
