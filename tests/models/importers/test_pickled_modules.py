"""Whole modules that are pickled are not read; the command that saves their weights is printed."""

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.importers.report import ImportRefused
from models.importers.run import Request, run


class Holder:
    """Something that has a module among its attributes, as posteriors of sbi have."""

    def __init__(self, network: nn.Module) -> None:
        self.prior = {"low": 0.0}
        self.parts = [network]


def linear() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(2, 3)


def refused(path: Path) -> str:
    with pytest.raises(ImportRefused) as refusal:
        run(path, Request(None, {}, "none"))
    return str(refusal.value)


# The command leaves a file to be closed when it ends.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("write", [torch.save, pickle.dump])
@pytest.mark.parametrize(
    ("content", "place"),
    [
        (linear(), ""),
        ({"epoch": 3, "models": {"flow": linear()}}, "['models']['flow']"),
        (Holder(linear()), ".parts[0]"),
    ],
)
def test_the_printed_command_saves_the_state_dict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any, place: str, write: Any, old: bool
) -> None:
    path = tmp_path / "flow.pt"
    with path.open("wb") as file:
        if write is torch.save:
            torch.save(content, file, _use_new_zipfile_serialization=not old)
        else:
            pickle.dump(content, file, protocol=2 if old else 4)
    message = refused(path)
    assert "nothing in it ran" in message
    assert f"{place}.state_dict()" in message
    found = re.search(r'python -c "(.*)"; then: pushforward import state_dict\.pt', message)
    assert found is not None
    monkeypatch.chdir(tmp_path)
    exec(found[1], {})
    saved = torch.load("state_dict.pt", weights_only=True)
    assert torch.equal(saved["weight"], linear().weight)


def test_what_holds_no_module_is_named(tmp_path: Path) -> None:
    path = tmp_path / "flow.pt"
    path.write_bytes(pickle.dumps({"flow": Path, "holder": Holder.__init__}))
    assert "python -c" not in refused(path)
