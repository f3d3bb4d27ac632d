"""Names of models: what is told at training and import is what a server does."""

from pathlib import Path

import pytest

from models.checkpoints.naming import warn_of_name
from service.launch.exits import StartupError
from service.repository import find_models

GOOD = ("moons", "Moons-2.1_b", "2d", "x" * 128, "moons/1", "moons/007")
BAD = ("my model", "_moons", "-moons", "mönche", "a,b", "x" * 129, "7", "my model/1", "1/2")


@pytest.mark.parametrize("name", [*GOOD, *BAD])
def test_a_name_is_warned_of_where_a_server_refuses_it(tmp_path: Path, name: str) -> None:
    # A number alone is a version of what its folder is called, which is no name either.
    folder = tmp_path / "some models" / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    served = folder.parent if folder.name.isdecimal() and "/" in name else folder
    warning = warn_of_name(folder)
    assert (warning is None) == (name in GOOD)
    if warning is None:
        (found,) = find_models([served])
        assert found.name == name.split("/")[0]
        return
    assert warning.startswith(f"{folder}: a server refuses this folder: ")
    with pytest.raises(StartupError, match="cannot be a model's name; expected letters, digits"):
        find_models([served])


def test_the_current_folder_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my model").mkdir()
    (tmp_path / "moons" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "my model")
    assert warn_of_name(Path()) is not None
    monkeypatch.chdir(tmp_path / "moons" / "inner")
    assert warn_of_name(Path("..")) is None
