"""No folded flow does what a CUDA graph cannot hold, or launches more kernels than it may.

Budgets are what was counted, rounded up to the next ten: who needs more raises them, and knows.
"""

import copy

import pytest
import torch
from torch import Tensor

from models.flow import Flow
from models.ode.fixed_batch import FixedBatch, FixedBatchCall, OpenSolve
from tests.cases import CASES

from .flows import DISCRETE, folded
from .meta_scan import scan

pytestmark = pytest.mark.xdist_group("folded")

ROWS = 4
# Kernels of a call: encode, decode.
BUDGETS = {
    "glow": (100, 100),
    "glow_additive_plain": (40, 40),
    "glow_batch_norm_image_latents": (70, 70),
    "glow_middle_padding_pixels": (100, 100),
    "glow_class_conditional_logit": (120, 100),
    "realnvp_image": (300, 310),
    "realnvp_image_three_scales": (180, 170),
    "nice": (30, 30),
    "nice_logistic_halves": (600, 150),
    "nice_image": (30, 30),
    "realnvp": (60, 70),
    "realnvp_pair_batch_norm": (50, 50),
    "realnvp_discrete_columns": (40, 40),
    "realnvp_resnet_context": (90, 90),
    "realnvp_classes_linear": (50, 50),
    "realnvp_additive_qr": (30, 30),
    "realnvp_soft_clamp": (70, 70),
    "maf": (40, 50),
    "maf_one_feature": (20, 20),
    "maf_resnet_added_context": (70, 270),
    "maf_mlp_classes": (40, 110),
    "maf_two_passes_pair": (50, 80),
    "iaf": (230, 70),
    "naf": (80, 20),
    "naf_squares_context": (100, 30),
    "iaf_jacobi": (100, 30),
    "maf_jacobi_context": (40, 100),
    "nsf": (220, 330),
    "nsf_unconditional_mixing": (410, 650),
    "nsf_autoregressive": (230, 670),
    "nsf_autoregressive_context": (260, 740),
    "nsf_circular": (730, 1100),
    "gf_context": (500, 140),
    "chain": (720, 650),
    "chain_bernstein": (350, 20),
    "chain_bounded_and_centred": (70, 70),
    "chain_householder": (50, 50),
    "chain_mixtures": (690, 140),
    "chain_mixtures_context": (2070, 150),
    "chain_monotone_networks": (100, 20),
    "chain_sums_of_squares": (80, 20),
    "chain_circular": (550, 910),
    "chain_gaussianization": (400, 140),
    "chain_uniform_base": (290, 160),
    "planar": (40, 20),
    "planar_leaky": (60, 60),
    "planar_from_latents": (20, 50),
    "radial": (140, 200),
    "radial_from_latents": (140, 100),
    "chain_positive_beta_base": (430, 490),
    "realnvp_embedded_context": (50, 50),
    "jet": (170, 170),
    "jet_pair": (110, 110),
    "tarflow": (170, 540),
    "tarflow_pair": (100, 200),
    "tarflow_volume_preserving": (90, 120),
    "pixelcnn": (360, 230),
    "pixelcnn_series": (350, 220),
}
# Inverses that are searched for: how often a step is taken depends on values, so no graph holds it.
SEARCHED = {
    *("chain_bernstein", "chain_monotone_networks", "chain_sums_of_squares"),
    *("naf", "naf_squares_context"),
    *("chain_gaussianization", "gf_context", "chain_mixtures", "chain_mixtures_context"),
    "planar",
}
# Maps from latents to data whose inverse is searched for.
SEARCHED_IN_ENCODE = {"planar_from_latents"}
# Fixed-point iterations, by the direction that takes them: steps that a graph can hold, see below.
ITERATED = {
    "iaf_jacobi": "encode",
    "maf_jacobi_context": "decode",
    "tarflow_pair": "decode",
    "pixelcnn": "decode",
    "pixelcnn_series": "decode",
}
# Kernels of a flow that counts its evaluations from the start of a call until its first step is
# taken.
STEP_BUDGETS = {
    "ffjord": 190,
    "ffjord_stack": 210,
    "ffjord_fourier_context": 260,
    "ffjord_flow_matching_classes": 240,
    "ffjord_squash": 170,
    "ffjord_blend": 340,
    "ffjord_hyper": 240,
    "ffjord_image": 400,
    "ffjord_image_strides": 470,
    "iaf_jacobi": 80,
    "maf_jacobi_context": 80,
    "cnf_unet": 2000,
}


def test_every_continuous_flow_has_a_budget() -> None:
    assert set(CASES) - set(DISCRETE) <= set(STEP_BUDGETS)


def on_meta(name: str) -> Flow:
    return copy.deepcopy(folded(name)).to("meta")


def empty(flow: Flow, row: tuple[int, ...]) -> Tensor:
    return torch.empty((ROWS, *row), device="meta", dtype=flow.dtype)


@pytest.mark.parametrize("operation", ["encode", "decode"])
@pytest.mark.parametrize("name", DISCRETE)
def test_a_graph_can_hold_every_folded_flow(name: str, operation: str) -> None:
    flow = on_meta(name)
    value = empty(flow, flow.event_shape if operation == "encode" else (flow.features,))
    context = None if flow.context_shape is None else empty(flow, flow.context_shape)
    found = scan(lambda: getattr(flow, operation)(value, context))
    is_searched = name in (SEARCHED if operation == "decode" else SEARCHED_IN_ENCODE)
    faults = {"waits: nonzero": 1} if is_searched else {}
    if ITERATED.get(name) == operation:
        faults = {"waits: _local_scalar_dense": 1}
    assert found.faults == faults
    assert 0 < found.kernels.total() <= BUDGETS[name][operation == "decode"], found.kernels


@pytest.mark.parametrize("name", STEP_BUDGETS)
def test_a_graph_can_hold_a_step_of_every_continuous_flow(name: str) -> None:
    assert name in ITERATED or name not in DISCRETE
    flow = on_meta(name)
    operation = flow.decode if ITERATED.get(name) == "decode" else flow.encode
    value = empty(flow, flow.event_shape)
    context = None if flow.context_shape is None else empty(flow, flow.context_shape)
    is_row = torch.ones((ROWS, 1), device="meta", dtype=torch.bool)

    def step() -> None:
        opened = FixedBatchCall(operation).proceed(FixedBatch(value, context, is_row))
        assert isinstance(opened, OpenSolve)
        opened.body(opened.carry, opened.given)

    found = scan(step)
    assert found.faults == {}
    assert 0 < found.kernels.total() <= STEP_BUDGETS[name], found.kernels


def test_what_no_graph_can_hold_is_seen() -> None:
    value = torch.ones(3, device="meta")
    host = torch.ones(3)
    assert "waits: _local_scalar_dense" in scan(lambda: bool(value.sum())).faults
    assert "waits: nonzero" in scan(lambda: value.nonzero()).faults
    assert "waits: index by booleans" in scan(lambda: value[value > 0]).faults
    assert "copies from the host: _to_copy" in scan(lambda: host.to("meta")).faults
    assert "a tensor of the host in mul" in scan(lambda: value * host.sum()).faults
    assert scan(lambda: (2 * value).view(3, 1)).kernels == {"mul": 1}
