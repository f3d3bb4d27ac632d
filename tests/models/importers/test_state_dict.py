"""The weights are found in whatever a script saved, and every step is reported."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.importers.report import ImportRefused
from models.importers.run import Request, run
from models.importers.state_dict import Prefer
from tests.models.importers.golden import load

CASE = load("rosinality_glow_b")
State = dict[str, Tensor]
OPTIMISER = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3}]}


def plain() -> State:
    tensors = torch.load(CASE.checkpoint, weights_only=True)
    return {key.removeprefix("module."): value for key, value in tensors.items()}


def prefixed(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def averaged(state: State) -> State:
    """Other weights under the same keys, flags and signs as they were."""
    return {
        key: value * 1.01 if key.endswith(("conv.weight", "net.2.weight")) else value
        for key, value in state.items()
    }


def log_prob(
    tmp_path: Path, content: Any, prefer: Prefer = "model"
) -> tuple[Tensor, dict[str, list[str]]]:
    """Import what was saved; the answers to three rows and the report by kind."""
    path = tmp_path / "model.pt"
    torch.save(content, path)
    flow, report = run(path, Request(None, CASE.config, "none", weights=prefer))
    kinds: dict[str, list[str]] = {}
    for item in report.items:
        kinds.setdefault(item.kind, []).append(f"{item.what}: {item.detail}")
    return flow.log_prob(CASE.arrays["x"][:3]), kinds


WRAPPINGS: dict[str, Callable[[State], Any]] = {
    "bare": lambda state: state,
    "module": lambda state: prefixed("module.", state),
    "compiled": lambda state: prefixed("_orig_mod.", state),
    "compiled module": lambda state: prefixed("_orig_mod.module.", state),
    "compiled inside": lambda state: {
        key.replace(".coupling.", ".coupling._orig_mod."): value for key, value in state.items()
    },
    "state_dict": lambda state: {"epoch": 3, "state_dict": state, "optimizer": OPTIMISER},
    "nested": lambda state: {"state": {"model": prefixed("module.", state)}, "step": 7},
    "ignite": lambda state: {"model": state, "optimizer": OPTIMISER, "loss": 1.5},
    "lightning": lambda state: {
        "state_dict": prefixed("model.", state),
        "optimizer_states": [OPTIMISER],
        "callbacks": {},
        "pytorch-lightning_version": "2.0",
    },
    "beside a critic": lambda state: {
        "critic": {"layer.weight": torch.ones(3, 3)},
        "flow": state,
    },
    "flops": lambda state: {**state, "total_ops": torch.zeros(1), "total_params": torch.zeros(1)},
    "ema beside": lambda state: {"model": state, "ema": averaged(state)},
    "ema first": lambda state: {"ema_state_dict": averaged(state), "state_dict": state},
    "ema inside": lambda state: {
        **prefixed("net.", state),
        **prefixed("ema_model.", averaged(state)),
    },
}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_the_weights_are_found(tmp_path: Path, wrap: Callable[[State], Any]) -> None:
    got, _ = log_prob(tmp_path, wrap(plain()))
    assert torch.equal(got, CASE.flow().log_prob(CASE.arrays["x"][:3]))


@pytest.mark.parametrize(
    ("wrapping", "kind", "text"),
    [
        ("module", "mended", "`module.` (DataParallel) was taken off"),
        ("compiled", "mended", "`_orig_mod.` (torch.compile) was taken off"),
        ("lightning", "mended", "`model.` was taken off the keys"),
        ("lightning", "ignored", "optimizer_states: a list of 1: not weights"),
        ("ignite", "ignored", "optimizer: the state of an optimiser"),
        ("ignite", "ignored", "loss: 1.5: not weights"),
        ("flops", "ignored", "total_ops: a counter"),
        ("beside a critic", "ignored", "critic: other tensors (1)"),
        ("ema beside", "warning", "better with it, --weights ema"),
        ("ema inside", "recognised", "ema_model: a moving average beside the weights"),
    ],
)
def test_what_was_done_is_said(tmp_path: Path, wrapping: str, kind: str, text: str) -> None:
    _, report = log_prob(tmp_path, WRAPPINGS[wrapping](plain()))
    assert any(text in line for line in report[kind]), report


@pytest.mark.parametrize("wrapping", ["ema beside", "ema first", "ema inside"])
def test_the_moving_average_is_a_choice(tmp_path: Path, wrapping: str) -> None:
    got, _ = log_prob(tmp_path, WRAPPINGS[wrapping](plain()), prefer="ema")
    expected, _ = log_prob(tmp_path, averaged(plain()))
    assert torch.equal(got, expected)
    assert not torch.equal(got, CASE.flow().log_prob(CASE.arrays["x"][:3]))


def test_a_moving_average_alone_is_taken(tmp_path: Path) -> None:
    got, _ = log_prob(tmp_path, {"ema": averaged(plain())})
    assert torch.equal(got, log_prob(tmp_path, averaged(plain()))[0])


def test_a_moving_average_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match=r"moving average .* holds none"):
        log_prob(tmp_path, {"model": plain()}, prefer="ema")


def test_arguments_in_the_file_are_used(tmp_path: Path) -> None:
    arguments = argparse.Namespace(n_flow=2, img_size=8, n_bits=8, lr=1e-4, path="images")
    torch.save({"args": arguments, "model": plain()}, tmp_path / "model.pt")
    flow, report = run(tmp_path / "model.pt", Request(preprocessing="none"))
    assert torch.equal(
        flow.log_prob(CASE.arrays["x"][:3]), CASE.flow().log_prob(CASE.arrays["x"][:3])
    )
    origins = {setting.name: setting.origin for setting in report.settings}
    assert origins["img_size"] == origins["n_bits"] == "checkpoint"


def test_weights_overrule_arguments_in_the_file(tmp_path: Path) -> None:
    arguments = {"n_flow": 32, "img_size": 8, "n_bits": 8}
    torch.save({"hparams": arguments, "model": plain()}, tmp_path / "model.pt")
    _, report = run(tmp_path / "model.pt", Request(preprocessing="none"))
    mended = [item for item in report.items if item.what == "n_flow"]
    assert [item.kind for item in mended] == ["mended"]
    assert "32" in mended[0].detail


def test_new_weight_norm_is_written_as_the_old(tmp_path: Path) -> None:
    case = load("chrischute_realnvp_rectangle")
    content = torch.load(case.checkpoint, weights_only=True)
    content["net"] = {
        key.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): value
        for key, value in content["net"].items()
    }
    torch.save(content, tmp_path / "model.pt")
    flow, _ = run(tmp_path / "model.pt", Request(None, case.config, "none"))
    assert torch.equal(flow.log_prob(case.arrays["x"]), case.flow().log_prob(case.arrays["x"]))


def test_half_precision_is_widened(tmp_path: Path) -> None:
    half = {
        key: value.half() if value.is_floating_point() else value for key, value in plain().items()
    }
    got, report = log_prob(tmp_path, half)
    assert torch.allclose(got, CASE.flow().log_prob(CASE.arrays["x"][:3]), rtol=0.01)
    assert "torch.float16" in report["warning"][0]


def test_safetensors_of_a_source_are_imported(tmp_path: Path) -> None:
    tensors = {key: value.contiguous() for key, value in plain().items()}
    save_file(tensors, tmp_path / "model.safetensors")
    flow, _ = run(tmp_path / "model.safetensors", Request(None, CASE.config, "none"))
    assert torch.equal(
        flow.log_prob(CASE.arrays["x"][:3]), CASE.flow().log_prob(CASE.arrays["x"][:3])
    )


KEY = "blocks.0.flows.0.coupling.net.2.weight"
FAULTS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "sparse": (lambda tensor: tensor.flatten(1).to_sparse(), "expected a dense tensor"),
    "quantised": (
        lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        "expected real numbers",
    ),
    "complex": (lambda tensor: tensor.to(torch.complex64), "expected real numbers"),
    "nan": (lambda tensor: tensor.index_fill(0, torch.tensor(1), torch.nan), "24 of 576 values"),
    "infinite": (lambda tensor: tensor / 0, "576 of 576 values are not finite"),
    "integers": (lambda tensor: tensor.int(), "expected floating point numbers"),
    "shape": (lambda tensor: tensor[:, :20], r"expected shape \(24, 24, 1, 1\), got \(24, 20,"),
}


@pytest.mark.filterwarnings("ignore:.*(TypedStorage|quantize|Sparse).*")
@pytest.mark.parametrize(("spoil", "message"), FAULTS.values(), ids=FAULTS)
def test_useless_tensors_are_named(
    tmp_path: Path, spoil: Callable[[Tensor], Tensor], message: str
) -> None:
    state = plain()
    state[KEY] = spoil(state[KEY])
    with pytest.raises(ImportRefused, match=f"{KEY}: .*{message}"):
        log_prob(tmp_path, state)


def test_keys_held_twice_are_refused(tmp_path: Path) -> None:
    state = plain()
    with pytest.raises(ImportRefused, match="twice, with and without a wrapper"):
        log_prob(tmp_path, {**state, **prefixed("module.", state)})


@pytest.mark.parametrize("content", [{"epoch": 3, "loss": 0.1}, [1, 2], {}], ids=str)
def test_files_without_tensors_are_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(ImportRefused, match="expected a state dict"):
        log_prob(tmp_path, content)
