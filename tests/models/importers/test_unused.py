"""A hyper-parameter that is given matters or is refused; two readings are asked about."""

from pathlib import Path
from typing import Any

import pytest
import torch

import models
from models.flow import Flow
from models.importers.report import HyperParametersMissing, ImportRefused
from models.importers.run import Request, run
from tests.models.importers.golden import Golden, load, relative_error

# One or two of every source, with and without networks, scales, splines, images.
CASES = (
    *("chaiyujin_glow_b", "chrischute_glow_a", "ffjord_toy_a", "ikostrikov_realnvp_a"),
    *(
        "kamenbliznashki_glow_a",
        "kamenbliznashki_made_labels",
        "nflows_nsf_coupling_a",
        "nflows_inverses",
    ),
    *("normflows_glow_a", "normflows_block_swap_sigmoid", "normflows_nsf_ar_context_encoded_base"),
    *("rosinality_glow_a", "torchcfm_mlp_a", "y0ast_reverse", "zuko_cnf_a", "zuko_mixture"),
    *("zuko_nsf_context_slope_passes", "normflows_planar_radial_mixed"),
    *("zuko_ncsf_a", "normflows_circular_a"),
)
# Arguments that every call of a constructor has and that another one switches off.
IDLE = {
    ("ikostrikov_realnvp_a", "act"),
    ("y0ast_reverse", "LU_decomposed"),
    ("y0ast_reverse", "y_classes"),
}
WORDS = ("tanh", "sigmoid", "channel_inv", "swap", "MAF")


def given(case: Golden) -> dict[str, Any]:
    config = {name: value for name, value in case.config.items() if name != "source"}
    return dict(config.get("hparams", {}).get("Glow", config))


def others(value: Any) -> list[Any]:
    """Other values of the same type; none of them is the truth about a checkpoint."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1]
    if isinstance(value, float):
        return [1.5 * value + 0.001]
    if isinstance(value, str):
        return [word for word in WORDS if word != value.lower()]
    return [3] if value is None else []


def is_same(one: Flow, other: Flow) -> bool:
    if one.config != other.config:
        return False
    if one.provenance["likelihood"] != other.provenance["likelihood"]:
        return False
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", CASES)
def test_what_is_given_matters_or_is_refused(name: str) -> None:
    case = load(name)
    flow, report = case.flow("source"), case.report("source")
    ignored = []
    for setting in report.settings:
        for value in others(setting.value):
            config = {**given(case), setting.name: value}
            try:
                changed, _ = run(case.checkpoint, Request(None, config))
            except ImportRefused:
                continue
            if is_same(flow, changed) and (name, setting.name) not in IDLE:
                ignored.append(f"{setting.name}={value}")
    assert not ignored


UNUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "no polynomials": ("zuko_nsf_a", {"degree": 16}, "degree: given, but nothing"),
    "no monotone network": ("zuko_maf_a", {"signal": 8}, "signal: given, but nothing"),
    "no splines": ("nflows_maf_a", {"tail_bound": 3.0}, "tail_bound: given, but nothing in this"),
    "no encoder": ("nflows_realnvp_a", {"encoder_activation": "relu"}, "encoder_activation: given"),
    "no MADE": (
        "kamenbliznashki_realnvp_a",
        {"activation_fn": "tanh"},
        "activation_fn: given, but nothing",
    ),
    "one MADE": ("kamenbliznashki_made_labels", {"n_blocks": 3}, "n_blocks: 3 was given, .* say 1"),
    "no logit": ("ffjord_tabular_a", {"alpha": 0.05}, "alpha: given, but nothing"),
    "no pixels": ("ffjord_tabular_a", {"add_noise": False}, "add_noise: given, but nothing"),
    "no network": ("normflows_realnvp_a", {"activation": "tanh"}, "activation: .* say .relu"),
    "widths": (
        "zuko_maf_a",
        {"hidden_features": [28, 29]},
        r"hidden_features: \[28, 29\] was given",
    ),
    "transforms": ("zuko_maf_a", {"transforms": 4}, "transforms: 4 was given, .* say 3"),
    "layers": ("nflows_maf_a", {"num_layers": 5}, "num_layers: 5 was given, .* say 3"),
    "blocks": ("normflows_nsf_coupling_a", {"num_blocks": 3}, "num_blocks: 3 was given, .* say 2"),
    "planar maps": (
        "normflows_planar_radial_mixed",
        {"act": ["tanh"]},
        "act: expected one value for all, or 2, one for each of flows.0, flows.3; got 1",
    ),
    "no planar map": ("normflows_radial_a", {"act": "tanh"}, "act: given, but nothing"),
    "affine slope": ("zuko_maf_a", {"slope": 0.01}, "slope 0.01: expected 0.001 for affine maps"),
    "affine univariate": ("zuko_nice_a", {"univariate": "AdditiveTransform"}, "univariate: .* say"),
    "another base": (
        "nflows_realnvp_a",
        {"base": "DiagonalNormal"},
        "base: .* say .StandardNormal",
    ),
    "another step": ("nflows_nsf_coupling_a", {"layers_per_step": ["LULinear"]}, "layers_per_step"),
    "conv layers": ("ffjord_toy_a", {"layer_type": "concat"}, "layer_type: .* say .concatsquash"),
    "depth": ("torchcfm_mlp_a", {"depth": 2}, "depth: 2 was given, .* say 3"),
}


@pytest.mark.parametrize(("name", "changes", "message"), UNUSED.values(), ids=UNUSED)
def test_what_the_checkpoint_has_no_use_for_is_refused(
    name: str, changes: dict[str, Any], message: str
) -> None:
    case = load(name)
    with pytest.raises(ImportRefused, match=message):
        models.import_checkpoint(case.checkpoint, None, {**given(case), **changes})


@pytest.mark.parametrize("name", ["nflows_maf_no_blocks", "zuko_maf_no_hidden"])
def test_what_another_argument_switches_off_is_said_to_be_ignored(name: str) -> None:
    """The conversion reads the activation, also where no layer has one."""
    case = load(name)
    _, report = run(case.checkpoint, Request(None, {**given(case), "activation": "tanh"}))
    ignored = {item.what: item.detail for item in report.items if item.kind == "ignored"}
    assert ignored["activation"].startswith("not used: no network has")


def test_arguments_stored_in_the_file_are_no_claims(tmp_path: Path) -> None:
    case = load("nflows_maf_a")
    state = torch.load(case.checkpoint, weights_only=True)
    torch.save({"hparams": {"tail_bound": 3.0, "lr": 1e-3}, "state_dict": state}, tmp_path / "m.pt")
    flow, _ = run(tmp_path / "m.pt", Request(None, given(case), "none"))
    x = case.arrays["x"]
    assert torch.equal(flow.log_prob(x), case.flow().log_prob(x))


def test_the_scale_of_a_coupling_is_asked_for() -> None:
    """Taken as exp without a question, it was off by 0.88 nats."""
    case = load("normflows_block_shuffle_sigmoid")
    for config in ({}, {"activation": "relu"}):
        with pytest.raises(
            HyperParametersMissing, match=r"exp .*, sigmoid or sigmoid_inv"
        ) as caught:
            models.import_checkpoint(case.checkpoint, None, config)
        assert "split_mode" in str(caught.value)
    flow = models.import_checkpoint(
        case.checkpoint, None, {"activation": "relu", "scale_map": "sigmoid"}
    )
    error = relative_error(flow.log_prob(case.arrays["x"]), case.arrays["log_prob"])
    assert error <= 1e-11
    warned = [
        finding["what"] for finding in flow.provenance["findings"] if finding["kind"] == "warning"
    ]
    assert warned == ["scale_map", "split_mode"]


MIXED = {
    **{name: value for name, value in load("normflows_mixed").config.items() if name != "_info"},
    "permute": "swap_between",
}
LINES = MIXED.pop("layers_per_step")
EXCHANGED = [LINES[index] for index in (0, 3, 2, 1, 4, 5, 6, 7)]


def test_layers_that_differ_take_a_list() -> None:
    case = load("normflows_mixed")
    flow = models.import_checkpoint(case.checkpoint, None, MIXED)
    assert relative_error(flow.log_prob(case.arrays["x"]), case.arrays["log_prob"]) <= 1e-11


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"scale_map": "exp"},
            "scale_map: exp was given for all blocks, .* not alike .* list of 4",
        ),
        ({"split_mode": "channel"}, "split_mode: channel was given for all blocks, .* list of 4"),
        ({"scale_map": ["exp"] * 3}, r"scale_map: expected one value .*, or 4, .* got 3"),
        ({"scale": True}, r"scale: true was given, .* say \[true, true, false, true\]"),
        ({"permute_mode": ["swap"] * 3}, "permute_mode: .* was given"),
    ],
    ids=str,
)
def test_one_value_for_layers_that_differ_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ImportRefused, match=message):
        models.import_checkpoint(load("normflows_mixed").checkpoint, None, {**MIXED, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers_per_step": EXCHANGED}, "layers_per_step: .* the weights say"),
        ({"layers_per_step": ["acb exp channel"] * 8}, "expected one line a flow, .* got 'acb"),
        ({"layers_per_step": "acb"}, "expected one line a flow, .* got 'acb'"),
        ({"layers_per_step": []}, r"expected one line a flow, .* got \[\]"),
        ({"scale_map": ["exp"] * 4}, "scale_map: .* was given, and layers_per_step says"),
        ({"permute": "swap"}, "permute: 'swap' was given, and layers_per_step says 'swap_between'"),
    ],
    ids=str,
)
def test_a_description_line_by_line_is_compared(changes: dict[str, Any], message: str) -> None:
    case = load("normflows_mixed")
    with pytest.raises(ImportRefused, match=message):
        models.import_checkpoint(case.checkpoint, None, {**case.config, **changes})


def test_polynomials_are_not_taken_for_splines() -> None:
    """A Bernstein polynomial of degree 16 has as many parameters as a spline of 6 bins."""
    case = load("zuko_bpf")
    settings = given(case)
    with pytest.raises(ImportRefused, match="degree: given, but nothing"):
        models.import_checkpoint(case.checkpoint, None, {**settings, "constructor": "NSF"})
    del settings["degree"], settings["constructor"]
    with pytest.raises(HyperParametersMissing, match="Bernstein polynomial of degree 16"):
        models.import_checkpoint(case.checkpoint, None, settings)
    with pytest.raises(HyperParametersMissing, match="univariate is not in the checkpoint"):
        models.import_checkpoint(case.checkpoint, None, {**settings, "constructor": "MAF"})
    flow = models.import_checkpoint(case.checkpoint, None, {**settings, "constructor": "NSF"})
    (warning,) = (item for item in flow.provenance["findings"] if item["kind"] == "warning")
    assert "Bernstein polynomials of degree 16 (BPF) have as many" in warning["detail"]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("zuko_bpf", {"degree": 12}, "degree: 12 was given, but the weights say 16"),
        ("zuko_sospf_a", {"degree": 3}, "degree 4 with polynomials 3"),
        ("zuko_sospf_a", {"constructor": "NSF"}, "others without tensors, as in SOSPF"),
        ("zuko_sospf_a", {"degree": None}, "give degree and polynomials: degree 14"),
        ("zuko_naf_a", {"constructor": "MAF"}, 'the weights say "NAF"'),
        ("zuko_naf_a", {"signal": 4}, "the weights say 8"),
        ("zuko_naf_a", {"network": {"hidden_features": [9]}}, r"hidden_features \[12, 12\]"),
        ("zuko_naf_a", {"network": {"activation": "ELU"}}, "for UNAF the activation"),
        ("zuko_unaf_a", {"network": {"activation": "Sine"}}, "activation 'Sine' is not known"),
    ],
)
def test_arguments_of_monotone_flows_are_compared(
    name: str, changes: dict[str, Any], message: str
) -> None:
    case = load(name)
    config = {**case.config, **changes}
    given = {name: value for name, value in config.items() if value is not None}
    with pytest.raises(ImportRefused, match=message):
        models.import_checkpoint(case.checkpoint, None, given)
