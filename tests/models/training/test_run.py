"""One step of training: what is clipped, skipped, averaged and left out."""

import numpy as np
import pytest
import torch

from models.datasets import Dataset
from models.flow import Flow
from models.registry import build
from models.training.options import TrainingOptions
from models.training.run import Run
from tests.cases import perturb

RNG = np.random.default_rng(0)


def rows(count: int) -> Dataset:
    return Dataset(name="rows", x=RNG.standard_normal((count, 2)))


def run(**options: object) -> Run:
    torch.manual_seed(0)
    config = {"event_shape": [2], "num_layers": 1, "conditioner": {"kind": "mlp", "widths": [4]}}
    made = Run(perturb(build("maf", config), 0.5), TrainingOptions(**options), {})
    made.initialise(rows(16))
    return made


def weights(flow: Flow) -> torch.Tensor:
    return torch.cat([value.detach().flatten().clone() for value in flow.parameters()])


@pytest.mark.parametrize(("count", "steps"), [(31, 1), (32, 1), (33, 1), (34, 2), (64, 2), (65, 2)])
def test_a_remainder_of_one_row_is_left_out(count: int, steps: int) -> None:
    assert run(batch_rows=32).steps_per_epoch(rows(count)) == steps


@pytest.mark.parametrize("limit", [0.01, 0.5])
def test_gradients_are_clipped(limit: float) -> None:
    made = run(clip_norm=limit)
    made.update(10 * torch.ones(8, 2), None)
    norm = torch.cat([value.grad.flatten() for value in made.flow.parameters()]).norm()
    assert float(norm) == pytest.approx(limit, rel=1e-4)


def test_no_limit_clips_nothing() -> None:
    made, x = run(clip_norm=0), 10 * torch.ones(8, 2)
    made.update(x, None)
    got = torch.cat([value.grad.flatten() for value in made.flow.parameters()])
    fresh = run(clip_norm=0).flow
    (-fresh.log_prob(x).mean() / 2).backward()
    expected = torch.cat([value.grad.flatten() for value in fresh.parameters()])
    assert torch.equal(got, expected)
    assert float(got.norm()) > 1


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_a_gradient_that_is_not_finite_moves_nothing(bad: float) -> None:
    """Also where the loss is finite."""
    made = run(ema_decay=0.9)
    before, average = weights(made.flow), weights(made.ema.flow)
    first = next(made.flow.parameters())
    hook = first.register_hook(lambda gradient: torch.full_like(gradient, bad))
    assert made.update(torch.ones(8, 2), None) is None
    assert torch.equal(weights(made.flow), before)
    assert torch.equal(weights(made.ema.flow), average)
    assert (made.step, made.skipped_in_a_row) == (1, 1)
    hook.remove()
    assert made.update(torch.ones(8, 2), None) is not None
    assert made.skipped_in_a_row == 0
    assert not torch.equal(weights(made.flow), before)


def test_a_loss_that_is_not_finite_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its gradient is finite."""
    made = run()
    before, score = weights(made.flow), made.flow.log_prob
    monkeypatch.setattr(made.flow, "log_prob", lambda *x, **options: score(*x, **options) - np.inf)
    assert made.update(torch.ones(8, 2), None) is None
    assert all(value.grad.isfinite().all() for value in made.flow.parameters())
    assert torch.equal(weights(made.flow), before)


def test_the_ema_counts_steps_from_zero() -> None:
    """The first step weighs 1/10 of the past, the second 2/11, as `EMA` says."""
    made = run(ema_decay=0.999)
    expected = weights(made.ema.flow).double()
    for step in range(3):
        made.update(torch.randn(8, 2), None)
        decay = (1 + step) / (10 + step)
        expected = decay * expected + (1 - decay) * weights(made.flow).double()
        assert torch.allclose(weights(made.ema.flow).double(), expected, rtol=0, atol=1e-6)
