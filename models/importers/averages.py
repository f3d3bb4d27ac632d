"""Moving averages of weights: under which names they stand in a file, and beside which weights."""

import re
from collections.abc import Mapping

from torch import Tensor

from models.importers.prefixes import strippings
from models.importers.report import ImportRefused, Report
from models.importers.state import State, joined

_WORDS = frozenset(("ema", "shadow", "average", "averaged", "averaging", "avg", "polyak", "swa"))
# How AveragedModel of torch counts.
_COUNT = "n_averaged"
# What keepers of averages save beside them: ema-pytorch, LitEma.
_BESIDE = ("initted", "step", "decay", "num_updates")
# Lightning's WeightAveraging puts the average in the place of the weights, and them here.
_SWAPPED = "current_model_state"
_LIGHTNING = "state_dict"
_MAX_NAMED = 4


def is_average(name: str) -> bool:
    """Whether a name says that averaged weights stand there."""
    return not _WORDS.isdisjoint(re.split(r"[^a-z0-9]+", name.lower()))


def split_averages(
    states: Mapping[str, State], report: Report, *, is_wanted: bool = False
) -> dict[str, State]:
    """Give averages names that say so, also those in one state dict beside the weights.

    Args:
        states: by name.
        report: where what is found is noted.
        is_wanted: an average is asked for.

    Raises:
        ImportRefused: if one is wanted and the keys of one are not to be known.
    """
    split: dict[str, State] = {}
    for name, state in states.items():
        for part, inside in _parts(state).items():
            full = joined(name, part) if part else name
            is_counted = _is_counted(inside) or (name == _LIGHTNING and _SWAPPED in states)
            if part:
                report.recognised(full, "a moving average beside the weights")
            elif is_counted:
                report.recognised(name or "file", "averaged weights, not those of the last step")
            if (part or is_counted) and not is_average(full):
                full = joined(full, "averaged")
            split[full] = _without_counts(inside, full, report)
    _name_keys(split, report, is_wanted=is_wanted)
    return {name: state for name, state in split.items() if state}


def _is_counted(state: State) -> bool:
    return len(state) > 1 and f"{_common(state)}{_COUNT}" in state


def _parts(state: State) -> dict[str, State]:
    """The averages in a state dict by their first part, and under no name the rest."""
    start = _common(state)
    heads = {key: key.removeprefix(start).partition(".")[0] for key in state}
    counted = {heads[key] for key in state if key == f"{start}{heads[key]}.{_COUNT}"}
    averages = {head for head in heads.values() if is_average(head) and head != _COUNT} | counted
    if averages == set(heads.values()):
        averages = set()
    rest = {key: value for key, value in state.items() if heads[key] not in averages}
    if averages:
        rest = {key: value for key, value in rest.items() if not _is_beside(key, value)}
    parts: dict[str, State] = {"": rest} if rest else {}
    for head in sorted(averages):
        front = f"{start}{head}."
        parts[head] = {
            key.removeprefix(front): value for key, value in state.items() if key.startswith(front)
        }
    return parts


def _common(state: State) -> str:
    """What all keys begin with, as whole parts, but for the last part of each."""
    start = ""
    while len({key.removeprefix(start).partition(".")[0] for key in state}) == 1:
        head, dot, _ = next(iter(state)).removeprefix(start).partition(".")
        if not dot:
            break
        start += f"{head}."
    return start


def _without_counts(state: State, name: str, report: Report) -> State:
    kept: State = {}
    for key, value in state.items():
        if key.split(".")[-1] == _COUNT or (is_average(name) and _is_beside(key, value)):
            report.ignored(joined(name, key), "a counter")
        else:
            kept[key] = value
    return kept


def _is_beside(key: str, value: Tensor) -> bool:
    return key in _BESIDE and value.numel() == 1


def _name_keys(states: dict[str, State], report: Report, *, is_wanted: bool) -> None:
    """Give averages whose keys lost their dots (LitEma) the keys of the weights beside them."""
    for name, state in states.items():
        if not is_average(name) or not state or any("." in key for key in state):
            continue
        others = [stripped for other in states.values() for stripped in strippings(other)]
        beside = next((other for other in others if _is_named_by(state, other)), None)
        if beside is None:
            continue
        if fault := _naming_fault(state, beside):
            if is_wanted:
                raise ImportRefused(f"{name}: {fault}")
            report.warning(name, fault)
            continue
        keys = {key.replace(".", ""): key for key in beside}
        named = {keys[key]: value for key, value in state.items()}
        if filled := [key for key in beside if key not in named]:
            shown = ", ".join(sorted({key.rpartition(".")[2] for key in filled})[:_MAX_NAMED])
            report.mended(
                name, f"{len(filled)} tensors that are not averaged ({shown}) are the model's own"
            )
        states[name] = {**beside, **named}


def _is_named_by(state: State, other: State) -> bool:
    has_dots = any("." in key for key in other)
    return has_dots and state.keys() <= {key.replace(".", "") for key in other}


def _naming_fault(state: State, beside: State) -> str:
    """Why the keys of an average are not known, or not all there; empty where they are."""
    keys: dict[str, list[str]] = {}
    for key in beside:
        keys.setdefault(key.replace(".", ""), []).append(key)
    for key in state:
        if len(keys[key]) > 1:
            return f"{key} could be either of {', '.join(keys[key])}"
    # What is never averaged, such as masks, goes by names of its own.
    averaged = {keys[key][0].rpartition(".")[2] for key in state}
    lost = [
        key
        for short, (key, *_) in keys.items()
        if short not in state
        and beside[key].is_floating_point()
        and key.rpartition(".")[2] in averaged
    ]
    if not lost:
        return ""
    shown = ", ".join(lost[:_MAX_NAMED])
    return (
        f"the average is not whole: {len(lost)} weights are not in it ({shown}); "
        "save it again, or take the weights as trained (--weights model)"
    )
