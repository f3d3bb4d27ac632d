"""The environments of the pages hold what their requirements bring, and `pip` refuses the rest."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.docs import environment
from tests.docs.answers import compare
from tests.docs.blocks import ROOT, Command, commands_of, find_blocks
from tests.docs.environment import PipError, closure, make, pip


def test_an_extra_brings_what_it_names_and_what_that_brings() -> None:
    client = closure(["."])
    assert {"pushforward", "httpx", "numpy", "idna"} <= client
    assert not client & {"torch", "typer"}
    assert closure([".[cli]"]) - client >= {"typer", "rich", "click"} - {"click"}
    assert "torch" in closure([".[cpu]"]) - closure([".[onnx]"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["install", ".[nonesuch]"], "no extra 'nonesuch'"),
        (["install", "nonesuch-at-all"], "not among"),
        (["install", "numpy<1"], "is what the tests are run with"),
        (["install", "--upgrade", "numpy"], "--upgrade: not a flag"),
        (["install", "-c", "nonesuch.txt", "numpy"], "nonesuch.txt: not there"),
        (["uninstall", "numpy"], "expected install"),
        (["install", "'numpy"], "'numpy"),
    ],
)
def test_pip_refuses(
    words: list[str], told: str, tmp_path: Path, environments: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(ROOT)
    make(tmp_path / "one")
    with pytest.raises(PipError, match=told):
        pip(tmp_path / "one", words)


def test_an_environment_has_what_was_installed_alone(
    tmp_path: Path, environments: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    folder = tmp_path / "one"
    make(folder)
    assert _python(folder, "import numpy").returncode == 1
    pip(folder, ["install", "numpy"])
    assert _python(folder, "import numpy").returncode == 0
    assert _python(folder, "import httpx").returncode == 1
    pip(folder, ["install", "--editable", "."])
    assert _python(folder, "import httpx, numpy; from pushforward import Client").returncode == 0
    assert _python(folder, "import typer").returncode == 1
    done = subprocess.run([folder / "bin/pushforward", "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("pushforward ")


def test_an_environment_makes_others_that_ask_no_network(
    tmp_path: Path, environments: None
) -> None:
    make(tmp_path / "one")
    subprocess.run([tmp_path / "one/bin/python3", "-m", "venv", tmp_path / "two"], check=True)
    asked = [tmp_path / "two/bin/pip", "install", "nonesuch-at-all"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert done.stderr == "error: nonesuch-at-all: not among what the tests are run with\n"


def test_a_dependency_that_an_extra_forgot_is_missing(
    tmp_path: Path, environments: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = environment.lines_of_project
    monkeypatch.setattr(
        environment,
        "lines_of_project",
        lambda extra: [line for line in lines(extra) if not line.startswith("typer")],
    )
    make(tmp_path / "one", [".[cli]", "numpy>=1"])
    assert _python(tmp_path / "one", "import rich").returncode == 0
    assert _python(tmp_path / "one", "import typer").returncode == 1


def _python(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [folder / "bin/python", "-c", code],
        capture_output=True, text=True, check=False, cwd="/", env=variables,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("came", "shown"),
    [
        ('{"a": 1.0004, "b": 2, "c": [1]}', '{"a": 1.0, "c": "…"}'),
        ("ready after 3 s\n", "ready after … s"),
    ],
)
def test_answers_are_alike(came: str, shown: str) -> None:
    compare(came, shown)


@pytest.mark.parametrize(
    ("came", "shown"),
    [
        ('{"a": 1.01}', '{"a": 1.0}'),
        ('{"a": [1.0]}', '{"a": [1.0, 2.0]}'),
        ('{"a": "y"}', '{"a": "x"}'),
        ("ready\nand more", "ready"),
    ],
)
def test_answers_differ(came: str, shown: str) -> None:
    with pytest.raises(AssertionError):
        compare(came, shown)


def test_commands_are_found() -> None:
    text = (
        "# A\n\n```sh\n# a comment\na \\\n  b\n\nc -d '{\n}'  # what\n```\n## B `x`\n```console\n"
    )
    text += "$ e \\\n  f\nshown\n{}\n$ g\n```\n"
    sh, console = find_blocks("page", text)
    assert (sh.line, sh.language, sh.heading) == (3, "sh", "A")
    assert (console.heading, console.language) == ("B x", "console")
    commands = [Command("# a comment\na \\\n  b"), Command("c -d '{\n}'  # what")]
    assert [one.text.splitlines()[-1] for one in commands_of(sh)] == ["  b", "}'  # what"]
    assert commands_of(sh)[1] == commands[1]
    assert commands_of(console) == [Command("e \\\n  f", "shown\n{}"), Command("g")]
