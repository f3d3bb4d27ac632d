"""Image flows of public code give the numbers of that code."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.flow import Flow
from models.importers.likelihood import source_number
from tests.models.importers.golden import Golden, load, relative_error

GIVEN = (
    "chaiyujin_glow_a",
    "chaiyujin_glow_b",
    "chrischute_glow_a",
    "chrischute_realnvp_a",
    "kamenbliznashki_glow_a",
    "normflows_glow_a",
    "rosinality_glow_a",
    "rosinality_glow_b",
    "y0ast_glow_a",
    "y0ast_glow_b",
)
MORE = (
    "chaiyujin_attributes",
    "chaiyujin_grey_additive",
    "chrischute_glow_rectangle",
    "chrischute_realnvp_rectangle",
    "kamenbliznashki_glow_lu",
    "kamenbliznashki_glow_one_level",
    "normflows_glow_additive_shift",
    "normflows_glow_exp_channel_inv",
    "normflows_glow_one_level_actnorm",
    "normflows_glow_sigmoid_inv_logit",
    "rosinality_additive",
    "rosinality_mixed_lu",
    "rosinality_rectangle",
    "y0ast_classes_without_top",
    "y0ast_reverse",
)
TOLERANCE = 1e-8


@pytest.fixture(scope="module", params=GIVEN + MORE)
def case(request: pytest.FixtureRequest) -> Golden:
    return load(request.param)


@pytest.fixture(scope="module", params=GIVEN)
def given(request: pytest.FixtureRequest) -> Golden:
    return load(request.param)


@pytest.fixture(scope="module")
def flow(case: Golden) -> Flow:
    return case.flow()


@torch.no_grad()
def test_samples_are_the_sources(case: Golden, flow: Flow) -> None:
    """Noise in the documented order decodes to what the source makes of it, and back."""
    noise, expected = _noise_and_samples(case)
    x, _ = flow.decode(noise, case.context(len(noise)))
    assert relative_error(x, expected) <= TOLERANCE
    z, _ = flow.encode(expected, case.context(len(noise)))
    assert relative_error(z, noise) <= TOLERANCE


def _noise_and_samples(case: Golden) -> tuple[Tensor, Tensor]:
    arrays = case.arrays
    if "eps_gen" in arrays:
        return arrays["eps_gen"], arrays["x_gen"]
    if case.name.startswith("chrischute"):  # the source stops at the logits
        bound = _tensors(case)[_BOUNDS[case.config["family"]]].double()
        squeezed = torch.sigmoid(arrays["y_gen"])
        return arrays["z_gen"].flatten(1), (squeezed - (1 - bound) / 2) / bound
    if case.name == "normflows_glow_a":
        return _whitened(case, arrays["z_gen"]), arrays["x_gen"]
    return arrays["z_gen"], arrays["x_gen"]


_BOUNDS = {"glow": "bounds", "realnvp": "data_constraint"}


def _tensors(case: Golden) -> dict[str, Tensor]:
    content = torch.load(case.checkpoint, weights_only=True)
    tensors = content.get("net", content)
    return {key.removeprefix("module."): value for key, value in tensors.items()}


def _whitened(case: Golden, z: Tensor) -> Tensor:
    """Standardise normflows' latents by the base of each level, deepest first."""
    tensors, parts, start = _tensors(case), [], 0
    labels = case.arrays["context"].long()[: len(z)]
    for level in range(case.config["L"]):
        mean = tensors[f"q0.{level}.loc"].double()[..., labels].movedim(-1, 0).flatten(1)
        log_std = tensors[f"q0.{level}.log_scale"].double()[..., labels].movedim(-1, 0).flatten(1)
        part = z[:, start : start + mean.shape[1]]
        parts.append((part - mean) * (-log_std).exp())
        start += mean.shape[1]
    return torch.cat(parts, 1)


@pytest.mark.parametrize(
    "name",
    [
        *("chrischute_glow_a", "chrischute_realnvp_a", "chrischute_glow_rectangle"),
        *(
            "chrischute_realnvp_rectangle",
            "kamenbliznashki_glow_a",
            "kamenbliznashki_glow_lu",
            "normflows_glow_a",
        ),
    ],
)
@torch.no_grad()
def test_latents_are_the_sources(name: str) -> None:
    """z itself, where no prior depends on other latents (elsewhere the samples tell)."""
    case = load(name)
    z, _ = case.flow().encode(case.arrays["x"], case.context())
    expected = case.arrays["z"]
    if name == "normflows_glow_a":
        expected = _whitened(case, expected)
    assert relative_error(z, expected) <= TOLERANCE


@torch.no_grad()
def test_round_trip_is_as_good_as_the_sources(given: Golden) -> None:
    x = given.arrays["x"]
    flow = given.flow()
    back, _ = flow.decode(flow.encode(x, given.context())[0], given.context())
    theirs = (given.arrays["x_roundtrip"] - x).abs().max()
    assert float((back - x).abs().max()) <= 4 * float(theirs) + 1e-12


@pytest.mark.parametrize("name", ["chrischute_glow_a", "rosinality_glow_a", "y0ast_glow_b"])
def test_log_det_of_pixels_is_that_of_the_jacobian(name: str) -> None:
    case = load(name)
    flow = case.flow("source")
    x = case.arrays["x_raw"][:1] + 0.25  # reducing bits is flat at integers, as it should be
    context = case.context(1)
    jacobian = torch.autograd.functional.jacobian(
        lambda value: flow.encode(value, context)[0].flatten(), x
    ).reshape(flow.features, flow.features)
    expected = torch.linalg.slogdet(jacobian).logabsdet
    assert float(flow.encode(x, context)[1]) == pytest.approx(float(expected), abs=1e-9)


@torch.no_grad()
def test_float32_is_as_good_as_the_sources(
    given: Golden, record_property: Callable[[str, object], None]
) -> None:
    context = given.context(8)
    got = (
        given.flow()
        .float()
        .log_prob(given.arrays["x"][:8].float(), None if context is None else context.float())
    )
    expected = given.arrays["log_prob"][:8]
    ours = float((got.double() - expected).abs().max())
    theirs = float((given.arrays["log_prob_f32"][:8] - expected).abs().max())
    record_property("log_prob_float32_error", ours)
    assert ours <= 4 * theirs + 1e-4


# x as the training scripts make it of 8-bit pixels; noise at the middle of its range.
INPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "chaiyujin": lambda pixels: pixels / 255,
    "chrischute": lambda pixels: (pixels + 0.5) / 256,
    "kamen": lambda pixels: (pixels + 0.5) / 256,
    "normflows": lambda pixels: (pixels + 0.5) / 256,
    "rosinality_glow_a": lambda pixels: (torch.floor(pixels / 8) + 0.5) / 32 - 0.5,
    "rosinality_glow_b": lambda pixels: (pixels + 0.5) / 256 - 0.5,
    "y0ast": lambda pixels: (pixels + 0.5) / 256 - 0.5,
}


@torch.no_grad()
def test_pixels_have_the_density_that_the_terms_say(given: Golden) -> None:
    pixels, context = given.arrays["x_raw"][:8], given.context(8)
    make = next(make for name, make in INPUTS.items() if given.name.startswith(name))
    on_pixels, on_inputs = given.flow("source"), given.flow("none")
    assert on_pixels.facts.num_levels == 256
    ours, theirs = on_pixels.log_prob(pixels, context), on_inputs.log_prob(make(pixels), context)
    likelihood = on_pixels.provenance["likelihood"]
    scale = likelihood["terms"][0]
    assert scale["name"] == "scale of the data"
    assert torch.allclose(ours + scale["nats"], theirs, rtol=1e-10, atol=1e-10)
    # Whichever inputs the flow takes, the source's own number is the same.
    numbers = source_number(likelihood, ours)
    assert torch.allclose(
        numbers, source_number(on_inputs.provenance["likelihood"], theirs), rtol=1e-10
    )


def _nats_loss(case: Golden) -> Tensor:
    return -(case.arrays["log_prob"] - _values(case) * math.log(256))


def _bits_of_rosinality(case: Golden) -> Tensor:
    values = 3 * case.config["img_size"] ** 2
    nats = case.arrays["log_prob"] - values * math.log(2 ** case.config["n_bits"])
    return -nats / (values * math.log(2))


def _values(case: Golden) -> int:
    return case.arrays["x"][0].numel()


REPORTED: dict[str, Callable[[Golden], Tensor]] = {
    "chaiyujin": lambda case: case.arrays["nll_source"],
    "chrischute": _nats_loss,
    "kamen": lambda case: _nats_loss(case) / (_values(case) * math.log(2)),
    "normflows": lambda case: case.arrays["log_prob_source"],
    "rosinality": _bits_of_rosinality,
    "y0ast": lambda case: case.arrays["bpd_source"],
}


@torch.no_grad()
def test_the_sources_own_number_is_reproduced(case: Golden, flow: Flow) -> None:
    expected = case.arrays.get("number")  # by the source itself, in the cases added here
    if expected is None:
        expected = next(of for name, of in REPORTED.items() if case.name.startswith(name))(case)
    got = source_number(
        flow.provenance["likelihood"], flow.log_prob(case.arrays["x"], case.context())
    )
    assert relative_error(got, expected) <= TOLERANCE


def test_terms_of_the_likelihood_are_in_bits_too(given: Golden) -> None:
    flow = given.flow("source")
    for term in flow.provenance["likelihood"]["terms"]:
        expected = -term["nats"] / (flow.features * math.log(2))
        assert term["bits_per_dim"] == pytest.approx(expected)
