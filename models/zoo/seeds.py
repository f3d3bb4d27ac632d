"""The lecture examples this project grew from, reproduced and measured on the zoo's models."""

from pathlib import Path

import torch
from torch import Tensor

from models.checkpoint import load
from models.datasets import load as load_data
from models.flow import Flow
from models.registry import build

_GRADIENT_ROWS = 16
_SOLVER_TOLERANCE = 1e-8


@torch.no_grad()
def density_integral(flow: Flow, half_width: float, side: int) -> float:
    """Integrate a density over the plane with the midpoint rule.

    Args:
        flow: with D = 2; taken in float64.
        half_width: the grid covers [-w, w] x [-w, w], which should hold all the mass.
        side: squares a side.
    """
    step = 2 * half_width / side
    centres = torch.arange(side, dtype=torch.float64) * step + step / 2 - half_width
    points = torch.cartesian_prod(centres, centres)
    flow = flow.double()
    total = sum(float(flow.log_prob(part).exp().sum()) for part in points.split(8192))
    return total * step**2


def adjoint_difference(flow: Flow, x: Tensor) -> float:
    """Compare the gradient by the adjoint equation with back-propagation through the solver.

    Both differentiate the mean log_prob of x with respect to every weight, in float64.

    Returns:
        max |g_adjoint - g_direct| / max |g_direct|.

    Reference: Grathwohl et al. 2019, section 3 (arXiv 1810.01367).
    """
    adjoint, direct = (_gradient(flow, x, method) for method in ("adjoint", "direct"))
    return float((adjoint - direct).abs().max() / direct.abs().max())


def _gradient(flow: Flow, x: Tensor, method: str) -> Tensor:
    training = {"gradient": method, "rtol": _SOLVER_TOLERANCE, "atol": _SOLVER_TOLERANCE}
    twin = build(flow.family, {**flow.config, "training": training})
    twin.load_state_dict(flow.state_dict())
    twin.double().train()
    twin.log_prob(x.double()).mean().backward()
    return torch.cat([w.grad.flatten() for w in twin.parameters() if w.grad is not None])


def seed_table(zoo: Path) -> list[tuple[str, str]]:
    """What is reproduced, and its figure, for README.md."""
    plane = {name: load(zoo / name, dtype=torch.float64) for name in ("moons", "pinwheel")}
    pinwheel = plane["pinwheel"]
    rows = torch.from_numpy(load_data("pinwheel").x[:_GRADIENT_ROWS])
    nice = load(zoo / "digits-nice").config
    return [
        (
            f"RealNVP on two moons with {plane['moons'].config['num_layers']} affine couplings",
            f"density integrates to {density_integral(plane['moons'], 6, 400):.6f}",
        ),
        (
            f"NICE with {nice['num_couplings']} additive couplings on 28 x 28 digits",
            f"x is {tuple(nice['event_shape'])}",
        ),
        (
            "FFJORD: gradient by the adjoint against direct back-propagation",
            f"largest difference {adjoint_difference(pinwheel, rows):.1e} of the largest entry",
        ),
        (
            "FFJORD on a pinwheel, exact trace",
            f"density integrates to {density_integral(pinwheel, 5.5, 96):.6f}",
        ),
    ]
