"""The README's curl lines give the answers that stand below them."""

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.process import RunningServer

# One process for all: the server of the zoo takes longer to start than they take.
pytestmark = pytest.mark.xdist_group("zoo_server")

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
PRINTED_URL = "http://127.0.0.1:8000"

# ```console blocks hold "$ command" lines, continued by "\", each followed by what it prints.
BLOCKS = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
EXAMPLES = [
    (command, answer.strip())
    for block in BLOCKS
    for command, answer in re.findall(
        r"^\$ (curl (?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE
    )
]


def test_every_operation_has_an_example() -> None:
    shown = " ".join(command for command, _ in EXAMPLES)
    for call in ("/log_prob", "/encode", "/decode", "/sample", "/models", "image/png", "x-npy"):
        assert call in shown


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example[0][:60])
def test_an_example_answers_as_printed(
    zoo_server: RunningServer, example: tuple[str, str], tmp_path: Path
) -> None:
    command, expected = example
    assert PRINTED_URL in command
    arguments = shlex.split(command.replace("\\\n", " ").replace(PRINTED_URL, zoo_server.url))
    result = subprocess.run(
        arguments, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=True
    )
    if expected:
        assert_alike(json.loads(result.stdout), json.loads(expected))
    else:
        (written,) = tmp_path.iterdir()
        assert not written.read_bytes().startswith(b"{"), written.read_text()


def assert_alike(got: Any, expected: Any) -> None:
    """Equal but for rounding; "…" in the README stands for anything."""
    match expected:
        case "…":
            return
        case dict():
            for key, value in expected.items():
                assert_alike(got[key], value)
        case list():
            shown = [value for value in expected if value != "…"]
            assert len(got) == len(expected) or len(shown) < len(expected)
            for one, other in zip(got, shown, strict=False):
                assert_alike(one, other)
        case float():
            assert got == pytest.approx(expected, rel=1e-3, abs=1e-3)
        case _:
            assert got == expected
