"""Checkpoints of every source are the same to the importer, whatever they were wrapped in."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from models.importers.reading import read
from models.importers.registry import names_of
from models.importers.report import ImportRefused, Report
from models.importers.state_dict import Prefer, extract_state_dict
from tests.fixtures import checkpoint_of
from tests.models.importers.golden import FOLDERS, load

State = dict[str, Tensor]
# One checkpoint of torch of every folder of sources.
SOURCES = {
    folder.parent.name: name
    for name, folder in sorted(FOLDERS.items(), reverse=True)
    if checkpoint_of(folder).suffix != ".pkl"
}


def stored(name: str) -> State:
    """The state dict of a golden case, as it was saved."""
    case = load(name)
    return extract_state_dict(
        read(case.checkpoint, Report("model.pt")), Report("model.pt"), names_of
    )[0]


def module(state: State) -> nn.Module:
    """A module with this state dict."""
    root = nn.Module()
    for key, value in state.items():
        *path, name = key.split(".")
        inner = root
        for part in path:
            if not hasattr(inner, part):
                inner.add_module(part, nn.Module())
            inner = inner.get_submodule(part)
        inner.register_buffer(name, value)
    return root


def under(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + key: value for key, value in state.items()}


def averaged(state: State) -> State:
    return dict(AveragedModel(module(state)).state_dict())


def lightning(state: State, prefix: str = "model.") -> dict[str, Any]:
    return {"state_dict": under(prefix)(state), "epoch": 2, "hyper_parameters": {"lr": 1e-3}}


# The keys are those that torch 2.11 gives: DDP, FSDP's named_parameters, torch.compile, Fabric.
WRAPPINGS: dict[str, Callable[[State], Any]] = {
    "DataParallel": lambda state: dict(nn.DataParallel(module(state)).state_dict()),
    "AveragedModel": averaged,
    "AveragedModel of DDP": lambda state: averaged(under("module.")(state)),
    "compiled AveragedModel": lambda state: under("_orig_mod.")(averaged(state)),
    "compiled DDP": under("_orig_mod.module."),
    "FSDP, layer by layer": lambda state: {
        f"_fsdp_wrapped_module.{'._fsdp_wrapped_module.'.join(key.rsplit('.', 1))}": value
        for key, value in state.items()
    },
    "compiled FSDP with checkpointing": under(
        "_orig_mod._fsdp_wrapped_module._checkpoint_wrapped_module."
    ),
    "Fabric": under("_forward_module.module."),
    "Lightning": lightning,
    "Lightning, compiled": lambda state: lightning(state, "model._orig_mod."),
    "Lightning, FSDP": lambda state: lightning(state, "model._fsdp_wrapped_module.net."),
    "Lightning, AveragedModel": lambda state: lightning(averaged(state), "ema_net."),
}


def extract(content: Any, prefer: Prefer = "model") -> tuple[State, list[str]]:
    """What is found, and what was said of it."""
    report = Report("model.pt")
    state, _ = extract_state_dict(content, report, names_of, prefer=prefer)
    return state, [f"{item.kind} {item.what}: {item.detail}" for item in report.items]


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_is_found_in_every_wrapping(source: str) -> None:
    state = stored(SOURCES[source])
    assert names_of(state)
    for name, wrap in WRAPPINGS.items():
        assert same(extract(wrap(state))[0], state), name


FLOW = stored("nflows_inverses")
MEAN = {key: value + 1 if value.is_floating_point() else value for key, value in FLOW.items()}
COUNT = {"n_averaged": torch.tensor(7)}


def lit_ema(state: State) -> State:
    """As LitEma keeps an average: names without dots, and only what is trained."""
    names = {key.replace(".", ""): value for key, value in state.items() if "features" not in key}
    return {**names, "decay": torch.tensor(0.99), "num_updates": torch.tensor(5)}


# Files that hold weights and their average.
AVERAGES: dict[str, Any] = {
    "ema": {"model": FLOW, "ema": MEAN},
    "ema_state_dict": {"state_dict": FLOW, "ema_state_dict": MEAN},
    "timm": {"state_dict": FLOW, "state_dict_ema": MEAN},
    "model_ema": {"model": FLOW, "model_ema": {"module": MEAN}},
    "ema_model": {"net_model": FLOW, "ema_model": MEAN, "step": 9},
    "shadow": {"model": FLOW, "ema": {"shadow": MEAN, "decay": 0.9}},
    "avg_model": {"model": FLOW, "avg_model": MEAN},
    "a counter alone": {"model": FLOW, "best": {**under("module.")(MEAN), **COUNT}},
    "swa of Lightning": {
        **lightning(FLOW),
        "callbacks": {
            "StochasticWeightAveraging": {"average_model_state": under("module.model.")(MEAN)}
        },
    },
    "WeightAveraging of Lightning": {
        **lightning(MEAN),
        "current_model_state": under("model.")(FLOW),
        "averaging_state": COUNT,
    },
    "ema-pytorch": {
        **under("online_model.")(FLOW),
        **under("ema_model.")(MEAN),
        "initted": torch.tensor(True),
        "step": torch.tensor(3),
    },
    "inside a module": lightning(
        {
            **under("net.")(FLOW),
            **under("smooth.module.")(MEAN),
            "smooth.n_averaged": COUNT["n_averaged"],
        }
    ),
    "LitEma": lightning({**under("net.")(FLOW), **under("model_ema.")(lit_ema(MEAN))}, ""),
}


@pytest.mark.parametrize("content", AVERAGES.values(), ids=AVERAGES)
def test_averages_are_a_choice_and_are_told(content: Any) -> None:
    state, said = extract(copy.copy(content))
    assert same(state, FLOW)
    assert any(line.startswith("warning") and "--weights ema" in line for line in said)
    assert same(extract(content, "ema")[0], MEAN)


def test_an_average_without_dots_is_whole_or_refused() -> None:
    average = lit_ema(MEAN)
    content = {**under("net.")(FLOW), **under("model_ema.")(average)}
    _, said = extract(content, "ema")
    (filled,) = (line for line in said if "are the model's own" in line)
    assert f"{sum('features' in key for key in FLOW)} tensors that are not averaged" in filled
    lost = next(key for key in FLOW if key.endswith(".bias"))
    del content[f"model_ema.{lost.replace('.', '')}"]
    with pytest.raises(ImportRefused, match=f"not whole: 1 weights are not in it .{lost}"):
        extract(content, "ema")
    state, said = extract(content)
    assert same(state, FLOW)
    assert any("the average is not whole" in line for line in said)


def test_an_average_without_dots_of_two_meanings_is_refused() -> None:
    content = {
        "net": {"a.b1.weight": torch.ones(1), "a.b.1.weight": torch.ones(1)},
        "ema": {"ab1weight": torch.ones(1)},
    }
    with pytest.raises(ImportRefused, match=r"ab1weight could be either of a\.b1\.weight, a\.b\.1"):
        extract(content, "ema")


def test_an_average_alone_is_one() -> None:
    content = averaged(MEAN)
    assert same(extract(content, "ema")[0], MEAN)
    state, said = extract(content)
    assert same(state, MEAN)
    assert any("averaged weights" in line for line in said)


def test_an_average_without_names_is_told() -> None:
    content = {"model": FLOW, "ema": {"decay": 0.9, "shadow_params": list(MEAN.values())}}
    state, said = extract(content)
    assert same(state, FLOW)
    assert any("warning ema.shadow_params" in line and "ema.copy_to()" in line for line in said)
    with pytest.raises(ImportRefused, match=r"--weights ema.* tensors without names"):
        extract(content, "ema")


def test_shards_of_fsdp_are_refused() -> None:
    with pytest.raises(ImportRefused, match="FULL_STATE_DICT"):
        extract({"_fsdp_wrapped_module._flat_param": torch.ones(9)})
