import itertools

import pytest
import torch
from torch import Tensor

from models.conditioners.conv import GlowNet
from models.registry import build
from models.training.initialisation import initialise_actnorm
from models.transforms.actnorm import ActNorm
from tests.cases import perturb

FORMS = {
    "scale_then_shift": lambda x, shift, scale: x * scale + shift,
    "shift_then_scale": lambda x, shift, scale: (x + shift) * scale,
    "unshift_then_unscale": lambda x, shift, scale: (x - shift) / scale,
}
variants = pytest.mark.parametrize(
    ("form", "storage"), list(itertools.product(FORMS, ("log", "direct")))
)
shapes = pytest.mark.parametrize("shape", [(50, 3), (6, 3, 4, 2)], ids=["vector", "image"])


def data(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(shape, generator=generator, dtype=torch.float64) + 5


@variants
@shapes
def test_formula(form: str, storage: str, shape: tuple[int, ...]) -> None:
    layer = ActNorm(3, form, storage).double()
    shift, scale = torch.tensor([0.5, -1.0, 2.0]).double(), torch.tensor([0.5, 2.0, 3.0]).double()
    with torch.no_grad():
        layer.shift.copy_(shift)
        if storage == "log":
            layer.log_scale.copy_(scale.log())
        else:
            scale = scale * torch.tensor([1, -1, 1])
            layer.scale.copy_(scale)
    x = data(*shape)
    y, log_det = layer.encode(x)
    columns = [-1] + [1] * (len(shape) - 2)
    expected = FORMS[form](x, shift.view(columns), scale.view(columns))
    sign = -1 if form == "unshift_then_unscale" else 1
    positions = torch.Size(shape[2:]).numel()
    assert torch.allclose(y, expected, rtol=1e-14)
    assert torch.allclose(log_det, sign * positions * scale.abs().log().sum().expand(shape[0]))


@variants
@shapes
def test_initialisation_standardises_every_channel(
    form: str, storage: str, shape: tuple[int, ...]
) -> None:
    layer = ActNorm(3, form, storage).double()
    x = data(*shape)
    initialise_actnorm(layer, x)
    values = layer.encode(x)[0].transpose(0, 1).flatten(1)
    assert torch.allclose(values.mean(1), torch.zeros(3).double(), atol=1e-12)
    assert torch.allclose(values.std(1, correction=0), torch.ones(3).double(), rtol=1e-6)


def test_a_constant_channel_stays_finite() -> None:
    layer = ActNorm(1).double()
    x = torch.ones(4, 1).double()
    initialise_actnorm(layer, x)
    assert torch.equal(layer.encode(x)[0], torch.zeros(4, 1).double())


def test_nothing_but_the_explicit_act_sets_it() -> None:
    layer = ActNorm(2).train()
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    layer.encode(torch.randn(4, 2, 3, 3))
    layer.decode(torch.randn(4, 2, 3, 3))
    assert set(before) == {"shift", "log_scale"}
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


def test_one_row_is_too_few_and_leaves_no_trace() -> None:
    layer = ActNorm(2)
    with pytest.raises(ValueError, match="at least 2 values a channel, got 1"):
        initialise_actnorm(layer, torch.ones(1, 2))
    y, _ = layer.encode(torch.full((3, 2), 7.0))
    assert torch.equal(y, torch.full((3, 2), 7.0))


def test_every_layer_of_a_flow_is_set_in_turn() -> None:
    torch.manual_seed(0)
    config = {"event_shape": [1, 8, 8], "num_levels": 2, "num_steps": 2, "hidden_channels": 4}
    flow = perturb(build("glow", config).double(), 0.1)
    batch = data(64, 1, 8, 8)
    initialise_actnorm(flow, batch)
    layers = [module for module in flow.modules() if isinstance(module, ActNorm)]
    nets = [module for module in flow.modules() if isinstance(module, GlowNet)]
    assert len(layers) == 2 * 2 + 2 * len(nets) == 12
    outputs: list[Tensor] = []
    for layer in layers:
        layer.encode = _recording(layer, outputs)
    with torch.no_grad():
        flow.encode(batch)
    assert len(outputs) == len(layers)
    for output in outputs:
        values = output.transpose(0, 1).flatten(1)
        assert float(values.mean(1).abs().max()) < 1e-9
        assert float((values.std(1, correction=0) - 1).abs().max()) < 1e-3


def _recording(layer: ActNorm, outputs: list[Tensor]):
    encode = layer.encode

    def record(x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        result = encode(x, context)
        outputs.append(result[0])
        return result

    return record


@pytest.mark.parametrize("argument", ["form", "storage"])
def test_unknown_variants_are_named(argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument}: expected one of"):
        ActNorm(2, **{argument: "other"})
