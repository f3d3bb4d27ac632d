"""Networks in another precision: certified against float64, refused where they cost too much."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.fold import fold
from models.fold.networks import Network
from models.fold.precision import (
    TensorCoreLayer,
    convolve_in_tf32,
    set_precision,
    split,
    use_tensor_cores,
)
from service.engines.autotune import select_engine
from service.engines.precision import (
    BOUND_NATS,
    BOUND_SHARE,
    PrecisionRefused,
    certify,
    fold_in_precision,
)
from service.engines.selection import EngineConfig, EngineUnavailable
from tests.service.engines.cuda.flows import checkpoint, golden_rows

pytestmark = pytest.mark.xdist_group("folded")

GOOD, BAD = "nice_logistic_halves", "realnvp"


def config(name: str, precision: str, **changes: Any) -> EngineConfig:
    return EngineConfig(checkpoint(name), threads=1, max_rows=4, precision=precision, **changes)


def test_networks_alone_are_narrow_and_the_error_is_measured() -> None:
    flow, facts = fold_in_precision(config(GOOD, "fp16"))
    networks = [part for part in flow.modules() if isinstance(part, Network)]
    inside = {id(tensor) for part in networks for tensor in part.parameters()}
    dtypes = {tensor.dtype for part in networks for tensor in part.parameters()}
    assert dtypes == {torch.float16}
    assert torch.float16 not in {
        tensor.dtype for tensor in (*flow.parameters(), *flow.buffers()) if id(tensor) not in inside
    }
    assert facts["name"] == "fp16"
    assert 0 < facts["max_error_nats"] <= facts["bound_nats"]
    assert facts["rows"] > 12  # golden rows, and as many large ones, and tails
    x = torch.from_numpy(golden_rows(GOOD)[0])
    with torch.inference_mode():
        z, log_det = flow.encode(x)
        wanted = checkpoint(GOOD).exact.log_prob(x.double())
        error = (flow.log_prob(x).double() - wanted).abs()
    assert (z.dtype, log_det.dtype) == (torch.float32, torch.float32)
    assert (error <= BOUND_NATS + BOUND_SHARE * wanted.abs()).all()


@pytest.mark.parametrize("name", ["maf_mlp_classes", "nsf"])
def test_autoregressive_decodes_and_splines_take_narrow_networks(name: str) -> None:
    flow, facts = fold_in_precision(config(name, "fp16"))
    _, z, context = golden_rows(name)
    with torch.inference_mode():
        condition = None if context is None else torch.from_numpy(context)
        x, _ = flow.decode(torch.from_numpy(z), condition)
    assert x.dtype == torch.float32
    assert facts["max_error_nats"] <= facts["bound_nats"]


def test_a_precision_that_costs_too_much_is_refused_with_its_error() -> None:
    with pytest.raises(PrecisionRefused) as refused:
        fold_in_precision(config(BAD, "bf16"))
    message = str(refused.value)
    assert "\n" not in message
    assert message.startswith("precision bf16: log_prob of a row is off by ")
    assert message.endswith(" is allowed: choose float32, or another precision")


def test_rows_that_are_no_numbers_count_as_wrong() -> None:
    flow = fold(checkpoint(GOOD).flow)
    for part in flow.modules():
        if isinstance(part, nn.Linear):
            part.bias.fill_(torch.inf)
    with pytest.raises(PrecisionRefused, match="off by inf nats"):
        certify(flow, config(GOOD, "fp16"))


def test_float32_is_the_folded_flow_to_its_bits() -> None:
    one = config(GOOD, "float32")
    flow, facts = fold_in_precision(one)
    assert facts == {}
    x = torch.from_numpy(golden_rows(GOOD)[0])
    with torch.inference_mode():
        for a, b in zip(flow.encode(x), fold(one.flow).encode(x), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("name", "precision", "reason"),
    [
        (GOOD, "tf32", "expected a CUDA device, which alone has TF32; this is cpu"),
        (GOOD, "tf32x3", "expected a CUDA device"),
        ("ffjord", "fp16", "the steps of continuous flows need float32"),
    ],
)
def test_what_cannot_be_had_is_told(name: str, precision: str, reason: str) -> None:
    with pytest.raises(PrecisionRefused, match=f"precision {precision}: {reason}"):
        fold_in_precision(config(name, precision))


def test_a_model_in_float64_keeps_it() -> None:
    one = checkpoint(GOOD)
    with pytest.raises(PrecisionRefused, match="the model is served in float64"):
        fold_in_precision(
            EngineConfig(replace(one, flow=one.exact), threads=1, max_rows=4, precision="bf16")
        )


def test_engines_that_compute_so_are_chosen() -> None:
    for name in ("auto", "folded"):
        selection = select_engine(name, config(GOOD, "fp16"))
        assert (selection.engine.name, selection.engine.dtype) == ("folded", "float32")
        assert selection.precision["name"] == "fp16"
    for name in ("torch", "onnx"):
        with pytest.raises(EngineUnavailable, match="for fp16 choose folded or auto"):
            select_engine(name, config(GOOD, "fp16"))
    with pytest.raises(EngineUnavailable, match="precision bf16: log_prob of a row is off by"):
        select_engine("auto", config(BAD, "bf16"))


def round_to_tf32(values: Tensor) -> Tensor:
    """The nearest numbers of 10 bits of mantissa, as tensor cores see them at best."""
    return ((values.view(torch.int32) + 2**12) & -(2**13)).view(torch.float32)


def convolve_rounded(x: Tensor, weight: Tensor, padding: tuple[int, ...]) -> Tensor:
    return F.conv2d(round_to_tf32(x), round_to_tf32(weight), padding=padding)


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_three_products_of_split_numbers_have_nearly_float32s_error(kind: str) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 32) if kind == "linear" else nn.Conv2d(8, 6, 3, padding=1)
    x = torch.randn(16, 64) if kind == "linear" else torch.randn(2, 8, 5, 5)
    with torch.inference_mode():
        wanted = layer.double()(x.double())
        layer.float()
        error = {
            parts: (TensorCoreLayer(layer, parts, convolve_rounded)(x) - wanted).abs().max().item()
            for parts in (1, 3)
        }
        plain = (layer(x) - wanted).abs().max().item()
    assert 1e-4 < error[1] < 3e-3
    assert error[3] < 3e-6
    assert error[3] < 5 * plain


def test_the_split_is_exact() -> None:
    values = torch.randn(1000) * torch.logspace(-20, 20, 1000)
    first, rest = split(values)
    assert torch.equal(first + rest, values)
    assert torch.equal(round_to_tf32(first), first)
    assert (rest.abs() <= 2.0**-10 * values.abs()).all()


def test_all_linear_layers_of_networks_are_replaced() -> None:
    flow = fold(checkpoint("glow_additive_plain").flow)
    x = torch.from_numpy(golden_rows("glow_additive_plain")[0])
    with torch.inference_mode():
        wanted = flow.encode(x)
        for part in flow.modules():
            if isinstance(part, Network):
                use_tensor_cores(part, 3)
                assert not any(type(one) in (nn.Linear, nn.Conv2d) for one in part.modules())
        # Without tensor cores the same call computes in float32.
        for a, b in zip(flow.encode(x), wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)


def test_the_call_that_asks_for_tensor_cores_is_a_convolution() -> None:
    x, weight = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 3, 3)
    got = convolve_in_tf32(x, weight, (1, 1))
    torch.testing.assert_close(got, F.conv2d(x, weight, padding=1))


def test_a_flow_without_networks_has_nothing_to_change() -> None:
    flow = fold(checkpoint("ffjord").flow)
    with pytest.raises(ValueError, match="expected a flow with couplings or autoregressive maps"):
        set_precision(flow, "bf16")
