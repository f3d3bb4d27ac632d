"""A folded flow is the same flow, with less to do."""

import pytest
import torch
from torch import Tensor, nn

import models
from models.conditioners.dense import MLP
from models.conditioners.masked import Masked
from models.flow import Flow
from models.fold import fold
from models.fold.autoregressive import FoldedAutoregressive
from models.fold.chain import FoldedChain
from models.fold.constant import Dense, Monomial
from models.fold.coupling import HalfCouplings
from models.noise import base_noise
from models.registry import build
from models.transforms.actnorm import ActNorm
from models.transforms.affine import Scale
from models.transforms.autoregressive import MaskedAutoregressive
from models.transforms.coupling import Coupling, alternating_mask
from models.transforms.elementwise import Affine
from models.transforms.linear import LULinear
from models.transforms.permute import Permute
from models.transforms.preprocess import ShiftScale
from models.transforms.squeeze import Squeeze
from models.transforms.transform import Transform
from tests.cases import CASES, DISCRETE, make_flow, make_inputs, perturb

# Relative, in float64. Folding changes the order of additions and nothing else.
SAME = 1e-9
NEIGHBOURS = 1e-12

discrete = pytest.mark.parametrize("name", sorted(DISCRETE))


def relative(got: Tensor, expected: Tensor) -> float:
    return float(((got - expected).abs() / expected.abs().clamp(min=1)).max().detach())


def noise(flow: Flow, rows: int) -> Tensor:
    return torch.from_numpy(base_noise(rows, flow.features, seed=3))


def chain(flow: Flow) -> FoldedChain:
    (only,) = flow.chain
    assert isinstance(only, FoldedChain)
    return only


def kinds(flow: Flow) -> list[str]:
    return [type(transform).__name__ for transform in chain(flow).transforms]


@discrete
@torch.no_grad()
def test_it_is_the_same_flow(name: str) -> None:
    flow = make_flow(name)
    folded = fold(flow)
    inputs = make_inputs(name, flow)
    z = noise(flow, len(inputs.x))
    for value, context, method in (
        (inputs.x, inputs.context, "encode"),
        (z, inputs.context, "decode"),
    ):
        expected = getattr(flow, method)(value, context)
        for got, wanted in zip(getattr(folded, method)(value, context), expected, strict=True):
            assert got.shape == wanted.shape
            assert relative(got, wanted) <= SAME
    assert (folded.event_shape, folded.context_shape) == (flow.event_shape, flow.context_shape)
    assert folded.facts == flow.facts


@discrete
@torch.no_grad()
def test_round_trip_and_log_dets_cancel(name: str) -> None:
    flow = make_flow(name)
    folded = fold(flow)
    inputs = make_inputs(name, flow)
    z, log_det = folded.encode(inputs.x, inputs.context)
    x, back = folded.decode(z, inputs.context)
    assert relative(x, inputs.x) <= SAME
    assert relative(-back, log_det) <= SAME


@discrete
def test_log_det_is_that_of_the_autograd_jacobian(name: str) -> None:
    flow = make_flow(name)
    folded = fold(flow)
    inputs = make_inputs(name, flow, rows=1)
    for function, value in ((folded.encode, inputs.x), (folded.decode, noise(flow, 1))):
        _, log_det = function(value, inputs.context)
        jacobian = torch.autograd.functional.jacobian(
            lambda v, function=function: function(v, inputs.context)[0].flatten(), value
        ).reshape(flow.features, flow.features)
        assert relative(log_det, torch.linalg.slogdet(jacobian)[1][None]) <= SAME


@discrete
@torch.no_grad()
def test_a_row_does_not_depend_on_its_neighbours(name: str) -> None:
    flow = make_flow(name)
    folded = fold(flow)
    inputs = make_inputs(name, flow, rows=5)
    z = noise(flow, 5)
    for function, value in ((folded.encode, inputs.x), (folded.decode, z)):
        together = function(value, inputs.context)
        for row in range(5):
            one = slice(row, row + 1)
            context = None if inputs.context is None else inputs.context[one]
            for got, expected in zip(function(value[one], context), together, strict=True):
                assert relative(got, expected[one]) <= NEIGHBOURS


@discrete
def test_the_flow_given_stays_as_it_was(name: str) -> None:
    flow = make_flow(name).train()
    before = {key: value.clone() for key, value in flow.state_dict().items()}
    modules = list(flow.modules())
    folded = fold(flow)
    assert list(flow.modules()) == modules
    assert flow.training
    assert not folded.training
    assert flow.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in flow.state_dict().items())
    assert not any(parameter.requires_grad for parameter in folded.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_computes_in_the_dtype_of_the_flow(dtype: torch.dtype) -> None:
    folded = fold(make_flow("realnvp").to(dtype))
    assert folded.dtype == dtype
    z, log_det = folded.encode(torch.zeros(2, 2, dtype=dtype))
    assert (z.dtype, log_det.dtype) == (dtype, dtype)


def test_a_folded_flow_cannot_be_saved(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(ValueError, match=r"made by models\.build"):
        models.save(fold(make_flow("realnvp")), tmp_path_factory.mktemp("model"))


def test_a_continuous_flow_keeps_its_equation() -> None:
    name = next(name for name, case in CASES.items() if case.continuous)
    flow = make_flow(name)
    folded = fold(flow)
    inputs = make_inputs(name, flow, rows=2)
    with torch.no_grad():
        got = folded.log_prob(inputs.x, inputs.context)
        expected = flow.log_prob(inputs.x, inputs.context)
    assert relative(got, expected) <= 1e-6


def image_step() -> Flow:
    """Preprocessing, squeeze, actnorm and a 1x1 convolution, twice."""
    torch.manual_seed(0)
    steps: list[Transform] = [ShiftScale(-0.5, 1 / 256), Squeeze("checkerboard")]
    steps += [ActNorm(4), LULinear(4), Permute([2, 0, 3, 1]), ActNorm(4, storage="direct")]
    return perturb(Flow(steps, (1, 4, 4)).double(), 0.1)


def test_maps_that_are_the_same_for_every_row_become_one() -> None:
    flow = image_step()
    folded = fold(flow)
    assert kinds(folded) == ["Squeeze", "Dense"]
    assert chain(folded).sources == [
        ("0 ShiftScale", "1 Squeeze"),
        (
            "0 ShiftScale",
            "1 Squeeze",
            "2 ActNorm",
            "3 LULinear",
            "4 Permute",
            "5 ActNorm",
        ),
    ]
    x = 255 * torch.rand(3, 1, 4, 4, dtype=torch.float64)
    squeezed = Squeeze("checkerboard").encode(x)[0]
    y, log_det = chain(folded).encode(x)
    total = torch.zeros(3, dtype=torch.float64)
    expected = x
    for transform in flow.chain:
        expected, one = transform.encode(expected)
        total += one
    assert relative(y, expected) <= SAME
    assert relative(log_det, total) <= SAME
    dense = chain(folded).transforms[1]
    assert isinstance(dense, Dense)
    assert relative(dense.decode(y)[0], squeezed) <= SAME


def test_constant_log_dets_are_one_float64_number() -> None:
    folded = fold(image_step().float())
    assert isinstance(chain(folded).log_abs_det, float)
    wide = fold(image_step())
    # Cast to float32 the flow has float32 weights, but adds their log-dets in float64.
    assert chain(folded).log_abs_det == pytest.approx(chain(wide).log_abs_det, rel=1e-6)


def test_couplings_with_complementary_masks_share_their_halves() -> None:
    config = {"event_shape": [6], "num_layers": 4, "masks": "alternating"}
    folded = fold(build("realnvp", config))
    assert kinds(folded) == ["Monomial", "HalfCouplings", "Monomial"]
    couplings = chain(folded).transforms[1]
    assert isinstance(couplings, HalfCouplings)
    assert [move.keeps_first for move in couplings.moves] == [False, True, False, True]


def test_permutations_pass_behind_autoregressive_maps() -> None:
    config = {"event_shape": [4], "num_layers": 3, "permutation": "reverse", "order": "ascending"}
    flow = build("maf", config)
    folded = fold(perturb(flow.double(), 0.3))
    assert kinds(folded) == ["FoldedAutoregressive"] * 3 + ["Monomial"]
    last = chain(folded).transforms[-1]
    assert isinstance(last, Monomial)
    assert last.scale is None


def test_a_run_that_undoes_itself_vanishes() -> None:
    flow = Flow([Permute([2, 0, 1]), Permute([1, 2, 0])], (3,))
    assert kinds(fold(flow)) == []
    x = torch.randn(2, 3)
    z, log_det = fold(flow).encode(x)
    assert torch.equal(z, x)
    assert torch.equal(log_det, torch.zeros(2))


def test_a_diagonal_moves_the_log_det_of_every_pixel() -> None:
    flow = Flow([ShiftScale(0.0, 3.0)], (2, 4, 4))
    folded = fold(flow)
    assert chain(folded).log_abs_det == pytest.approx(32 * torch.tensor(3.0).log().item())


@pytest.mark.parametrize("name", ["maf", "iaf", "nsf_autoregressive", "maf_resnet_added_context"])
def test_a_decode_uses_every_weight_at_most_once(name: str) -> None:
    found = [
        part for part in fold(make_flow(name)).modules() if isinstance(part, FoldedAutoregressive)
    ]
    assert found
    for transform in found:
        assert transform.pieces is not None
        weights = sum(parameter.numel() for parameter in transform.network.parameters())
        assert sum(buffer.numel() for buffer in transform.pieces.buffers()) <= weights


class Opaque(nn.Module):
    """A masked network of a kind that the folding does not know."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        raw: Tensor = self.net(x, context)
        return raw


@pytest.mark.parametrize("scale", ["exp", "sigmoid", "tanh"])
def test_unknown_conditioners_work_as_they_are(scale: str) -> None:
    torch.manual_seed(0)
    order = [1, 0, 2]
    masked = MaskedAutoregressive(
        order, Opaque(MLP(Masked(order, 2), [8])), Affine(scale, weight_shape=(3,))
    )
    mask = alternating_mask(3)
    net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 4))
    coupling = Coupling(mask, Unaware(net), Affine(scale, weight_shape=(2,)))
    flow = perturb(Flow([Permute([2, 0, 1]), masked, coupling], (3,)).double(), 0.4)
    folded = fold(flow)
    x, z = torch.randn(4, 3).double(), noise(flow, 4)
    for function, same, value in (
        (folded.encode, flow.encode, x),
        (folded.decode, flow.decode, z),
    ):
        for got, expected in zip(function(value), same(value), strict=True):
            assert relative(got, expected) <= SAME


class Unaware(nn.Module):
    """Adapts a module that takes no context."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        raw: Tensor = self.net(x)
        return raw


def test_a_network_that_looks_ahead_is_refused() -> None:
    order = [0, 1, 2]
    wrong = MLP(Masked([2, 1, 0], 2), [8])
    flow = Flow([MaskedAutoregressive(order, wrong, Affine())], (3,))
    with pytest.raises(ValueError, match="see features that come later"):
        fold(perturb(flow.double(), 0.3))


class Shear(Transform):
    """A transform without a rule."""

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x + x.roll(1, 1).tanh() * 0.1, x.new_zeros(len(x))

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


def test_a_transform_without_a_rule_stays_between_the_others() -> None:
    flow = Flow([Scale(3), Shear(), Scale(3), Permute([1, 0, 2])], (3,))
    folded = fold(perturb(flow.double(), 0.3))
    assert kinds(folded) == ["Monomial", "Shear", "Monomial"]
    x = torch.randn(2, 3).double()
    assert relative(folded.encode(x)[0], flow.encode(x)[0]) <= SAME
