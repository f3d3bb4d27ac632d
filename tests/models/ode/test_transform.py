"""The continuous transform: traces, directions, gradients, independence of rows, reports."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from models.noise import base_log_prob_torch
from models.ode.call import SolveCall, SolveReport, SolveStatus, join_reports
from models.ode.divergence import DivergenceSettings, fresh_probes, is_exact, seeded_probes
from models.ode.fields import ConvDynamics, DenseDynamics, Dynamics
from models.ode.solver import SolverSettings
from models.ode.transform import (
    ContinuousTransform,
    TrainingSettings,
)

TIGHT = SolverSettings(rtol=1e-9, atol=1e-9)


def make_dynamics(
    features: int = 3, hidden: tuple[int, ...] = (8, 8), scale: float = 1.5, **options: object
) -> DenseDynamics:
    torch.manual_seed(0)
    dynamics = DenseDynamics(features, hidden, **options)
    with torch.no_grad():
        for parameter in dynamics.parameters():
            parameter *= scale
    return dynamics


def draw(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def make(dynamics: Dynamics, **options: object) -> ContinuousTransform:
    options = {"solver": TIGHT, **options}
    return ContinuousTransform(dynamics, **options).double().eval()


def linear(rates: list[float], **options: object) -> ContinuousTransform:
    """dx/dt = diag(rates) x, whose solution everybody knows."""
    dynamics = DenseDynamics(len(rates), (), layer_type="ignore")
    with torch.no_grad():
        dynamics.layers[0].linear.weight.copy_(torch.diag(torch.tensor(rates)))
        dynamics.layers[0].linear.bias.zero_()
    return make(dynamics, **options)


@pytest.mark.parametrize(("data_time", "sign"), [("start", 1), ("end", -1)])
def test_time_runs_from_the_data_to_the_latents(data_time: str, sign: int) -> None:
    transform = linear([0.5, -1.0], end_time=0.81, data_time=data_time)
    x = draw(4, 2)
    rates = sign * 0.81 * torch.tensor([0.5, -1.0], dtype=torch.float64)
    z, log_det = transform.encode(x)
    back, back_log_det = transform.decode(z)
    torch.testing.assert_close(z, x * rates.exp(), rtol=1e-7, atol=0)
    torch.testing.assert_close(log_det, rates.sum().expand(4), rtol=1e-7, atol=0)
    torch.testing.assert_close(back, x, rtol=1e-7, atol=0)
    torch.testing.assert_close(back_log_det, -log_det, rtol=1e-7, atol=0)


@pytest.mark.parametrize("precision", [1e-5, 1e-6, 1e-7], ids=str)
def test_error_follows_the_tolerance(precision: float) -> None:
    dynamics = make_dynamics()
    settings = SolverSettings(rtol=precision, atol=precision)
    x = 2 * draw(64, 3)
    with torch.no_grad():
        exact = log_prob(make(dynamics), x)
        error = (log_prob(make(copy.deepcopy(dynamics), solver=settings), x) - exact).abs().max()
    assert 1e-3 * precision < error < 50 * precision


def test_default_tolerance_keeps_the_promise_in_float32() -> None:
    """log_prob within 1e-4 nats of the exact integral."""
    dynamics = make_dynamics(6, (64, 64, 64))
    x = 2 * draw(64, 6)
    served = ContinuousTransform(copy.deepcopy(dynamics)).eval()
    with torch.no_grad():
        exact = log_prob(make(dynamics), x)
        error = (log_prob(served, x.float()).double() - exact).abs().max()
    assert error < 1e-4


def log_prob(transform: ContinuousTransform, x: Tensor, call: SolveCall | None = None) -> Tensor:
    z, log_det = transform.encode(x, call=call)
    return base_log_prob_torch(z) + log_det


def gradients(transform: ContinuousTransform, x: Tensor, context: Tensor) -> list[Tensor]:
    transform.zero_grad()
    inputs = [x.clone().requires_grad_(), context.clone().requires_grad_()]
    z, log_det = transform.encode(*inputs)
    (base_log_prob_torch(z) + log_det).sum().backward()
    found = [*inputs, *transform.parameters()]
    assert all(tensor.grad is not None for tensor in found)
    return [tensor.grad for tensor in found if tensor.grad is not None]


@pytest.mark.parametrize("layer_type", ["concatsquash", "blend"])
def test_three_ways_to_one_gradient(layer_type: str) -> None:
    """The adjoint, back-propagation through torchdiffeq, and through the per-row solver.

    Parameters, end time, data and context; 1e-5 is the contract's bound.
    """
    dynamics = make_dynamics(2, context_features=2, layer_type=layer_type)
    x, context = draw(5, 2), draw(5, 2, seed=2)
    found = {}
    for gradient in ("adjoint", "direct"):
        training = TrainingSettings(gradient, rtol=1e-9, atol=1e-9)
        transform = make(copy.deepcopy(dynamics), learn_end_time=True, training=training)
        found[gradient] = gradients(transform.train(), x, context)
        found["alone"] = gradients(transform.eval(), x, context)
    assert len(found["adjoint"]) == 3 + len(list(dynamics.parameters()))
    for one, other in pairwise(found.values()):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_train_mode_computes_the_same_flow() -> None:
    transform = make(make_dynamics(), training=TrainingSettings(rtol=1e-9, atol=1e-9))
    x = draw(5, 3)
    with torch.no_grad():
        expected = transform.eval().encode(x)
        got = transform.train().encode(x)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_hutchinson_converges_to_the_trace() -> None:
    """The mean over 4,000 probes is within 5 of its own standard errors, which is small."""
    dynamics = make_dynamics()
    x = draw(3, 3)
    _, exact = make(dynamics).encode(x)
    for noise in ("rademacher", "gaussian"):
        settings = DivergenceSettings("hutchinson", num_probes=4000, noise=noise, seed=3)
        estimated = make(copy.deepcopy(dynamics), divergence=settings, solver=SolverSettings())
        call = SolveCall()
        with torch.no_grad():
            _, log_det = estimated.encode(x, call=call)
        error = call.reports[0].log_det_error
        assert (error > 0).all()
        assert (error < 0.05).all()
        assert ((log_det - exact).abs() < 5 * error).all()


def test_hutchinson_standard_error_is_right() -> None:
    """Over 200 seeds the spread of 16-probe estimates is the error each of them reports."""
    dynamics = make_dynamics(scale=1.0)
    x = draw(1, 3)
    values, errors = [], []
    for seed in range(200):
        settings = DivergenceSettings("hutchinson", num_probes=16, noise="gaussian", seed=seed)
        loose = SolverSettings(rtol=1e-3, atol=1e-3)
        transform = make(dynamics, divergence=settings, solver=loose)
        call = SolveCall()
        with torch.no_grad():
            values.append(transform.encode(x, call=call)[1])
        errors.append(call.reports[0].log_det_error)
    spread = torch.cat(values).std()
    typical = torch.cat(errors).square().mean().sqrt()
    assert 0.8 < spread / typical < 1.25


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_rows_answer_alone(trace: str) -> None:
    dynamics = ConvDynamics((1, 4, 4), (3,))
    transform = make(dynamics, divergence=DivergenceSettings(trace, num_probes=3))
    x = draw(5, 1, 4, 4)
    with torch.no_grad():
        z, log_det = transform.encode(x)
        again, same = transform.encode(x)
        assert torch.equal(z, again)
        assert torch.equal(log_det, same)
        for row in range(5):
            alone, own = transform.encode(x[row : row + 1])
            torch.testing.assert_close(alone, z[row : row + 1], rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(own, log_det[row : row + 1], rtol=1e-9, atol=1e-9)
        back, minus = transform.decode(z)
    torch.testing.assert_close(back, x, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(minus, -log_det, rtol=1e-7, atol=1e-7)


def test_probes_are_stored_and_seeded() -> None:
    def probes(**options: object) -> Tensor:
        settings = DivergenceSettings("hutchinson", num_probes=4, **options)
        stored = make(make_dynamics(), divergence=settings).state_dict()["probes"]
        assert torch.equal(stored, seeded_probes(settings, (3,)).double())
        return stored

    first = probes(seed=7)
    assert torch.equal(first, probes(seed=7))
    assert not torch.equal(first, probes(seed=8))
    assert torch.equal(first.abs(), torch.ones(4, 3).double())
    assert not torch.equal(probes(seed=7, noise="gaussian").abs(), torch.ones(4, 3).double())
    assert "probes" not in make(make_dynamics()).state_dict()


def test_the_rule_that_picks_the_trace() -> None:
    small, large = ConvDynamics((1, 64, 64), (2, 2)), DenseDynamics(2000, ())
    assert is_exact("auto", small)
    assert not is_exact("auto", large)
    assert is_exact("exact", large)
    assert not is_exact("hutchinson", small)
    assert ContinuousTransform(large).probes is not None
    assert ContinuousTransform(small).probes is None


@pytest.mark.parametrize(("features", "exact"), [(1024, True), (1025, False)])
def test_the_trace_is_exact_up_to_1024_probes(features: int, exact: bool) -> None:
    assert is_exact("auto", DenseDynamics(features, ())) is exact


def test_fresh_probes_are_what_was_asked_for() -> None:
    like = torch.zeros(50, 3, dtype=torch.float64)
    signs = fresh_probes(DivergenceSettings(noise="rademacher"), like)
    normal = fresh_probes(DivergenceSettings(noise="gaussian"), like)
    assert signs.shape == normal.shape == (50, 1, 3)
    assert torch.equal(signs.abs(), torch.ones_like(signs))
    assert len(normal.abs().unique()) == normal.numel()


def test_traces_are_wanted_again_after_an_exception() -> None:
    transform = make(make_dynamics())
    x = draw(2, 3)
    _, expected = transform.encode(x)
    with pytest.raises(RuntimeError):
        transform.encode(draw(2, 4), call=SolveCall(wants_log_det=False))
    assert torch.equal(transform.encode(x)[1], expected)


@pytest.mark.parametrize("blocks", [2, 4])
@torch.no_grad()
def test_alike_blocks_share_probes_and_their_error_covers(blocks: int) -> None:
    """The rms of the true error over 60 seeds is 1.0 to 1.1 of what is stated.

    Errors of blocks added as if independent would be 1.4 to 1.9 times too small.
    """
    rows = 2 * draw(8, 3)
    torch.manual_seed(0)
    fields = [make_dynamics(3, (8,), scale=1.2)]
    for _ in range(blocks - 1):  # weights perturbed: alike, as those of a trained flow
        field = copy.deepcopy(fields[0])
        for parameter in field.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        fields.append(field)
    loose = SolverSettings(1e-3, 1e-3)

    def run(divergence: DivergenceSettings) -> tuple[Tensor, SolveReport]:
        value, total = rows, torch.zeros(8).double()
        call = SolveCall()
        for field in fields:
            transform = make(field, divergence=divergence, solver=loose)
            value, log_det = transform.encode(value, call=call)
            total = total + log_det
        report = join_reports(call.reports)
        assert report is not None
        return total, report

    truth, exact = run(DivergenceSettings("exact"))
    assert not exact.log_det_error.any()
    squares = []
    for seed in range(60):
        total, report = run(DivergenceSettings("hutchinson", num_probes=16, seed=seed))
        squares.append(((total - truth) / report.log_det_error).square())
    # A t-distributed ratio with 15 degrees of freedom has rms 1.07.
    assert 0.9 < float(torch.stack(squares).mean().sqrt()) < 1.2


def test_training_estimates_are_fresh_and_unbiased() -> None:
    settings = DivergenceSettings(training="hutchinson", noise="gaussian")
    transform = make(make_dynamics(scale=1.0), divergence=settings)
    x = draw(1, 3)
    with torch.no_grad():
        _, exact = transform.encode(x)
        _, estimates = transform.train().encode(x.expand(4000, 3))
    assert estimates.std() > 1e-3
    standard_error = float(estimates.std()) / math.sqrt(4000)
    assert abs(float(estimates.mean() - exact)) < 5 * standard_error


def test_failed_rows_are_reported() -> None:
    transform = make(make_dynamics(), solver=SolverSettings(max_evaluations=100))
    x = draw(4, 3)
    x[1] = torch.nan
    with torch.no_grad():
        harmless, _ = transform.encode(x[[0, 2, 3]])
        call = SolveCall()
        z, log_det = transform.encode(x, call=call)
    report = call.reports[0]
    assert report.status.tolist() == [0, SolveStatus.NON_FINITE, 0, 0]
    assert (report.evaluations[[0, 2, 3]] > 1).all()
    assert report.log_det_error[[0, 2, 3]].tolist() == [0, 0, 0]
    assert z[1].isnan().all()
    assert log_det[1].isnan()
    torch.testing.assert_close(z[[0, 2, 3]], harmless, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("spoil", ["stiff", "nan", "huge input"])
def test_hostile_dynamics_neither_raise_nor_hang(spoil: str) -> None:
    dynamics = make_dynamics(2, nonlinearity="softplus", scale=100.0 if spoil == "stiff" else 1.0)
    if spoil == "nan":
        with torch.no_grad():
            dynamics.layers[0].linear.weight[0, 0] = torch.nan
    settings = SolverSettings(max_evaluations=1000)
    transform = ContinuousTransform(dynamics, solver=settings).eval()
    x = torch.full((2, 2), 1e30 if spoil == "huge input" else 1.0)
    call = SolveCall()
    with torch.no_grad():
        z, _ = transform.encode(x, call=call)
    failed = call.reports[0].status != SolveStatus.SOLVED
    assert torch.equal(z.isnan().any(1), failed)
    assert (call.reports[0].evaluations <= 1000).all()
    if spoil == "nan":
        assert failed.all()


def test_reports_are_collected_only_by_the_call_they_are_of() -> None:
    transform = make(make_dynamics())
    x = draw(2, 3)
    one, two = SolveCall(), SolveCall()
    with torch.no_grad():
        transform.encode(x, call=one)
        transform.encode(x, call=two)
        transform.encode(x, call=two)
        transform.encode(x)
    assert (len(one.reports), len(two.reports)) == (1, 2)


def test_many_rows_are_solved_in_chunks() -> None:
    """The tangents of 3,000 rows are too many for one loop; the answers are the same."""
    transform = ContinuousTransform(make_dynamics(2, (64, 64, 64))).eval()
    x = draw(3000, 2).float()
    call = SolveCall()
    with torch.inference_mode():
        z, log_det = transform.encode(x, call=call)
        few, few_log_det = transform.encode(x[2500:2503])
    assert call.reports[0].status.shape == (3000,)
    torch.testing.assert_close(z[2500:2503], few, rtol=0, atol=1e-5)
    torch.testing.assert_close(log_det[2500:2503], few_log_det, rtol=0, atol=1e-5)


def test_end_time_must_be_positive() -> None:
    with pytest.raises(ValueError, match="end_time: expected a positive number, got 0"):
        ContinuousTransform(make_dynamics(), end_time=0.0)


@pytest.mark.parametrize("evaluation", ["exact", "hutchinson"])
@torch.no_grad()
def test_values_can_be_had_without_their_traces(
    evaluation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    transform = make(make_dynamics(), divergence=DivergenceSettings(evaluation))
    z = draw(5, 3)
    x, _ = transform.decode(z)

    def forbidden(*_: object) -> None:
        raise AssertionError("a trace was computed")

    for name in ("velocity_and_trace", "velocity_and_forms"):
        monkeypatch.setattr(transform.dynamics, name, forbidden)
    call = SolveCall(wants_log_det=False)
    alone, log_det = transform.decode(z, call=call)
    torch.testing.assert_close(alone, x, rtol=1e-7, atol=1e-7)
    assert log_det.isnan().all()
    assert call.reports[0].status.tolist() == [SolveStatus.SOLVED] * 5
