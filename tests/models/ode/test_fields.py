"""Vector fields: their traces and quadratic forms against autograd Jacobians, in float64."""

from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from models.ode.fields import ConvDynamics, DenseDynamics, Dynamics, UNetDynamics, UNetSettings
from models.ode.fields.activations import Nonlinearity
from models.ode.fields.conv_layers import ConvLayerType, Stride
from models.ode.fields.dense_layers import DenseLayerType

ROWS = 3
WIDTHS = (5, 4, 6)

dense_layer_types = pytest.mark.parametrize("layer_type", get_args(DenseLayerType))
nonlinearities = pytest.mark.parametrize("nonlinearity", get_args(Nonlinearity))
# Shape, hidden channels, strides: no hidden layer; reach below and above the size of the image.
conv_stacks = pytest.mark.parametrize(
    ("shape", "hidden", "strides"),
    [
        pytest.param((2, 4, 3), (), None, id="one-layer"),
        pytest.param((1, 8, 7), (3,), None, id="two-layers"),
        pytest.param((2, 3, 9), (2, 2), None, id="three-layers"),
        pytest.param((1, 8, 8), (2, 2), (2, 1, -2), id="strides"),
        pytest.param((1, 12, 12), (2, 2, 2), (-2, 2, 2, -2), id="doubled-first"),
    ],
)


class Rotation(Dynamics):
    """A field that has nothing but its velocity: dx/dt = sin(t x) + context * roll(x)."""

    def __init__(self) -> None:
        super().__init__((3,))
        self.weight = torch.nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))

    def velocity(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        turned = x.roll(1, 1) * x * self.weight
        return torch.sin(t * x) + (turned if context is None else context * turned)


def perturbed(dynamics: Dynamics, scale: float = 0.3) -> Dynamics:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in dynamics.double().parameters():
            parameter += scale * torch.randn_like(parameter)
    return dynamics


def arguments(dynamics: Dynamics, context: int = 0) -> tuple[Tensor, Tensor, Tensor | None]:
    """Every row has a time of its own."""
    generator = torch.Generator().manual_seed(2)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return (
        draw(ROWS, 1).sigmoid(),
        draw(ROWS, *dynamics.event_shape),
        draw(ROWS, context) if context else None,
    )


def jacobians(dynamics: Dynamics, t: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
    size = x[0].numel()
    rows = []
    for i in range(len(x)):
        part = None if context is None else context[i : i + 1]
        jacobian = torch.autograd.functional.jacobian(
            lambda v, i=i, part=part: dynamics.velocity(t[i : i + 1], v, part), x[i : i + 1]
        )
        rows.append(jacobian.reshape(size, size))
    return torch.stack(rows)


def check_trace(dynamics: Dynamics, context_features: int = 0) -> None:
    t, x, context = arguments(dynamics, context_features)
    expected = jacobians(dynamics, t, x, context).diagonal(dim1=1, dim2=2).sum(1)
    dx, trace = dynamics.velocity_and_trace(t, x, context)
    assert trace.shape == (ROWS,)
    torch.testing.assert_close(dx, dynamics.velocity(t, x, context), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(trace, expected, rtol=1e-12, atol=1e-12)


def check_forms(dynamics: Dynamics, context_features: int = 0) -> None:
    """Probes for all rows and probes of each row, by the field's own way and by autograd's."""
    t, x, context = arguments(dynamics, context_features)
    jacobian = jacobians(dynamics, t, x, context)
    shared = torch.randn(2, *dynamics.event_shape, dtype=torch.float64)
    own = torch.randn(ROWS, 2, *dynamics.event_shape, dtype=torch.float64)
    for probes in (shared, own):
        flat = probes.expand(ROWS, *own.shape[1:]).flatten(2)
        expected = torch.einsum("bki,bij,bkj->bk", flat, jacobian, flat)
        for function in (type(dynamics).velocity_and_forms, Dynamics.velocity_and_forms):
            dx, forms = function(dynamics, t, x, probes, context)
            torch.testing.assert_close(dx, dynamics.velocity(t, x, context), rtol=1e-13, atol=1e-13)
            torch.testing.assert_close(forms, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 3])
@nonlinearities
@dense_layer_types
def test_dense_trace_is_exact(layer_type: DenseLayerType, nonlinearity: str, depth: int) -> None:
    hidden = WIDTHS[:depth]
    check_trace(
        perturbed(DenseDynamics(3, hidden, layer_type=layer_type, nonlinearity=nonlinearity))
    )


@dense_layer_types
def test_dense_trace_is_exact_without_hidden_layers(layer_type: DenseLayerType) -> None:
    check_trace(perturbed(DenseDynamics(3, (), layer_type=layer_type, residual=True)))


@pytest.mark.parametrize("time_input", ["none", "fourier", "last"])
@pytest.mark.parametrize("layer_type", ["ignore", "hyper", "concatsquash"])
def test_dense_inputs_and_forms(layer_type: DenseLayerType, time_input: str) -> None:
    dynamics = perturbed(
        DenseDynamics(
            3,
            WIDTHS,
            layer_type=layer_type,
            time_input=time_input,
            num_frequencies=2 if time_input == "fourier" else 0,
            context_features=2,
            residual=True,
        )
    )
    check_trace(dynamics, context_features=2)
    check_forms(dynamics, context_features=2)


def test_order_of_the_first_inputs() -> None:
    """[cos(w t), sin(w t), x, c] as zuko has it, [x, c, t] as torchcfm has it."""
    t, x, context = torch.tensor([[0.3]]), torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]])
    angles = torch.tensor([[torch.pi * 0.3, 2 * torch.pi * 0.3]])
    expected = {
        "fourier": torch.cat([angles.cos(), angles.sin(), x, context], 1),
        "last": torch.tensor([[1.0, 2.0, 3.0, 0.3]]),
        "none": torch.tensor([[1.0, 2.0, 3.0]]),
    }
    for time_input, inputs in expected.items():
        dynamics = DenseDynamics(
            2,
            (),
            layer_type="ignore",
            time_input=time_input,
            num_frequencies=2 if time_input == "fourier" else 0,
            context_features=1,
        )
        linear = dynamics.layers[0].linear
        torch.testing.assert_close(dynamics.velocity(t, x, context), linear(inputs))


def test_dense_layers_follow_their_formulas() -> None:
    t, x = torch.tensor([[0.2], [0.7]]), torch.randn(2, 3)

    def layer(kind: str) -> tuple[torch.nn.Module, Tensor]:
        dynamics = DenseDynamics(3, (), layer_type=kind)
        return dynamics.layers[0], dynamics.velocity(t, x)

    concat, got = layer("concat")
    torch.testing.assert_close(got, concat.linear(torch.cat([t, x], 1)))
    squash, got = layer("squash")
    torch.testing.assert_close(got, squash.linear(x) * torch.sigmoid(squash.gate(t)))
    both, got = layer("concatsquash")
    expected = both.linear(x) * torch.sigmoid(both.gate(t)) + both.shift(t)
    torch.testing.assert_close(got, expected)
    blend, got = layer("blend")
    torch.testing.assert_close(got, blend.start(x) + (blend.end(x) - blend.start(x)) * t)
    hyper, got = layer("hyper")
    numbers = hyper.hypernet(t)
    weight = numbers[:, 3:].view(2, 3, 3)
    torch.testing.assert_close(got, torch.einsum("boi,bi->bo", weight, x) + numbers[:, :3])


@conv_stacks
@pytest.mark.parametrize("layer_type", get_args(ConvLayerType))
def test_conv_trace_and_forms_are_exact(
    layer_type: ConvLayerType,
    shape: tuple[int, int, int],
    hidden: tuple[int, ...],
    strides: tuple[Stride, ...] | None,
) -> None:
    dynamics = perturbed(
        ConvDynamics(shape, hidden, strides=strides, layer_type=layer_type, residual=True)
    )
    check_trace(dynamics)
    if layer_type in ("concatsquash", "hyper"):
        check_forms(dynamics)


@pytest.mark.parametrize(
    ("hidden", "strides", "probes"),
    [((8,), None, 9), ((8, 8), None, 16), ((8, 32, 32, 8), (2, 2, 1, -2, -2), 196)],
)
def test_probes_grow_with_the_reach_not_the_image(
    hidden: tuple[int, ...], strides: tuple[Stride, ...] | None, probes: int
) -> None:
    for side in (28, 64):
        dynamics = ConvDynamics((1, side, side), hidden, strides=strides)
        assert dynamics.num_exact_probes == probes
        assert dynamics.exact_probes(torch.empty(0)).shape == (probes, 1, side, side)
    assert ConvDynamics((2, 2, 2), hidden).num_exact_probes == 8


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((2, 4, 2), {"channels": (2, 4), "attention_factors": (1, 2), "residual_resampling": True}),
        ((1, 2, 4), {"channels": (4, 2), "num_heads": 2, "num_heads_up": 1}),
        ((1, 4, 4), {"channels": (2, 2, 2), "learned_resampling": False, "head_channels": 1}),
    ],
    ids=["residual", "learned", "plain"],
)
def test_unet_trace_and_forms_are_exact(
    shape: tuple[int, int, int], settings: dict[str, Any]
) -> None:
    dynamics = perturbed(
        UNetDynamics(shape, UNetSettings(time_features=3, num_groups=1, **settings))
    )
    check_trace(dynamics)
    check_forms(dynamics)


def test_the_width_of_a_unet_is_that_of_its_widest_place() -> None:
    settings = UNetSettings(channels=(2, 8), time_features=2, num_groups=1)
    # On the way up the finest resolution takes 8 channels and the 2 that were handed over.
    assert UNetDynamics((1, 4, 4), settings).width == (8 + 2) * 4 * 4
    # Attention over the 64 pixels of the finest resolution: each looks at each.
    looking = UNetSettings(channels=(2,), time_features=2, num_groups=1, num_heads=2)
    assert UNetDynamics((1, 8, 8), looking).width == 2 * 64 * 64


def test_conv_layers_follow_their_formulas() -> None:
    t, x = torch.tensor([0.2]).view(1, 1), torch.randn(1, 2, 4, 6)

    def layer(kind: str, stride: Stride) -> tuple[torch.nn.Module, Tensor]:
        dynamics = ConvDynamics((2, 4, 6), (2,), layer_type=kind, strides=(stride, -stride))
        made = dynamics.layers[0]
        return made, made(t, x)

    time = torch.full((1, 1, 4, 6), 0.2)
    for stride in (2, -2):
        concat, got = layer("concat", stride)
        torch.testing.assert_close(got, concat.conv(torch.cat([time, x], 1)))
        squash, got = layer("concatsquash", stride)
        gate = torch.sigmoid(squash.gate(t))[..., None, None]
        expected = squash.conv(x) * gate + squash.shift(t)[..., None, None]
        torch.testing.assert_close(got, expected)
        rows = torch.arange(4.0).view(1, 1, 4, 1).expand(1, 1, 4, 6)
        columns = torch.arange(6.0).view(1, 1, 1, 6).expand(1, 1, 4, 6)
        coord, got = layer("concatcoord", stride)
        expected = coord.conv(torch.cat([x, time, rows, columns], 1))
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
        hyper, got = layer("hyper", stride)
        numbers = hyper.hypernet(t)[0]
        convolve = torch.conv2d if stride > 0 else torch.conv_transpose2d
        weight = numbers.view(2, 2, 4, 4)
        torch.testing.assert_close(got, convolve(x, weight, numbers[:2], 2, 1))


@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no-grad"])
def test_a_field_with_nothing_but_a_velocity(grad: bool) -> None:
    dynamics = Rotation().double()
    t, x, _ = arguments(dynamics)
    context = torch.randn(ROWS, 3, dtype=torch.float64)
    expected = jacobians(dynamics, t, x, context).diagonal(dim1=1, dim2=2).sum(1)
    with torch.set_grad_enabled(grad):
        dx, trace = dynamics.velocity_and_trace(t, x, context)
    assert (dx.requires_grad, trace.requires_grad) == (grad, grad)
    torch.testing.assert_close(trace, expected, rtol=1e-12, atol=1e-12)


def test_autograd_traces_work_in_inference_mode() -> None:
    dynamics = Rotation()
    with torch.inference_mode():
        _, trace = dynamics.velocity_and_trace(torch.rand(2, 1), torch.randn(2, 3))
    assert not trace.requires_grad


def test_the_generic_trace_can_be_trained_through() -> None:
    dynamics = Rotation()
    _, trace = dynamics.velocity_and_trace(torch.rand(2, 1), torch.randn(2, 3))
    trace.sum().backward()
    assert dynamics.weight.grad is not None
    assert dynamics.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("arguments_", "message"),
    [
        ({"layer_type": "concat_v2"}, "layer_type: expected one of ignore, .*; got 'concat_v2'"),
        ({"nonlinearity": "sine"}, "nonlinearity: expected one of tanh, .*; got 'sine'"),
        ({"time_input": "fourier"}, "num_frequencies: expected 1 or more .* got 0 for 'fourier'"),
        ({"num_frequencies": 2}, "num_frequencies: .* got 2 for 'none'"),
    ],
)
def test_dense_refusals(arguments_: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DenseDynamics(2, (3,), **arguments_)


@pytest.mark.parametrize(
    ("arguments_", "message"),
    [
        ({"layer_type": "squash2"}, "layer_type: expected one of ignore, .*; got 'squash2'"),
        ({"strides": (1,)}, r"strides: expected 2, one a layer, got \(1,\)"),
        ({"strides": (2, 1)}, "strides: expected to lead from 6 pixels back"),
        ({"strides": (2, 2)}, "strides: cannot halve 3 pixels of 6"),
    ],
)
def test_conv_refusals(arguments_: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConvDynamics((1, 6, 6), (3,), **arguments_)
