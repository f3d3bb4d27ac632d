"""Blocks of data: what a page says of a file or an answer is what the service takes or gives."""

import json
import tomllib
from pathlib import Path

import jsonschema_rs
import yaml

from service.app import create_app
from service.repository.folders import ModelFolder, ModelLocation
from service.repository.overrides import SERVING_FILE, read_overrides
from service.repository.version_policy import live_versions
from service.settings import Settings
from tests.docs.blocks import Block
from tests.service.fake_repository import FakeRepository

# Page -> the schema in the service's own description that its JSON is of.
SCHEMAS = {"docs/continuous.md": "LogProbResult", "docs/scoring.md": "ScoreResult"}


def check_data(block: Block, text: str, file: Path | None) -> None:
    """Check a block of TOML, YAML or JSON.

    Args:
        block: as it stands on the page.
        text: what is checked in its place.
        file: where it has been written, if its first line names a file.
    """
    if block.language == "json":
        _check_answer(json.loads(text), SCHEMAS[block.page])
    elif block.language == "toml":
        content = tomllib.loads(text)
        assert content
        assert file is not None, "the first line of a settings file names it: # pushforward.toml"
        if "version_policy" in content:
            _check_versions(file)
        elif file.name == SERVING_FILE:
            read_overrides(file.parent, Settings())
    else:
        assert yaml.safe_load(text)
        raise AssertionError("no page has YAML yet: say here what it must fit")


def _check_versions(file: Path) -> None:
    """What it says is live lies there, as the page says."""
    name, folder = file.parent.name, file.parent
    lying = tuple(ModelLocation(name, version, folder / version) for version in ("1", "2", "3"))
    live = live_versions(ModelFolder(name, folder, lying, has_versions=True), Settings())
    assert set(live.versions) < {one.version for one in lying}
    assert live.default != max(live.versions)


def _check_answer(answer: object, schema: str) -> None:
    """An answer has the names and types that the service's description gives it."""
    described = create_app(Settings(log_level="error"), FakeRepository()).openapi()
    schemas = described["components"]["schemas"]
    known = schemas[schema]
    assert isinstance(answer, dict)
    assert set(answer) <= set(known["properties"]), schema
    for name, value in answer.items():
        rule = {**known["properties"][name], "components": {"schemas": schemas}}
        jsonschema_rs.Draft202012Validator(rule).validate(value)
