"""The version, with and without an installed distribution."""

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from pushforward.version import UNKNOWN, package_version

ROOT = Path(__file__).resolve().parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]


@pytest.fixture
def _no_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)


@pytest.mark.usefixtures("_no_distribution")
def test_a_checkout_needs_no_distribution() -> None:
    assert package_version.__wrapped__() == VERSION


def test_an_installation_is_asked_where_there_is_no_checkout(tmp_path: Path) -> None:
    assert package_version.__wrapped__(tmp_path) == metadata.version("pushforward")


@pytest.mark.usefixtures("_no_distribution")
@pytest.mark.parametrize("text", [None, "[project\n", '[project]\nname = "other"\nversion = "9"\n'])
def test_copied_packages_have_no_version(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text)
    assert package_version.__wrapped__(tmp_path) == UNKNOWN


def test_the_command_says_it_without_any_installed_package() -> None:
    code = "import sys; sys.argv[1:] = ['--version']; from pushforward.cli.main import main; main()"
    found = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert found.stdout == f"pushforward {VERSION}\n", found.stderr
