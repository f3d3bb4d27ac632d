"""What docs/architecture.md names is there: files, functions, classes, and its skeleton runs."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import service.app
import service.transport.v2
from service.operations import OPERATIONS
from tests.service.fake_repository import FakeRepository, app_over, ask, post

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("pushforward", "models", "service", "tools", "tests")
TEXT = (ROOT / "docs" / "architecture.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.M | re.S)
PROSE = re.sub(r"^```.*?^```$", "", TEXT, flags=re.M | re.S)
WORDS = re.findall(r"`([^`\n]+)`", PROSE)

PATHS = sorted({word for word in WORDS if "/" in word and " " not in word and "NAME" not in word})
NAMES = sorted({word for word in WORDS if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?", word)})
# "`name` (`file`": the file has the name.
PLACES = sorted(set(re.findall(r"`([\w.]+)`\s+\(`([\w/]+\.py)`", PROSE)))
# Of the library, files of a model, and fields of JSON, values of settings.
OTHERS = {"Protocol", "config.json", "functools.singledispatch", "model.safetensors"}
OTHERS |= {"golden.safetensors", "accuracy.is_bitwise_reproducible", "parameters.operation", "auto"}
OTHERS |= set(FOLDERS)


@functools.cache
def _defined(path: Path) -> frozenset[str]:
    """The functions, classes, variables and fields that a module defines; methods with their class.

    So `Operation.prepare` stands in it beside `Operation` and `prepare`.
    """
    return frozenset(_names(ast.parse(path.read_text("utf-8"))))


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name
            yield from (f"{node.name}.{name}" for part in node.body for name in _names(part))
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


@functools.cache
def _all_defined() -> frozenset[str]:
    paths = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return frozenset().union(*map(_defined, paths))


@pytest.mark.parametrize("path", PATHS)
def test_paths_exist(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OTHERS])
def test_names_are_defined(name: str) -> None:
    assert name in _all_defined()


@pytest.mark.parametrize(("name", "path"), PLACES)
def test_names_are_where_it_says(name: str, path: str) -> None:
    assert name in _defined(ROOT / path)


def test_pictures_name_what_is_there() -> None:
    pictures = "".join(block for language, block in BLOCKS if language == "text")
    assert pictures
    named = set(re.findall(r"\b(?:[A-Z][a-z]+){2,}\b", pictures))
    assert named <= _all_defined()


def test_the_skeleton_of_an_operation_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its line in the table it has what the page promises."""
    (code,) = (block for language, block in BLOCKS if language == "python")
    module: dict[str, Any] = {}
    exec(compile(code, "docs/architecture.md", "exec"), module)
    table = (*OPERATIONS, module["LatentNorm"])
    for user in (service.app, service.transport.v2):
        monkeypatch.setattr(user, "OPERATIONS", table)
    app = app_over(FakeRepository())
    row = {"model": "line", "x": [[2, 4, 6]]}
    expected = np.float32([14 / 3])  # z = x / 2
    assert post(app, "/latent_norm", json=row).json()["latent_norm"] == pytest.approx(expected)
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [2, 4, 6]}
    inference = {"inputs": [tensor], "parameters": {"operation": "latent_norm"}}
    (output,) = post(app, "/v2/models/line/infer", json=inference).json()["outputs"]
    assert (output["name"], output["data"]) == ("latent_norm", pytest.approx(expected))
    assert "/latent_norm" in ask(app, "GET", "/openapi.json").json()["paths"]
