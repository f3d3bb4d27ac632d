"""The state of an unfinished run, in one safetensors file with JSON metadata: never pickle."""

import json
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
