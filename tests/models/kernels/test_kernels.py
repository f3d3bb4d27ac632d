"""Kernels against the flow in float64; a row's bits alone and beside others.

They run on a CUDA device or, with TRITON_INTERPRET=1, in Triton's interpreter on a CPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from models.flow import Flow
from models.fold import fold
from models.ode.call import SolveCall, SolveStatus
from models.registry import build
from models.transforms.elementwise import LOG_SCALES
from tests.cases import CASES, make_flow, make_inputs, perturb

# The interpreter computes with numpy, which warns of NaN in rows where it is to be.
pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning"),
]

COUPLINGS = ["nice", "nice_image", "realnvp", "realnvp_discrete_columns", "realnvp_additive_qr"]
SOLVES = ["ffjord", "ffjord_stack", "ffjord_fourier_context", "ffjord_flow_matching_classes"]
# What else a coupling may be.
OPTIONS: dict[str, dict[str, Any]] = {
    "floored sigmoid, gelu": {
        "scale": "floored_sigmoid",
        "form": "shift_then_scale",
        "conditioner": {"kind": "mlp", "widths": [40], "activation": "gelu"},
    },
    "sigmoid, leaky relu, unshift": {
        "scale": "sigmoid",
        "form": "unshift_then_unscale",
        "conditioner": {"kind": "mlp", "widths": [5, 33, 7], "activation": "leaky_relu"},
    },
    "soft clamp, elu": {
        "scale": "soft_clamp",
        "conditioner": {"kind": "mlp", "widths": [6], "activation": "elu"},
    },
    "floored softplus, silu, context": {
        "scale": "floored_softplus",
        "context_features": 3,
        "conditioner": {"kind": "mlp", "widths": [6, 6], "activation": "silu"},
    },
}
UNKNOWN_SCALES = {"atan", "bounded_sigmoid"}
SMALL = {"kind": "mlp", "widths": [6]}


def fused(flow: Flow, device: torch.device) -> Flow:
    from models.kernels.fuse import fuse

    return fuse(fold(flow.float()).to(device))


@cache
def case(name: str) -> tuple[Flow, Tensor, Tensor | None]:
    """A case in float64 whose weights and rows float32 holds exactly; solvers at their default."""
    one = CASES[name]
    settings = {"solver": {}} if one.continuous else {}
    flow = build(one.family, {**one.config, **settings}).double()
    flow = perturb(flow, one.scale).eval().float().double()
    given = make_inputs(name, flow, 5)
    context = None if given.context is None else given.context.float().double()
    return flow, given.x.float().double(), context


def copy_of(flow: Flow) -> Flow:
    import copy

    return copy.deepcopy(flow)


def close(
    flow: Flow, kernels: Flow, value: Tensor, context: Tensor | None, nats: float, *, decoding: bool
) -> None:
    """Compare one direction with float64."""
    operation = "decode" if decoding else "encode"
    wanted = getattr(flow, operation)(value, context)
    device = kernels.device
    condition = None if context is None else context.float().to(device)
    got = getattr(kernels, operation)(value.float().to(device), condition)
    torch.testing.assert_close(got[0].cpu().double(), wanted[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got[1].cpu().double(), wanted[1], rtol=1e-6, atol=nats)


@pytest.mark.parametrize("name", COUPLINGS)
@torch.inference_mode()
def test_couplings_agree_with_float64(name: str, device: torch.device) -> None:
    flow, x, context = case(name)
    kernels = fused(copy_of(flow), device)
    close(flow, kernels, x, context, 2e-6, decoding=False)
    close(flow, kernels, flow.encode(x, context)[0], context, 2e-6, decoding=True)


@pytest.mark.parametrize("name", OPTIONS)
@torch.inference_mode()
def test_every_scale_form_and_nonlinearity(name: str, device: torch.device) -> None:
    config = {"event_shape": [5], "num_layers": 3, **OPTIONS[name]}
    flow = perturb(build("realnvp", config).double(), 0.3).eval().float().double()
    generator = torch.Generator().manual_seed(0)
    x, context = torch.randn(2, 6, 5, generator=generator).double()
    given = context[:, :3] if flow.context_shape else None
    kernels = fused(copy_of(flow), device)
    close(flow, kernels, x, given, 2e-6, decoding=False)
    close(flow, kernels, x, given, 2e-6, decoding=True)


@torch.inference_mode()
def test_a_coupling_gives_a_row_its_bits_in_every_batch_and_place(device: torch.device) -> None:
    flow, x, _ = case("realnvp")
    kernels = fused(copy_of(flow), device)
    for part in kernels.modules():
        if hasattr(part, "most_programs"):
            part.most_programs = 2  # each computes several tiles
    row = x[:1].float().to(device)
    alone = [part[0].clone() for part in kernels.encode(row)]
    for size, place in ((2, 1), (16, 15), (17, 16), (70, 37)):
        others = torch.full((size, *row.shape[1:]), torch.nan, device=device)
        others[::2] = 100.0
        others[place] = row[0]
        for a, b in zip(alone, kernels.encode(others), strict=True):
            assert torch.equal(a, b[place])


def solved(flow: Flow, operation: str, value: Tensor, context: Tensor | None) -> Any:
    call = SolveCall()
    found = getattr(flow, operation)(value, context, call=call)
    return *found, call.reports


@pytest.mark.parametrize("operation", ["encode", "decode"])
@pytest.mark.parametrize("name", SOLVES)
@torch.inference_mode()
def test_solves_take_the_steps_of_the_folded_flow(
    name: str, operation: str, device: torch.device
) -> None:
    flow, x, context = case(name)
    folded = fold(copy_of(flow).float())
    kernels = fused(copy_of(flow), device)
    value = (x if operation == "encode" else torch.randn(5, flow.features)).float()
    condition = None if context is None else context.float()
    wanted = solved(folded, operation, value, condition)
    there = None if condition is None else condition.to(device)
    got = solved(kernels, operation, value.to(device), there)
    torch.testing.assert_close(got[0].cpu(), wanted[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got[1].cpu(), wanted[1], rtol=0, atol=1e-4)
    for one, other in zip(got[2], wanted[2], strict=True):
        assert one.status.tolist() == other.status.tolist()
        assert (one.evaluations.cpu() == other.evaluations).double().mean() >= 0.8


@torch.inference_mode()
def test_a_solve_gives_a_row_its_bits_in_every_batch_and_place(device: torch.device) -> None:
    flow, x, _ = case("ffjord")
    kernels = fused(copy_of(flow), device)
    row = x[:1].float().to(device)
    value, log_det, _ = solved(kernels, "encode", row, None)
    for size, place in ((2, 1), (9, 8), (20, 10)):
        others = torch.full((size, 2), torch.nan, device=device)
        others[::2] = 3.0
        others[place] = row[0]
        values, log_dets, (report,) = solved(kernels, "encode", others, None)
        assert torch.equal(values[place], value[0])
        assert torch.equal(log_dets[place], log_det[0])
        assert report.status[place] == SolveStatus.SOLVED
        odd = next(i for i in range(1, size, 2) if i != place) if size > 2 else None
        if odd is not None:
            assert report.status[odd] == SolveStatus.NON_FINITE
            assert values[odd].isnan().all()


@torch.inference_mode()
def test_a_solve_may_leave_out_the_log_det(device: torch.device) -> None:
    flow, x, _ = case("ffjord_stack")
    kernels = fused(copy_of(flow), device)
    given = x.float().to(device)
    found, log_det = kernels.decode(given, None, call=SolveCall(wants_log_det=False))
    assert log_det.isnan().all()
    torch.testing.assert_close(found, kernels.decode(given)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("glow", "a network of the type Stack: MLPs fuse"),
        ("maf", "neither couplings over vectors nor dense vector fields"),
        ("nsf", "float64 between the networks"),
        ("realnvp_soft_clamp", "normalises its rows"),
    ],
)
def test_what_has_no_kernel_is_told(name: str, reason: str, device: torch.device) -> None:
    with pytest.raises(ValueError, match=reason):
        fused(make_flow(name), device)


def test_centred_scales_are_refused(device: torch.device) -> None:
    affine = {"kind": "affine", "centred": True}
    layer = {"kind": "coupling", "mask": [1, 0, 0], "elementwise": affine, "conditioner": SMALL}
    flow = build("chain", {"event_shape": [3], "layers": [layer]}).double().eval()
    with pytest.raises(ValueError, match="log-scales are centred"):
        fused(flow, device)


@pytest.mark.parametrize("scale", LOG_SCALES)
@torch.inference_mode()
def test_a_scale_is_known_or_refused(scale: str, device: torch.device) -> None:
    config = {"event_shape": [4], "num_layers": 2, "scale": scale, "conditioner": SMALL}
    flow = perturb(build("realnvp", config).double(), 0.3).eval().float().double()
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double()
    if scale in UNKNOWN_SCALES:
        with pytest.raises(ValueError, match=f"a scale by {scale}"):
            fused(flow, device)
        return
    close(flow, fused(copy_of(flow), device), x, None, 2e-6, decoding=False)


@pytest.mark.parametrize("name", ["realnvp", "ffjord"])
@torch.inference_mode()
def test_kernels_are_launched_on_the_device_of_their_rows(
    name: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow, x, _ = case(name)
    kernels = fused(copy_of(flow), device)
    entered: list[torch.device] = []

    @contextmanager
    def device_of(value: Tensor) -> Iterator[None]:
        entered.append(value.device)
        yield

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    kernels.encode(x.float().to(device))
    assert entered
    assert {one.type for one in entered} == {device.type}
