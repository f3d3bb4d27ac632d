"""Every example of docs/importing.md works on the golden case of its source."""

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.importers.registry import NAMES
from pushforward.cli import app as cli
from tests.fixtures import CONFIG_FILE, golden_cases

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "importing.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^### `(.+?)`.*?\n(.*?)(?=^##|\Z)", TEXT, re.M | re.S))
COMMANDS = [
    (name, command.replace("\\\n", " "))
    for name, section in SECTIONS.items()
    for command in re.findall(r"^(pushforward import (?:.|\\\n)*?)$(?<!\\)", section, re.M)
]


def checkpoint(source: str, file: str) -> Path:
    """The golden case of that source whose checkpoint has that name."""
    for name, folder in golden_cases().items():
        config = json.loads((folder / CONFIG_FILE).read_text())
        if name.endswith(("_a", "_b")) and (folder / file).exists() and config["source"] == source:
            return folder / file
    raise AssertionError(f"no golden case of {source} has a file {file}")


def test_every_source_has_an_example_from_file_to_curl() -> None:
    assert set(NAMES) <= set(SECTIONS)
    for name, section in SECTIONS.items():
        words = ("pushforward import", "--out", "pushforward serve", "curl localhost:8000/")
        assert [word for word in words if word not in section] == [], name


@pytest.mark.parametrize(("source", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_the_example_works(source: str, command: str) -> None:
    words = shlex.split(command)[1:]
    words = [
        str(checkpoint(source, word)) if re.search(r"\.(pt|pth|pkg|tar)$", word) else word
        for word in words
    ]
    result = CliRunner().invoke(cli.build(words), [*words, "--dry-run", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["imported_from"] == source
    assert report["family"], result.stdout
