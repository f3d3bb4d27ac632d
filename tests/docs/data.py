"""Blocks of data: what a page says of a file or an answer is what the service takes or gives."""

import json
import tomllib
from pathlib import Path

import jsonschema_rs
import yaml

from service.app import create_app
from service.repository.overrides import SERVING_FILE, read_overrides
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
        assert tomllib.loads(text)
        assert file is not None, "the first line of a settings file names it: # pushforward.toml"
        if file.name == SERVING_FILE:
            read_overrides(file.parent, Settings())
    else:
        assert yaml.safe_load(text)
        raise AssertionError("no page has YAML yet: say here what it must fit")


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
