"""What must hold for every flow, in float64 and with perturbed weights."""

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import models
from models.checkpoints.folder import CheckpointError
from models.checkpoints.golden import Inputs
from models.flow import Flow
from models.noise import base_noise
from models.registry import FAMILIES
from tests.cases import CASES, make_flow, make_inputs

# The promises of the contract, in one table: discrete flows, continuous flows (solver tolerances).
ROUND_TRIP = {False: 1e-9, True: 1e-6}
LOG_DET = {False: 1e-9, True: 1e-6}
NEIGHBOURS = {False: 1e-12, True: 1e-9}
MASS = 1e-3

names = pytest.mark.parametrize("name", sorted(CASES))
planar = pytest.mark.parametrize(
    "name",
    [name for name in sorted(CASES) if CASES[name].features == 2],
)


def rows(flow: Flow, inputs: Inputs, index: Tensor | slice) -> tuple[Tensor, Tensor | None]:
    return inputs.x[index], None if inputs.context is None else inputs.context[index]


def relative(got: Tensor, expected: Tensor) -> float:
    return float(((got - expected).abs() / expected.abs().clamp(min=1)).max().detach())


def test_every_family_has_a_case() -> None:
    assert {case.family for case in CASES.values()} == set(FAMILIES)


@names
def test_shapes_and_values(name: str) -> None:
    flow = make_flow(name)
    inputs = make_inputs(name, flow)
    z, log_det = flow.encode(inputs.x, inputs.context)
    assert z.shape == (5, flow.features)
    assert log_det.shape == (5,)
    x, back = flow.decode(z, inputs.context)
    assert x.shape == inputs.x.shape
    for value in (z, log_det, x, back):
        assert value.dtype == torch.float64
        assert value.isfinite().all()


@names
def test_round_trip_and_log_dets_cancel(name: str) -> None:
    flow = make_flow(name)
    inputs = make_inputs(name, flow)
    bound = ROUND_TRIP[CASES[name].continuous]
    with torch.no_grad():
        z, log_det = flow.encode(inputs.x, inputs.context)
        x, back = flow.decode(z, inputs.context)
        again, _ = flow.encode(x, inputs.context)
    assert relative(x, inputs.x) <= bound
    assert relative(again, z) <= bound
    assert relative(-back, log_det) <= bound


@names
def test_log_det_is_that_of_the_autograd_jacobian(name: str) -> None:
    flow = make_flow(name)
    inputs = make_inputs(name, flow, rows=2)
    bound = max(LOG_DET[CASES[name].continuous], CASES[name].quadrature)
    z = torch.from_numpy(base_noise(2, flow.features, seed=3))
    for function, value in ((flow.encode, inputs.x), (flow.decode, z)):
        _, log_det = function(value, inputs.context)
        # Summed over the rows, of which none sees another: one pass for both.
        jacobian = torch.autograd.functional.jacobian(
            lambda v, function=function: function(v, inputs.context)[0].flatten(1).sum(0), value
        )
        blocks = jacobian.reshape(flow.features, 2, flow.features).transpose(0, 1)
        assert relative(log_det, torch.linalg.slogdet(blocks)[1]) <= bound


@names
def test_log_prob_is_base_plus_log_det(name: str) -> None:
    flow = make_flow(name)
    inputs = make_inputs(name, flow)
    z, log_det = flow.encode(inputs.x, inputs.context)
    by_torch = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1) + log_det
    assert relative(flow.log_prob(inputs.x, inputs.context), by_torch) <= 1e-12


@names
def test_a_row_does_not_depend_on_its_neighbours(name: str) -> None:
    flow = make_flow(name)
    inputs = make_inputs(name, flow, rows=7)
    bound = NEIGHBOURS[CASES[name].continuous]
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    with torch.no_grad():
        z, log_det = flow.encode(inputs.x, inputs.context)
        alone = [flow.encode(*rows(flow, inputs, slice(i, i + 1))) for i in range(7)]
        shuffled, shuffled_log_det = flow.encode(*rows(flow, inputs, order))
    assert relative(torch.cat([value for value, _ in alone]), z) <= bound
    assert relative(torch.cat([value for _, value in alone]), log_det) <= bound
    assert relative(shuffled, z[order]) <= bound
    assert relative(shuffled_log_det, log_det[order]) <= bound


@planar
def test_density_integrates_to_one(name: str) -> None:
    flow = make_flow(name)
    context = make_inputs(name, flow, rows=1).context
    with torch.no_grad():
        draws, _ = flow.sample(4000, None if context is None else context.expand(4000, -1), seed=5)
        points = draws.reshape(-1, 2)
        (x, dx), (y, dy) = (stretched_axis(points[:, axis]) for axis in range(2))
        grid = torch.cartesian_prod(x, y).reshape(-1, *flow.event_shape)
        wide = None if context is None else context.expand(len(grid), -1)
        mass = flow.log_prob(grid, wide).exp() @ torch.outer(dx, dy).flatten()
    assert abs(float(mass) - 1) <= MASS


def stretched_axis(values: Tensor, steps: int = 400) -> tuple[Tensor, Tensor]:
    """Nodes centre + width sinh(t), t evenly spaced, and their weights.

    Fine where the values crowd, and far out where a few of them are: exp-scaled flows have tails.
    """
    centre = values.median()
    width = values.quantile(0.75) - values.quantile(0.25)
    reach = torch.asinh(3 * (values - centre).abs().max() / width)
    t = torch.linspace(-1, 1, steps, dtype=torch.float64) * reach
    return centre + width * t.sinh(), width * t.cosh() * (t[1] - t[0])


@names
def test_every_parameter_learns(name: str) -> None:
    flow = make_flow(name).train()
    inputs = make_inputs(name, flow)
    flow.log_prob(inputs.x, inputs.context).mean().backward()
    silent = [
        key
        for key, parameter in flow.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]
    assert silent == []


@names
def test_one_seed_is_one_draw(name: str) -> None:
    flow = make_flow(name)
    context = make_inputs(name, flow, rows=4).context
    with torch.no_grad():
        x, log_prob = flow.sample(4, context, seed=7)
        first, _ = flow.sample(2, None if context is None else context[:2], seed=7)
        cold, _ = flow.sample(4, context, seed=7, temperature=0.0)
    assert relative(first, x[:2]) <= NEIGHBOURS[CASES[name].continuous]
    assert relative(log_prob, flow.log_prob(x, context)) <= 1e-6
    mode, _ = flow.decode(torch.zeros(4, flow.features).double(), context)
    assert relative(cold, mode) <= NEIGHBOURS[CASES[name].continuous]


@names
def test_a_checkpoint_keeps_every_bit(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    flow = make_flow(name)
    inputs = make_inputs(name, flow)
    models.save(flow, folder, rows=inputs, provenance={"made_by": "a test"})
    loaded = models.load(folder)
    assert (loaded.family, loaded.config, loaded.dtype) == (flow.family, flow.config, flow.dtype)
    with torch.no_grad():
        for got, expected in zip(
            loaded.encode(inputs.x, inputs.context),
            flow.encode(inputs.x, inputs.context),
            strict=True,
        ):
            assert torch.equal(got, expected)
    assert loaded.provenance == {"made_by": "a test"}
    # Of continuous flows, what their tolerance costs stands in it.
    promised = 1e-4 if CASES[name].continuous else 0.0
    assert loaded.accuracy["log_prob_max_relative_error"] <= promised


@names
def test_a_changed_weight_is_noticed(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    models.save(make_flow(name), folder, accuracy={})
    save_file(perturb_last_float(make_flow(name)).state_dict(), folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"does not reproduce its golden rows.*off by"):
        models.load(folder)


def perturb_last_float(flow: Flow) -> Flow:
    """Shift every parameter a little, as a re-initialised layer or a wrong file would."""
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.01
    return flow
