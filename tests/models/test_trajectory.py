"""The states between noise and data: the ends are the noise and what decode gives."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.ode.transform import ContinuousTransform
from models.registry import build
from models.trajectory import Trajectory
from models.transforms.permute import Permute
from models.transforms.preprocess import Dequantise, Logit, ShiftScale, Standardise
from models.transforms.split import Chain, FactorOut
from models.transforms.squeeze import Flatten, Squeeze
from models.transforms.transform import Transform, constant_log_det
from tests.cases import make_flow, make_inputs

_STRUCTURE = (Chain, FactorOut, Permute, Squeeze, Flatten)
_PREPROCESSING = (Dequantise, Logit, ShiftScale, Standardise)
# All pass; these differ in what they are made of.
_NAMES = [
    *("glow_class_conditional_logit", "realnvp_image", "nice_logistic_halves", "realnvp"),
    *("realnvp_embedded_context", "chain_bounded_and_centred", "chain_circular", "iaf_jacobi"),
    *("chain_positive_beta_base", "chain_mixtures_context", "nsf_circular", "tarflow", "pixelcnn"),
    *("ffjord_stack", "ffjord_flow_matching_classes", "ffjord_image", "jet", "planar"),
]


class _Nothing(Transform):
    """The identity."""

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x, constant_log_det(0, x)

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.encode(y)


def _without_layers(module: nn.Module, *, keep: tuple[type, ...]) -> None:
    """Put nothing in the place of every transform but these."""
    for name, child in module.named_children():
        if isinstance(child, Transform) and not isinstance(child, keep):
            setattr(module, name, _Nothing())
        else:
            _without_layers(child, keep=keep)


@pytest.mark.parametrize("name", _NAMES)
def test_the_last_state_is_what_decode_gives(name: str) -> None:
    flow = make_flow(name)
    context = make_inputs(name, flow, 3).context
    z = torch.randn(3, flow.features, dtype=flow.dtype)
    trajectory = Trajectory(flow)
    with torch.inference_mode():
        x, _ = flow.decode(z, context)
        torch.testing.assert_close(trajectory.decode(z, context, 1.0), x, rtol=1e-6, atol=1e-6)
        assert not torch.equal(trajectory.decode(z, context, 0.0), x)
        for progress in (0.0, 0.4):
            state = trajectory.decode(z, context, progress)
            assert state.shape == x.shape
            assert state.isfinite().all()


@pytest.mark.parametrize(
    "name", ["glow_class_conditional_logit", "realnvp", "tarflow", "realnvp_image"]
)
def test_the_first_state_is_the_noise_in_the_places_of_data(name: str) -> None:
    flow = make_flow(name)
    context = make_inputs(name, flow, 3).context
    z = torch.randn(3, flow.features, dtype=flow.dtype)
    first = Trajectory(flow).decode(z, context, 0.0)
    _without_layers(flow, keep=(*_STRUCTURE, *_PREPROCESSING))
    torch.testing.assert_close(first, flow.decode(z, context)[0], rtol=0, atol=0)


@pytest.mark.parametrize(
    "name",
    ["glow", "glow_class_conditional_logit", "realnvp_image", "realnvp_embedded_context", "ffjord"],
)
def test_states_of_many_rows_are_those_of_each(name: str) -> None:
    flow = make_flow(name)
    context = make_inputs(name, flow, 2).context
    z = torch.randn(2, flow.features, dtype=flow.dtype)
    trajectory = Trajectory(flow)
    progress = [0.0, 0.2, 0.7, 1.0]
    rows = [(row, now) for now in progress for row in (1, 0)]
    order = [row for row, _ in rows]
    with torch.inference_mode():
        found = trajectory.states(
            z[order], None if context is None else context[order], [now for _, now in rows]
        )
        for state, (row, now) in zip(found, rows, strict=True):
            alone = None if context is None else context[row : row + 1]
            expected = trajectory.decode(z[row : row + 1], alone, now)[0]
            torch.testing.assert_close(state, expected, rtol=1e-6, atol=1e-6)


def test_every_layer_makes_one_state() -> None:
    flow = build(
        "chain",
        {
            "event_shape": [2],
            "preprocessing": [{"kind": "standardise", "mean": [5.0], "std": [2.0]}],
            "layers": [
                {"kind": "scale"},
                {"kind": "permute", "indices": [1, 0]},
                {"kind": "actnorm"},
            ],
        },
    ).eval()
    scale, actnorm = flow.chain[1], flow.chain[3]
    with torch.no_grad():
        for parameter in (*scale.parameters(), *actnorm.parameters()):
            parameter.copy_(torch.arange(1.0, 1 + parameter.numel()) / 4)
    z = torch.randn(4, 2)
    trajectory = Trajectory(flow)
    assert [trajectory.label(k / 2) for k in range(3)] == ["0 noise", "1 ActNorm", "2 Scale"]
    moved = actnorm.decode(z)[0]
    expected = [
        5 + 2 * z.flip(1),
        5 + 2 * moved.flip(1),
        5 + 2 * scale.decode(moved.flip(1))[0],
    ]
    with torch.no_grad():
        for k in range(3):
            state = trajectory.decode(z, None, k / 2)
            torch.testing.assert_close(state, expected[k], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("data_time", ["start", "end"])
def test_a_continuous_flow_is_followed_in_time(data_time: str) -> None:
    flow = make_flow("ffjord")
    (equation,) = (part for part in flow.modules() if isinstance(part, ContinuousTransform))
    equation.data_time = data_time  # type: ignore[assignment]
    z = torch.randn(3, flow.features, dtype=flow.dtype)
    trajectory = Trajectory(flow)
    ends = [0.0, equation.time_span] if data_time == "end" else [equation.time_span, 0.0]
    assert [trajectory.label(0.0), trajectory.label(1.0)] == pytest.approx(ends, rel=1e-5)
    with torch.inference_mode():
        states = [trajectory.decode(z, None, p) for p in np.linspace(0, 1, 33)]
        near = trajectory.decode(z, None, 0.5 + 1e-4)
    steps = [(b - a).norm(dim=1) for a, b in itertools.pairwise(states)]
    whole = sum(step.mean() for step in steps)
    assert max(step.max() for step in steps) < 0.2 * whole
    assert 0 < (near - states[16]).norm() < 0.02 * whole
