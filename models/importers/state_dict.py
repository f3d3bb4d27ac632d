"""State dict extraction: from whatever a training script saved to one state dict.

Unwraps dicts, separates weights from optimiser state, counters and arguments, chooses between
weights and their moving average, and strips what wrappers put in front of keys. Every step is
reported.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.importers.averages import is_average, split_averages
from models.importers.inert import Array, as_mapping
from models.importers.prefixes import Recognise, strippings, under, without_common
from models.importers.report import ImportRefused, Report
from models.importers.state import State, joined
from models.importers.wrappers import plain_keys

Prefer = Literal["model", "ema"]

# Names under which scripts save weights, the usual ones first.
_USUAL_NAMES = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "graph", "network"),
    *("flow", "generator", "module", "weights", "params"),
)
# Weights and their average as a script saves them that itself only ever samples from the average.
_SAMPLED_FROM_AVERAGE = ("net_model", "ema_model")
# Numbers of a tensor that says more of them than its storage has.
_MAX_EXPANDED = 2**27
_MAX_DEPTH = 4
_MAX_NAMED = 4
# Of torch_ema's ExponentialMovingAverage and its like.
_NAMELESS = (
    "{} is an average of {} tensors without names, which could be those of any parameters: copy it "
    "to the model where it was made (ema.copy_to()) and save model.state_dict()"
)


@dataclass(slots=True)
class StateDictReport:
    """What a checkpoint holds: its state dicts by name, and the plain values beside them.

    Attributes:
        nameless: averages that are lists of tensors without names, and how long they are.
    """

    states: dict[str, State] = field(default_factory=dict)
    stored: dict[str, Any] = field(default_factory=dict)
    nameless: dict[str, int] = field(default_factory=dict)


def extract_state_dict(
    content: Any,
    report: Report,
    recognise: Recognise,
    *,
    prefer: Prefer | None = None,
    prefix: str | None = None,
) -> tuple[State, dict[str, Any]]:
    """Find the weights in what a file holds.

    Args:
        content: what was read.
        report: where every step is noted.
        recognise: the sources that recognise keys.
        prefer: the weights as trained ("model") or their moving average ("ema"), where a file holds
            both; None for those that the script itself samples from: as a rule as trained.
        prefix: the name of the flow inside a larger module; without one all keys are the flow's.

    Returns:
        The state dict with plain keys, and the arguments the file holds (argparse and the like).

    Raises:
        ImportRefused: if there is no state dict, or its tensors are not plain finite numbers.
    """
    found = StateDictReport()
    _unwrap(content, "", found, report, depth=0)
    if not found.states and (arrays := _as_tensors(content)):
        found = StateDictReport()
        report.mended("file", "arrays of numpy are taken as tensors")
        _unwrap(arrays, "", found, report, depth=0)
    if not found.states:
        raise ImportRefused(
            "expected a state dict (names and tensors) in the file, got "
            f"{_describe(content)}; save module.state_dict()"
        )
    plain = {name: plain_keys(state, name, report) for name, state in found.states.items()}
    if prefix:
        plain = under(plain, prefix, report)
    states = split_averages(plain, report, is_wanted=prefer == "ema")
    state = states[_choose(states, found.nameless, report, recognise, prefer)]
    check_tensors(state, report)
    return without_common(state, report, recognise), found.stored


def _unwrap(value: Any, name: str, found: StateDictReport, report: Report, *, depth: int) -> None:
    if isinstance(value, nn.Module):
        report.mended(name or "file", f"a pickled {type(value).__name__}: its state dict is used")
        value = value.state_dict()
    value = as_mapping(value)
    if isinstance(value, argparse.Namespace):
        _store(vars(value), name or "arguments", found, report)
    elif is_average(name) and _is_list_of_tensors(value):
        found.nameless[name] = len(value)
    elif not isinstance(value, Mapping):
        if depth:
            report.ignored(name, f"{_describe(value)}: not weights")
    elif "param_groups" in value:
        report.ignored(name or "file", "the state of an optimiser")
    elif tensors := {str(key): item for key, item in value.items() if isinstance(item, Tensor)}:
        found.states[name] = tensors
        for key, item in value.items():
            if not isinstance(item, Tensor) and depth < _MAX_DEPTH:
                _unwrap(item, joined(name, key), found, report, depth=depth + 1)
    elif depth and value and all(_is_plain(item, mappings=True) for item in value.values()):
        _store(value, name, found, report)
        for key, item in value.items():
            if isinstance(item, Mapping):
                _unwrap(item, joined(name, key), found, report, depth=depth + 1)
    elif depth < _MAX_DEPTH:
        for key, item in value.items():
            _unwrap(item, joined(name, key), found, report, depth=depth + 1)


def _as_tensors(value: Any, depth: int = 0) -> Any:
    """Dicts with arrays of numbers as dicts with tensors; None where there are none."""
    if isinstance(value, Array) and value.value is not None:
        array = value.value
        return torch.from_numpy(array.copy()) if array.dtype.kind in "fiub" else None
    if not isinstance(value, Mapping) or depth > _MAX_DEPTH:
        return None
    found = {key: _as_tensors(item, depth + 1) for key, item in value.items()}
    return {key: item for key, item in found.items() if item is not None} or None


def _store(values: Mapping[str, Any], name: str, found: StateDictReport, report: Report) -> None:
    plain = {str(key): value for key, value in values.items() if _is_plain(value, mappings=True)}
    found.stored |= plain
    report.recognised(name, f"{len(plain)} arguments: used where the source knows their names")


def _choose(
    states: dict[str, State],
    nameless: Mapping[str, int],
    report: Report,
    recognise: Recognise,
    prefer: Prefer | None,
) -> str:
    """The name of the state dict to import: a known one, of the preferred sort, usually named."""
    if prefer is None:
        takes_average = set(_SAMPLED_FROM_AVERAGE) <= states.keys()
        prefer = "ema" if takes_average else "model"

    def rank(name: str) -> tuple[bool, bool, int]:
        last = name.rpartition(".")[2]
        usual = _USUAL_NAMES.index(last) if last in _USUAL_NAMES else len(_USUAL_NAMES)
        return (
            not any(recognise(stripped) for stripped in strippings(states[name])),
            is_average(name) != (prefer == "ema"),
            usual,
        )

    chosen = min(states, key=rank)
    if prefer == "ema" and not is_average(chosen):
        lists = "".join(f"; {_NAMELESS.format(name, nameless[name])}" for name in nameless)
        raise ImportRefused(
            "a moving average of the weights was asked for (--weights ema), but the file holds "
            f"none; it holds {', '.join(name or 'a state dict' for name in states)}{lists}"
        )
    if len(states) > 1 or chosen:
        report.recognised(chosen or "file", f"the weights: {len(states[chosen])} tensors")
    _say_what_was_left(states, nameless, chosen, report)
    return chosen


def _say_what_was_left(
    states: dict[str, State], nameless: Mapping[str, int], chosen: str, report: Report
) -> None:
    for name in states.keys() - {chosen}:
        count = len(states[name])
        if is_average(name) and not is_average(chosen):
            report.warning(
                name,
                f"a moving average of the weights ({count} tensors) stands in the file, and was "
                "not taken: samples and likelihoods are as a rule better with it, --weights ema",
            )
            continue
        hint = "; --weights model takes it instead" if is_average(chosen) else ""
        report.ignored(name or "file", f"other tensors ({count}){hint}")
    for name, count in nameless.items():
        report.warning(name, f"not taken: {_NAMELESS.format(name, count)}")


def _is_list_of_tensors(value: Any) -> bool:
    is_list = isinstance(value, list | tuple) and bool(value)
    return is_list and all(isinstance(item, Tensor) for item in value)


def check_tensors(state: State, report: Report) -> None:
    """Refuse what no conversion can use: tensors that are not plain, finite numbers.

    Half precision is widened, which is exact.

    Raises:
        ImportRefused: names the first keys and what is wrong with each.
    """
    wrong = [f"{key}: {fault}" for key, tensor in state.items() if (fault := _fault(tensor))]
    if wrong:
        more = f" (and {len(wrong) - _MAX_NAMED} more)" if len(wrong) > _MAX_NAMED else ""
        raise ImportRefused(f"{'; '.join(wrong[:_MAX_NAMED])}{more}")
    for dtype in (torch.float16, torch.bfloat16):
        count = sum(tensor.dtype == dtype for tensor in state.values())
        if count:
            report.warning(
                "precision",
                f"{count} tensors in {dtype}: widened without loss; the source's own numbers in "
                "half precision are coarser",
            )


def _fault(tensor: Tensor) -> str:
    if tensor.layout != torch.strided:
        return f"expected a dense tensor, got {tensor.layout}; call .to_dense() and save again"
    if tensor.is_quantized or tensor.is_complex():
        return f"expected real numbers, got {tensor.dtype}; save the weights before quantisation"
    if tensor.is_meta:
        return "expected numbers, got a tensor without storage (device meta)"
    stored = tensor.untyped_storage().nbytes() // tensor.element_size()
    if stored < tensor.numel() > _MAX_EXPANDED:
        return f"expected a number of its own at every place, got {stored} for {tensor.numel()}"
    if tensor.is_floating_point():
        count = int((~tensor.double().isfinite()).sum())
        if count:
            return f"{count} of {tensor.numel()} values are not finite (the training diverged?)"
    return ""


def _is_plain(value: Any, depth: int = 0, *, mappings: bool = False) -> bool:
    if isinstance(value, Mapping) and mappings:
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        # Lists may hold themselves, or each other so often that no walk ends.
        return depth < _MAX_DEPTH and all(
            _is_plain(item, depth + 1, mappings=mappings) for item in value
        )
    return value is None or isinstance(value, (bool, int, float, str))


def _describe(value: Any) -> str:
    if isinstance(value, Mapping):
        keys = ", ".join(f"{key!s:.40}" for key in list(value)[:_MAX_NAMED])
        return f"a dict of {keys or 'nothing'}"
    if isinstance(value, (bool, int, float, str)) or value is None:
        return f"{value!r:.40}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
