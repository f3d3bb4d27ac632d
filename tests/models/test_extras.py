"""How to install an extra that is missing, by where the package came from."""

import json
from pathlib import Path
from typing import Any

import pytest

from models import extras
from models.extras import install_command


class Installed:
    """A distribution as `importlib.metadata` has it: what pip wrote of its origin."""

    def __init__(self, origin: dict[str, Any] | None) -> None:
        self.origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self.origin is None else json.dumps(self.origin)


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'pushforward[train]'"),
        (
            {"url": "file:///home/me/a%20clone", "dir_info": {}},
            "pip install '.[train]' in /home/me/a clone",
        ),
        (
            {"url": "file:///tmp/pushforward-1-py3-none-any.whl", "archive_info": {}},
            "pip install 'pushforward[train] @ file:///tmp/pushforward-1-py3-none-any.whl'",
        ),
        (
            {"url": "https://a.org/p.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "pip install 'pushforward[train] @ git+https://a.org/p.git@abc'",
        ),
    ],
    ids=["index", "clone", "archive", "repository"],
)
def test_it_is_installed_from_where_it_came_from(
    origin: dict[str, Any] | None, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "distribution", lambda name: Installed(origin))
    assert install_command("train", root=tmp_path) == command


def test_what_runs_from_a_clone_stays_in_it(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    expected = f"pip install --editable '.[train]' in {tmp_path}"
    assert install_command("train", root=tmp_path) == expected
