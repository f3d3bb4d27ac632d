"""The lecture examples this project grew from, reproduced and measured on the zoo's models."""

from pathlib import Path

import torch
from torch import Tensor

from models.checkpoints.folder import load, read_manifest
from models.datasets import load as load_data
from models.flow import Flow
from models.registry import build
from models.training import TrainingReport

_GRADIENT_ROWS = 16
_SOLVER_TOLERANCE = 1e-8
# The pinwheel's arms are narrow: with 160 squares a side the rule itself is off by 2e-4.
_SIDE = 320


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
    """What is reproduced, and its figure, for README.md; only of models that are there."""
    rows = []
    if (zoo / "moons").exists():
        moons = load(zoo / "moons", dtype=torch.float64)
        rows.append(
            (
                f"RealNVP on 2-D data, {moons.config['num_layers']} affine couplings",
                f"{_nats(zoo / 'moons')}; density integrates to "
                f"{density_integral(moons, 6, side=400):.6f}",
            )
        )
    if (zoo / "digits-nice").exists():
        nice = read_manifest(zoo / "digits-nice").config
        rows.append(
            (
                f"NICE on 28 x 28 digits, {nice['num_couplings']} additive couplings",
                _nats(zoo / "digits-nice"),
            )
        )
    if (zoo / "pinwheel").exists():
        pinwheel = load(zoo / "pinwheel", dtype=torch.float64)
        x = torch.from_numpy(load_data("pinwheel").x[:_GRADIENT_ROWS])
        rows += [
            (
                "FFJORD on 2-D data, exact trace",
                f"{_nats(zoo / 'pinwheel')}; density integrates to "
                f"{density_integral(pinwheel, 5.5, _SIDE):.7f}",
            ),
            (
                "FFJORD, gradient by the adjoint against direct back-propagation",
                f"largest difference {adjoint_difference(pinwheel, x):.1e} of the largest entry",
            ),
        ]
    return rows


def _nats(folder: Path) -> str:
    test = TrainingReport.read(folder).test
    bits = "" if test.bits_per_dim is None else f", {test.bits_per_dim:.3f} bits/dim"
    return f"test -log p {test.nats:.3f} ± {test.nats_standard_error:.3f} nats{bits}"
