"""The state of an unfinished run, in one safetensors file with JSON metadata: never pickle."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.checkpoints.files import is_filled_in_place, written
from models.checkpoints.folder import STATE_SUFFIX
from models.checkpoints.tensor_file import contiguous
from models.training.options import TrainingError

_KEY = "training"
# Far above what rounding moves, far below any choice of a person.
_SAME_NUMBER = 1e-9


@dataclass(frozen=True, slots=True)
class State:
    """Everything a run needs to go on as if it had never stopped.

    Attributes:
        tensors: groups of tensors by name: `flow`, `best`, `average`, `optimiser`, `random`.
        facts: plain JSON: progress, history, and the recipe the state belongs to.
    """

    tensors: Mapping[str, Mapping[str, Tensor]]
    facts: Mapping[str, Any]


def state_path(out: Path) -> Path:
    """Where the state of the run that will write the folder `out` lies: hidden, beside it.

    Beside a mount point there is another file system, or none that can be written: then within it.
    """
    place = out if is_filled_in_place(out) else out.parent
    return place / f".{out.name}{STATE_SUFFIX}"


def write_state(path: Path, state: State) -> None:
    """Write the state; a reader sees the old one or the new one, never a mixture.

    Raises:
        OSError: it cannot be written; the state before, if any, is still there.
    """
    flat = {
        f"{group}/{key}": value.detach().cpu()
        for group, members in state.tensors.items()
        for key, value in members.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path) as fresh:
        try:
            save_file(contiguous(flat), fresh, metadata={_KEY: json.dumps(state.facts)})
        except SafetensorError as error:  # what it makes of a full disk
            raise OSError(None, str(error), str(path)) from error


def read_state(path: Path) -> State:
    """Read what `write_state` wrote.

    Raises:
        TrainingError: if there is no state, or it is damaged.
    """
    if not path.is_file():
        raise TrainingError(
            f"{path.parent}: nothing to resume, there is no {path.name}; a finished run has none, "
            "an unstarted one is started without --resume"
        )
    tensors: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()[_KEY])
            for name in file.keys():  # noqa: SIM118 (the file is no mapping)
                group, _, key = name.partition("/")
                tensors.setdefault(group, {})[key] = file.get_tensor(name)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{path}: damaged ({error}); delete it and start again") from error
    return State(tensors, facts)


def check_recipe(state: State, recipe: Mapping[str, Any]) -> None:
    """See that a state belongs to the run that is to go on.

    Raises:
        TrainingError: names the first part of the recipe that is another.
    """
    for name, mine in recipe.items():
        theirs = state.facts["recipe"][name]
        if not _agree(theirs, mine):
            raise TrainingError(
                f"resume: the interrupted run had another {name}: expected {theirs}, got "
                f"{mine}; repeat its command, or delete the state and start again"
            )


def _agree(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal but for rounding.

    Statistics of the data stand in a configuration, and another CPU adds up in another order.
    """
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_SAME_NUMBER, abs_tol=_SAME_NUMBER)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_agree(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_agree, one, other))
    return bool(one == other)


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The moments of an optimiser, `index/name` -> tensor."""
    return {
        f"{index}/{name}": value
        for index, moments in optimiser.state_dict()["state"].items()
        for name, value in moments.items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` took."""
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition("/")
        moments.setdefault(int(index), {})[name] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": moments, "param_groups": groups})
