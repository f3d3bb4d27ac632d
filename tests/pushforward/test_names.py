"""The public names: lazy, few, and those of `models` where they are its functions."""

import subprocess
import sys
from pathlib import Path

import pytest

import models
import pushforward

ROOT = Path(__file__).resolve().parents[2]


def test_the_names_are_these() -> None:
    names = ["AsyncClient", "Client", "build", "import_checkpoint", "load", "save"]
    assert pushforward.__all__ == names
    assert set(names) <= set(dir(pushforward))


@pytest.mark.parametrize("name", ["build", "import_checkpoint", "load", "save"])
def test_what_models_offers_is_its_own_object(name: str) -> None:
    assert getattr(pushforward, name) is getattr(models, name)


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="'pushforward' has no attribute 'lode'"):
        _ = pushforward.lode


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import pushforward; dir(pushforward)", set()),
        ("from pushforward import Client, AsyncClient", {"httpx", "numpy"}),
        ("from pushforward.client import ClientError", {"httpx", "numpy"}),
    ],
)
def test_the_client_imports_httpx_and_numpy_alone(statement: str, allowed: set[str]) -> None:
    """And what these import themselves."""
    code = f"""
import sys
for name in {sorted(allowed)!r}:
    __import__(name)
import pydoc  # what numpy and httpx leave for later
before = {{name.partition(".")[0] for name in sys.modules}}
{statement}
after = {{name.partition(".")[0] for name in sys.modules}}
print(*sorted(after - before - set(sys.stdlib_module_names)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == ["pushforward"]
