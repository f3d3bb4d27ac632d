"""FrEIA: what its checkpoints do not say is asked for, and compared where they do."""

from pathlib import Path
from typing import Any

import pytest
import torch

from models.importers.report import HyperParametersMissing, ImportRefused
from models.importers.run import Request, run
from tests.models.importers.golden import load, relative_error


@torch.no_grad()
def test_rotations_that_are_rounded_are_a_likelihood_term() -> None:
    """FrEIA counts log|det| of a rotation as 0; that of the stored matrix is 1e-7."""
    case = load("freia_allinone_sigmoid_soft_condition")
    (term,) = (
        term
        for term in case.report().provenance()["likelihood"]["terms"]
        if term["name"] == "rotations"
    )
    log_prob = case.flow().log_prob(case.arrays["x"], case.context())
    assert 0 < abs(term["nats"]) < 1e-6
    assert relative_error(log_prob + term["nats"], case.arrays["log_prob"]) <= 1e-11


@pytest.mark.parametrize("name", ["freia_allinone_a", "freia_glow_a"])
def test_what_no_weight_shows_is_asked_for(name: str) -> None:
    case = load(name)
    with pytest.raises(HyperParametersMissing) as asked:
        run(case.checkpoint, Request(None, {}, "none"))
    wanted = {
        "freia_allinone_a": ("activation", "affine_clamping", "global_affine_type"),
        "freia_glow_a": ("activation", "clamp", "clamp_activation"),
    }
    assert all(f"{word} is not in the checkpoint" in str(asked.value) for word in wanted[name])


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("freia_allinone_a", {"permute_soft": True}, "the weights say"),
        ("freia_allinone_a", {"n_blocks": 3}, "the weights say 4"),
        ("freia_allinone_a", {"blocks": "GLOWCouplingBlock"}, "the weights say"),
        ("freia_allinone_a", {"affine_clamping": [2.0, 2.0]}, "or 4, one a block"),
        ("freia_allinone_a", {"learned_householder_permutation": 2}, "the weights say 0"),
        ("freia_allinone_a", {"clamp": 2.0}, "clamp: given, but nothing"),
        ("freia_glow_a", {"split_len": 0.2}, "split_len: with 5 columns kept and 1 moved"),
        ("freia_glow_a", {"clamp_activation": "RELU"}, "clamp_activation"),
        ("freia_glow_a", {"gin_block": [True]}, "or 4, one a block"),
    ],
)
def test_what_contradicts_the_weights_is_refused(
    name: str, given: dict[str, Any], message: str
) -> None:
    case = load(name)
    with pytest.raises(ImportRefused, match=message):
        run(case.checkpoint, Request(None, {**case.config, **given}, "none"))


def test_other_blocks_are_named(tmp_path: Path) -> None:
    case = load("freia_glow_a")
    state = torch.load(case.checkpoint, weights_only=True)
    state["module_list.8.alpha"] = torch.ones(1, 6)
    torch.save(state, tmp_path / "inn.pt")
    with pytest.raises(ImportRefused, match=r"module_list\.8: with keys such as .*alpha"):
        run(tmp_path / "inn.pt", Request(None, case.config, "none"))


@pytest.mark.parametrize(
    ("key", "kind"),
    [("haar_weights", "HaarDownsampling"), ("downsample_kernel", "IRevNetDownsampling")],
)
def test_flows_over_images_are_refused_by_their_downsampling(
    tmp_path: Path, key: str, kind: str
) -> None:
    case = load("freia_glow_a")
    state = torch.load(case.checkpoint, weights_only=True)
    state[f"module_list.8.{key}"] = torch.ones(8, 1, 2, 2)
    torch.save(state, tmp_path / "inn.pt")
    with pytest.raises(ImportRefused, match=rf"module_list\.8: {kind}, of a flow over images"):
        run(tmp_path / "inn.pt", Request(None, case.config, "none"))


def test_convolutions_are_refused(tmp_path: Path) -> None:
    case = load("freia_glow_a")
    state = torch.load(case.checkpoint, weights_only=True)
    state["module_list.0.subnet1.0.weight"] = torch.zeros(20, 3, 3, 3)
    torch.save(state, tmp_path / "inn.pt")
    with pytest.raises(ImportRefused, match="of flows those over vectors"):
        run(tmp_path / "inn.pt", Request(None, case.config, "none"))


def test_a_gin_block_is_said_to_look_like_a_glow_block() -> None:
    found = load("freia_glow_a").report().provenance()["findings"]
    assert "GINCouplingBlock" in str([finding for finding in found if finding["kind"] == "warning"])


def test_a_module_without_tensors_at_the_end_is_warned_of() -> None:
    items = load("freia_glow_a").report().items
    (said,) = (item.detail for item in items if item.what == "module_list")
    assert "behind the last one, module_list.7, leave no trace" in said


def test_a_module_without_tensors_is_warned_of_once(tmp_path: Path) -> None:
    case = load("freia_allinone_a")
    state = torch.load(case.checkpoint, weights_only=True)
    moved = {key.replace("module_list.0.", "module_list.7."): value for key, value in state.items()}
    torch.save(moved, tmp_path / "inn.pt")
    _, report = run(tmp_path / "inn.pt", Request(None, case.config, "none"))
    assert [item.what for item in report.items if item.kind == "warning"] == [
        *(f"module_list.{place}" for place in (0, 4, 5, 6)),
        "module_list",
    ]
