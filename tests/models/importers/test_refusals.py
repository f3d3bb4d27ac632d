"""Checkpoints that do not fix a density, or are not what they are said to be, are refused."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import models
from models.importers.report import ImportRefused
from tests.models.importers.golden import load

State = dict[str, Tensor]
Spoil = Callable[[State], None]


def tensors(name: str) -> State:
    """The state dict of a golden case, plain."""
    content = torch.load(load(name).checkpoint, weights_only=True)
    for wrapper in ("net", "state_dict", "graph", "model"):
        content = content.get(wrapper, content)
    return {key.removeprefix("module."): value for key, value in content.items()}


def refusal(tmp_path: Path, name: str, state: State, source: str | None = None) -> ImportRefused:
    """What the importer says to a golden case with other tensors."""
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(ImportRefused) as caught:
        models.import_checkpoint(tmp_path / "model.pt", source, load(name).config)
    assert caught.value.report is not None
    return caught.value


def fill(key: str, value: float) -> Spoil:
    def spoil(state: State) -> None:
        state[key] = torch.full_like(state[key], value)

    return spoil


def repeat_row(key: str) -> Spoil:
    def spoil(state: State) -> None:
        state[key][1] = state[key][0]

    return spoil


def drop(start: str) -> Spoil:
    def spoil(state: State) -> None:
        for key in [key for key in state if key.startswith(start)]:
            del state[key]

    return spoil


def add(key: str) -> Spoil:
    def spoil(state: State) -> None:
        state[key] = torch.ones(3, 3)

    return spoil


SPOILED: dict[str, tuple[str, Spoil, str]] = {
    "flag of rosinality": (
        "rosinality_glow_b",
        fill("blocks.0.flows.1.actnorm.initialized", 0),
        r"blocks\.0\.flows\.1\.actnorm\.initialized: .*never initialised",
    ),
    "flag of chrischute": (
        "chrischute_glow_a",
        fill("flows.next.steps.0.norm.is_initialized", 0),
        r"flows\.next\.steps\.0\.norm\.is_initialized: .*never initialised",
    ),
    "flag inside a network of kamen": (
        "kamenbliznashki_glow_a",
        fill("flowstep.0.2.actnorm1.initialized", 0),
        r"flowstep\.0\.2\.actnorm1\.initialized: .*never initialised",
    ),
    "flag of normflows": (
        "normflows_glow_a",
        fill("flows.0.0.flows.2.data_dep_init_done", 0),
        r"flows\.0\.0\.flows\.2\.data_dep_init_done: .*never initialised",
    ),
    "singular": (
        "chrischute_glow_a",
        repeat_row("flows.steps.1.conv.weight"),
        r"flows\.steps\.1\.conv\.weight: singular",
    ),
    "no permutation": (
        "rosinality_glow_b",
        repeat_row("blocks.1.flows.0.invconv.w_p"),
        r"blocks\.1\.flows\.0\.invconv\.w_p: expected a permutation .*cannot be recovered",
    ),
    "no sign": (
        "y0ast_glow_a",
        fill("flow.layers.2.invconv.sign_s", 0),
        r"flow\.layers\.2\.invconv\.sign_s: expected signs",
    ),
    "start of the top prior": ("y0ast_glow_b", fill("prior_h", 1), "prior_h: expected zeros"),
    "base": ("kamenbliznashki_glow_a", fill("base_dist_var", 2), r"base_dist_var: expected 1\.0"),
    "missing key": (
        "rosinality_glow_b",
        drop("blocks.0.flows.0.coupling.net.2.bias"),
        r"blocks\.0\.flows\.0\.coupling\.net\.2\.bias: missing; expected shape \(24,\)",
    ),
    "missing step": ("rosinality_glow_b", drop("blocks.0.flows.0"), "without gaps"),
    "missing split": (
        "chaiyujin_glow_a",
        drop("flow.layers.3"),
        "expected a squeeze, steps and a split at every level",
    ),
    "extra key": (
        "rosinality_glow_b",
        add("classifier.weight"),
        r"classifier\.weight: not part of this architecture",
    ),
    "uneven levels": (
        "kamenbliznashki_glow_a",
        drop("flowstep.1"),
        r"depth: expected the same at every level, got \[2, 1\]",
    ),
}


@pytest.mark.parametrize(("name", "spoil", "message"), SPOILED.values(), ids=SPOILED)
def test_spoiled_checkpoints_are_refused_by_key(
    tmp_path: Path, name: str, spoil: Spoil, message: str
) -> None:
    state = tensors(name)
    spoil(state)
    error = refusal(tmp_path, name, state)
    assert re.search(message, str(error)), str(error)


ODD: dict[str, Callable[[Tensor], Tensor]] = {
    "scalar": lambda tensor: tensor.new_zeros(()),
    "empty": lambda tensor: tensor.new_zeros(0),
    "deep": lambda tensor: tensor.unsqueeze(0),
    "more": lambda tensor: tensor.new_zeros([size + 1 for size in tensor.shape]),
}


@pytest.mark.parametrize(
    ("name", "key", "odd"),
    [
        ("zuko_unaf_a", "transform.transforms.0.order", "empty"),
        ("zuko_nice_context", "transform.transforms.2.mask", "scalar"),
        ("zuko_gf_a", "transform.transforms.0.phi.0", "scalar"),
        ("sbi_made", "net._embedding_net.0._std", "more"),
        ("freia_allinone_householder", "module_list.0.w_0", "more"),
        ("freia_allinone_sigmoid_soft_condition", "module_list.2.global_scale", "empty"),
        ("normflows_circular_a", "flows.0.prqct.identity_features", "deep"),
        ("normflows_mixture_base", "q0.weight_scores", "scalar"),
        ("nflows_reflections", "_transform._transforms.1.transform_features", "empty"),
    ],
)
def test_tensors_of_odd_shapes_are_refused(tmp_path: Path, name: str, key: str, odd: str) -> None:
    state = tensors(name)
    state[key] = ODD[odd](state[key])
    message = str(refusal(tmp_path, name, state))
    assert re.search(r"unexpected shapes, at .+\((Index|Type|Runtime|ZeroDivision)Error: ", message)


@pytest.mark.parametrize("shape", [(), (3, 1), (1, 6)])
def test_covariances_that_would_be_expanded_are_refused(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    state = tensors("zuko_gmm_a")
    state["phi.3"] = torch.zeros(shape)
    error = refusal(tmp_path, "zuko_gmm_a", state)
    assert f"phi.3: expected shape (3, 6), got {shape}" in str(error)


def test_vectors_of_spectral_norm_of_odd_shapes_are_refused(tmp_path: Path) -> None:
    state = tensors("nflows_spectral_norm")
    key = next(key for key in state if key.endswith("weight.0._u"))
    state[key] = state[key].new_zeros(())
    error = refusal(tmp_path, "nflows_spectral_norm", state)
    assert "spectral norm: vectors of shapes () and" in str(error)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("nflows_reflections", {"source": 3}, "source: expected a name, such as 'nflows', got 3"),
        ("nflows_reflections", {"source": ["nflows"]}, r"source: expected .* got \['nflows'\]"),
        ("normflows_circular_a", {"tail_bound": []}, "tail_bound.*at least 1 item"),
        ("normflows_circular_a", {"tail_bound": [None]}, r"tail_bound.*got \[?None"),
        ("normflows_circular_a", {"tail_bound": ["a", "b"]}, "tail_bound.*got .*'a'"),
        ("freia_glow_a", {"split_len": 1e30}, r"split_len.*less than or equal to 1, got 1e\+30"),
    ],
)
def test_values_of_odd_types_are_refused(name: str, given: dict[str, Any], message: str) -> None:
    case = load(name)
    with pytest.raises(ImportRefused, match=message):
        models.import_checkpoint(case.checkpoint, config={**case.config, **given})


def test_all_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    state = tensors("rosinality_glow_b")
    drop("blocks.0.flows.0.coupling.net.2.bias")(state)
    add("classifier.weight")(state)
    fill("blocks.1.flows.0.actnorm.initialized", 0)(state)
    error = refusal(tmp_path, "rosinality_glow_b", state)
    report = error.report
    assert report is not None
    refused = [item.what for item in report.items if item.kind == "refused"]
    assert refused == [
        "blocks.0.flows.0.coupling.net.2.bias",
        "blocks.1.flows.0.actnorm.initialized",
        "classifier.weight",
    ]
    assert all(key in str(error) for key in refused)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("zuko_maf_residual_context", "transform.transforms.0.hyper.1.2.bias"),
        ("zuko_nice_a", "transform.transforms.1.hyper.4.bias"),
        ("zuko_gmm_context_spherical_tied", "hyper.2.bias"),
        ("sbi_zuko_maf_a", "net.transform.transforms.1.hyper.0.bias"),
    ],
)
def test_one_missing_bias_is_no_network_without_biases(tmp_path: Path, name: str, key: str) -> None:
    state = torch.load(load(name).checkpoint, weights_only=True)
    torch.save({other: value for other, value in state.items() if other != key}, tmp_path / "m.pt")
    with pytest.raises(ImportRefused, match=rf"{re.escape(key.removeprefix('net.'))}: missing"):
        models.import_checkpoint(tmp_path / "m.pt", None, load(name).config)


def test_a_network_without_biases_is_taken(tmp_path: Path) -> None:
    state = tensors("zuko_nice_a")
    zeros = {
        key: torch.zeros_like(value) if key.endswith("bias") else value
        for key, value in state.items()
    }
    flows = []
    for content in (zeros, {key: value for key, value in zeros.items() if "bias" not in key}):
        torch.save(content, tmp_path / "m.pt")
        flows.append(models.import_checkpoint(tmp_path / "m.pt", None, load("zuko_nice_a").config))
    x = load("zuko_nice_a").arrays["x"][:3]
    assert torch.equal(*(flow.log_prob(x) for flow in flows))


def test_a_flag_that_is_missing_is_mended(tmp_path: Path) -> None:
    case, key = load("rosinality_glow_b"), "blocks.0.flows.0.actnorm.initialized"
    state = tensors(case.name)
    del state[key]
    torch.save(state, tmp_path / "model.pt")
    flow = models.import_checkpoint(tmp_path / "model.pt", None, case.config, "none")
    x = case.arrays["x"]
    assert torch.equal(flow.log_prob(x), case.flow().log_prob(x))
    report = flow.provenance["findings"]
    assert any(item["kind"] == "mended" and item["what"] == key for item in report)


def test_a_convolution_that_is_nearly_singular_is_a_warning(tmp_path: Path) -> None:
    case, key = load("chrischute_glow_a"), "flows.steps.0.conv.weight"
    state = tensors(case.name)
    state[key][1] = state[key][0] + 1e-6 * state[key][1]
    torch.save(state, tmp_path / "model.pt")
    flow = models.import_checkpoint(tmp_path / "model.pt", None, case.config)
    report = flow.provenance["findings"]
    assert [item["what"] for item in report if item["kind"] == "warning"] == [key]


def test_shuffles_that_were_not_saved_are_refused_with_that_sentence() -> None:
    case = load("y0ast_shuffle")
    with pytest.raises(ImportRefused, match=r"the order is drawn .* cannot be recovered"):
        models.import_checkpoint(case.checkpoint, config=case.config)


def test_splits_along_a_checkerboard_are_refused() -> None:
    case = load("normflows_glow_a")
    with pytest.raises(ImportRefused, match=r"checkerboard.* cannot be expressed"):
        models.import_checkpoint(
            case.checkpoint, config={**case.config, "split_mode": "checkerboard"}
        )


@pytest.mark.parametrize("wrong", ["y0ast", "chaiyujin/glow-pytorch", "normflows", "chrischute"])
def test_a_wrong_source_is_told_the_right_one(wrong: str) -> None:
    case = load("rosinality_glow_b")
    with pytest.raises(
        ImportRefused, match=f"{wrong} was named, but .* keys of rosinality/glow-pytorch"
    ):
        models.import_checkpoint(case.checkpoint, wrong)


@pytest.mark.parametrize(
    "right", ["rosinality/glow-pytorch", "rosinality", "glow-pytorch", " Rosinality/Glow "]
)
def test_the_right_source_goes_by_short_names(right: str) -> None:
    case = load("rosinality_glow_b")
    flow = models.import_checkpoint(case.checkpoint, right, case.config)
    assert flow.provenance["imported_from"] == "rosinality/glow-pytorch"


def test_a_repository_with_several_models_leaves_the_choice_to_the_keys() -> None:
    for name in ("chrischute_glow_a", "chrischute_realnvp_a"):
        case = load(name)
        flow = models.import_checkpoint(case.checkpoint, "chrischute", case.config)
        assert flow.provenance["imported_from"] == case.config["source"]


def test_a_source_nobody_knows_is_answered_with_a_guess() -> None:
    message = (
        r"got 'rosinalty' \(did you mean 'rosinality'\?\); the keys are those of rosinality/glow"
    )
    with pytest.raises(ImportRefused, match=message):
        models.import_checkpoint(load("rosinality_glow_b").checkpoint, "rosinalty")


@pytest.mark.parametrize("source", [None, "rosinality"])
def test_another_architecture_is_refused(tmp_path: Path, source: str | None) -> None:
    state = {"conv1.weight": torch.ones(4, 3, 3, 3), "layer1.0.bn1.weight": torch.ones(4)}
    error = refusal(tmp_path, "rosinality_glow_b", state, source)
    assert "conv1.weight" in str(error)
    assert "another architecture" in str(error) or "no source has keys" in str(error)


def test_residual_flows_are_told_what_is_exact_and_what_is_not(tmp_path: Path) -> None:
    keys = {"q0.loc": torch.zeros(1, 2), "q0.log_scale": torch.zeros(1, 2)}
    net = {"iresblock.nnet.net.1.weight": torch.ones(2, 2), "iresblock.geom_p": torch.zeros(())}
    torch.save(keys | {f"flows.0.{key}": value for key, value in net.items()}, tmp_path / "m.pt")
    with pytest.raises(ImportRefused, match=r"Residual: .* draws noise .*of two it is exact"):
        models.import_checkpoint(tmp_path / "m.pt", "normflows")
