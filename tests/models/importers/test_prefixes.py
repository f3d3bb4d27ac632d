"""A flow inside a larger module is named by its prefix; what stands beside it is named too."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import models
from models.importers.report import ImportRefused
from models.importers.run import Request, run
from tests.models.importers.golden import load

CASE = load("nflows_realnvp_a")
FLOW: dict[str, Tensor] = torch.load(CASE.checkpoint, weights_only=True)
BESIDE = {"x_mean": torch.zeros(6), "x_std": torch.ones(6), "critic.0.weight": torch.ones(2, 2)}


def lightning(tmp_path: Path, prefix: str = "model.flow.", **beside: Tensor) -> Path:
    """A Lightning file whose module holds a flow and other tensors."""
    state = {**{f"{prefix}{key}": value for key, value in FLOW.items()}, **BESIDE, **beside}
    content = {"state_dict": state, "epoch": 3, "pytorch-lightning_version": "2.0"}
    torch.save(content, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def test_what_stands_beside_a_flow_is_named_with_the_likely_source(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused) as caught:
        models.import_checkpoint(lightning(tmp_path), None, CASE.config)
    message = str(caught.value)
    for words in (
        "those under `model.flow.` are keys of nflows",
        "x_mean, x_std, critic.0.weight",
        "--prefix model.flow",
    ):
        assert words in message


@pytest.mark.parametrize("prefix", ["model.flow", "model.flow.", "model"])
def test_the_prefix_takes_the_flow_alone(tmp_path: Path, prefix: str) -> None:
    flow, report = run(lightning(tmp_path), Request(None, CASE.config, prefix=prefix))
    assert torch.equal(flow.log_prob(CASE.arrays["x"]), CASE.flow().log_prob(CASE.arrays["x"]))
    (warning,) = (item for item in report.items if item.kind == "warning")
    assert "x_mean, x_std, critic.0.weight" in warning.detail


@pytest.mark.parametrize("prefix", ["model.flow", "module.model._orig_mod.flow"])
def test_a_wrapper_in_front_of_a_prefix_is_taken_off(tmp_path: Path, prefix: str) -> None:
    path = lightning(tmp_path, "module.model._orig_mod.flow.")
    flow = models.import_checkpoint(path, None, CASE.config, prefix=prefix)
    assert torch.equal(flow.log_prob(CASE.arrays["x"]), CASE.flow().log_prob(CASE.arrays["x"]))


def test_a_prefix_that_no_key_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match=r"--prefix net: no key begins with net\.; .*critic"):
        models.import_checkpoint(lightning(tmp_path), None, CASE.config, prefix="net")


def test_two_flows_in_one_module_are_both_named(tmp_path: Path) -> None:
    twin = {f"prior.{key}": value for key, value in FLOW.items()}
    with pytest.raises(ImportRefused, match=r"`prior\.` are keys of nflows; .*`model\.flow\.`"):
        models.import_checkpoint(lightning(tmp_path, **twin), None, CASE.config)


def test_a_module_without_a_flow_is_told_its_keys(tmp_path: Path) -> None:
    torch.save(BESIDE, tmp_path / "model.pt")
    with pytest.raises(ImportRefused, match="no source has keys such as x_mean, x_std, critic"):
        models.import_checkpoint(tmp_path / "model.pt")


def test_spectral_norm_is_mended_and_said() -> None:
    for name in ("nflows_spectral_norm", "nflows_spectral_norm_old"):
        report = load(name).report().items
        assert any("spectral norm" in item.detail for item in report if item.kind == "mended")


def test_a_tensor_far_larger_than_its_storage_is_refused(tmp_path: Path) -> None:
    key = next(iter(FLOW))
    torch.save({**FLOW, key: torch.zeros(1).expand(2**40)}, tmp_path / "model.pt")
    with pytest.raises(ImportRefused, match=f"{key}: expected a number of its own at every place"):
        models.import_checkpoint(tmp_path / "model.pt", None, CASE.config)
