"""Fixed-point decoding: the bits of sequential decoding, the passes it took, and gradients."""

import pytest
import torch
from torch import Tensor, nn

from models.flow import Flow
from models.fold import fold
from models.ode.call import SolveCall, join_reports
from models.registry import build
from models.transforms.autoregressive import MaskedAutoregressive
from models.transforms.elementwise import Affine
from models.transforms.jacobi import Decoding
from models.transforms.transform import counts_evaluations
from tests.cases import perturb

FEATURES, LAYERS = 7, 2


def flow(
    decoding: Decoding, dtype: torch.dtype = torch.float64, family: str = "maf", **changes: object
) -> Flow:
    torch.manual_seed(0)
    config = {
        "event_shape": [FEATURES],
        "num_layers": LAYERS,
        "decoding": decoding,
        "conditioner": {"kind": "mlp", "widths": [16]},
        **changes,
    }
    return perturb(build(family, config).double(), 0.2).eval().to(dtype)


def hard_rows(dtype: torch.dtype) -> Tensor:
    """Ordinary rows, far ones, and some that overflow or are no numbers."""
    z = torch.randn(24, FEATURES, generator=torch.Generator().manual_seed(1)).to(dtype)
    z[3] *= 100
    z[5, 2] = torch.nan
    z[6] *= 1e30
    z[7, 0] = torch.inf
    return z


def decoded(one: Flow, z: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    call = SolveCall()
    with torch.no_grad():
        x, log_det = one.decode(z, call=call)
    report = join_reports(call.reports)
    return x, log_det, None if report is None else report.evaluations


def same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(
        one.nan_to_num(0.5), other.nan_to_num(0.5)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("order", ["alternating", [[2, 0, 1, 1, 3, 0, 2]]], ids=["all", "shared"])
def test_jacobi_has_the_bits_of_sequential_decoding(dtype: torch.dtype, order: object) -> None:
    z = hard_rows(dtype)
    x, log_det, passes = decoded(flow("sequential", dtype, order=order), z)
    assert passes is None
    assert x[0].isfinite().all()
    assert not x[5:8].isfinite().all(1).any()
    for decoding in ("passes", "jacobi"):
        got, got_log_det, _ = decoded(flow(decoding, dtype, order=order), z)
        assert same_bits(got, x)
        assert same_bits(got_log_det, log_det)


@pytest.mark.parametrize("config", [{}, {"scale": "tanh"}], ids=["exp", "tanh"])
def test_folded_jacobi_has_the_bits_of_folded_passes(config: dict[str, object]) -> None:
    z = hard_rows(torch.float32)
    x, log_det, _ = decoded(fold(flow("passes", torch.float32, **config)), z)
    got, got_log_det, _ = decoded(fold(flow("jacobi", torch.float32, **config)), z)
    assert same_bits(got, x)
    assert same_bits(got_log_det, log_det)


def test_splines_iterate_too() -> None:
    changes = {"structure": "autoregressive", "num_bins": 3}
    changes |= {"conditioner": {"kind": "resnet", "widths": [8]}}
    z = hard_rows(torch.float64)[:5]
    x, log_det, _ = decoded(flow("sequential", family="nsf", **changes), z)
    got, got_log_det, passes = decoded(flow("jacobi", family="nsf", **changes), z)
    assert same_bits(got, x)
    assert same_bits(got_log_det, log_det)
    assert passes is not None


def test_a_row_stops_by_itself_and_no_later_than_there_are_features() -> None:
    z = hard_rows(torch.float32)
    one = fold(flow("jacobi", torch.float32, scale="tanh"))
    x, log_det, passes = decoded(one, z)
    assert passes is not None
    assert passes.max() <= LAYERS * (FEATURES + 1)  # one more where a guess overflows
    ordinary = passes[[0, 1, 2, 4, *range(8, 24)]]
    assert ordinary.max() <= LAYERS * FEATURES
    assert ordinary.min() < LAYERS * FEATURES
    assert len(ordinary.unique()) > 1
    # In a batch of one size, whatever its other rows are.
    for row in (0, 3, 9):
        beside = z.flip(0).clone()
        beside[row] = z[row]
        found, found_log_det, found_passes = decoded(one, beside)
        assert torch.equal(found[row], x[row])
        assert torch.equal(found_log_det[row], log_det[row])
        assert found_passes is not None
        assert found_passes[row] == passes[row]


def test_passes_are_counted_in_both_directions() -> None:
    one = flow("passes")
    assert counts_evaluations(one)
    assert counts_evaluations(fold(one))
    assert not counts_evaluations(flow("sequential"))
    call = SolveCall()
    one.encode(torch.zeros(3, FEATURES).double(), call=call)
    report = join_reports(call.reports)
    assert report is not None
    assert report.evaluations.tolist() == [LAYERS] * 3
    _, _, passes = decoded(one, torch.zeros(3, FEATURES).double())
    assert passes is not None
    assert passes.tolist() == [LAYERS * FEATURES] * 3
    assert report.status.tolist() == [0] * 3


class DenseConditioner(nn.Module):
    """What a weight of 0 keeps out is kept out while it is finite: as a matrix product does."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        nothing = 0 * x.exp().sum(1, keepdim=True)
        zero = torch.zeros_like(nothing)
        shifts = torch.cat((zero, zero, 1000 - 1000 * x[:, :1], x[:, 1:2]), 1) + nothing
        return torch.cat((shifts, torch.zeros_like(shifts)), 1)


def test_guesses_that_overflow_inside_a_network_are_taken_back() -> None:
    # The first guess of the third feature is 1000: its exponential is no number.
    y = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).double()
    found = {}
    for decoding in ("sequential", "jacobi"):
        affine = Affine("exp", "unshift_then_unscale")
        one = MaskedAutoregressive([0, 1, 2, 3], DenseConditioner(), affine, decoding=decoding)
        call = SolveCall()
        found[decoding] = one.eval().decode(y, call=call)[0]
    assert torch.equal(found["sequential"], torch.tensor([[1.0, 2.0, 3.0, 6.0]]).double())
    assert torch.equal(found["jacobi"], found["sequential"])
    assert call.reports[0].evaluations.item() == 5


@pytest.mark.parametrize("decoding", ["sequential", "jacobi"])
def test_gradients_are_those_of_sequential_decoding(decoding: Decoding) -> None:
    z = hard_rows(torch.float64)[:3].clone().requires_grad_()
    weights = torch.arange(1.0, 1.0 + FEATURES).double()
    found = []
    # In training either takes the implicit function.
    for one in (flow("sequential"), flow(decoding).train()):
        one.requires_grad_()
        x, log_det = one.decode(z)
        loss = (x * weights).sin().sum() + log_det.square().sum()
        parameters = [part for part in one.parameters() if part.requires_grad]
        found.append(torch.autograd.grad(loss, [z, *parameters]))
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


def test_a_search_in_a_search_is_refused() -> None:
    layer = {
        "kind": "autoregressive",
        "order": [0, 1],
        "decoding": "jacobi",
        "elementwise": {"kind": "bernstein"},
    }
    with pytest.raises(ValueError, match=r"layer 0 .*decoding: expected sequential for bernstein"):
        build("chain", {"event_shape": [2], "layers": [layer]})


@pytest.mark.parametrize("decoding", ["jacobi", "passes"])
def test_couplings_have_no_use_for_it(decoding: Decoding) -> None:
    with pytest.raises(ValueError, match=f"decoding: {decoding} is for structure=autoregressive"):
        build("nsf", {"event_shape": [2], "decoding": decoding})
