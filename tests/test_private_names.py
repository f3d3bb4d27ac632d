"""No test reaches a private name: what is tested is what others may call."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
OURS = ("pushforward", "models", "service", "tools", "benchmarks", "tests")

# Public in spite of its underscore: what Python's documentation says of named tuples and of `os`.
_PUBLIC = {"_asdict", "_fields", "_make", "_replace", "_exit"}
# Functions that take an attribute's name as text.
_BY_NAME = {"getattr", "setattr", "delattr", "hasattr", "attrgetter", "object"}
# In the text of a patch, or of a program that a test runs.
_DOTTED = re.compile(rf"\b(?:{'|'.join(OURS)})(?:\.\w+)*\._[A-Za-z]\w*")


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in {"_", *_PUBLIC}


def _own_names(tree: ast.Module) -> set[str]:
    """Private names that a module itself gives to its functions, classes and objects."""
    own = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                own.add(name)
            case ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                own.add(name)
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                own.add(name)
    return own


def _reached(node: ast.AST, own: set[str]) -> Iterator[str]:
    """Private names of others at one place of a syntax tree."""
    match node:
        case ast.Attribute(value=ast.Name(id="self" | "cls")):
            if _is_private(node.attr) and node.attr not in own:
                yield node.attr
        case ast.Attribute():
            if _is_private(node.attr):
                yield ast.unparse(node)
        case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] in OURS:
            parts = [*module.split("."), *(alias.name for alias in names)]
            yield from filter(_is_private, parts)
        case ast.Import(names=names):
            yield from (alias.name for alias in names if _DOTTED.match(alias.name))
        case ast.Constant(value=str(text)):
            yield from _DOTTED.findall(text)
        case ast.Call(args=[_, ast.Constant(value=str(name)), *_]):
            if ast.unparse(node.func).rpartition(".")[2] in _BY_NAME and _is_private(name):
                yield name


def reached(source: str) -> list[str]:
    """Private names of others that a module reaches."""
    tree = ast.parse(source)
    own = _own_names(tree)
    return [name for node in ast.walk(tree) for name in _reached(node, own)]


def test_no_test_reaches_a_private_name() -> None:
    found = {
        str(path.relative_to(TESTS)): names
        for path in sorted(TESTS.rglob("*.py"))
        if path != Path(__file__).resolve() and (names := reached(path.read_text("utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "from service.engines.autotune import _seconds",
        "from service import _secret",
        "import models._secret",
        "batcher._queue",
        "batcher.queue()._entries[0]",
        "monkeypatch.setattr('service.batcher.batcher._logger', None)",
        "monkeypatch.setattr(autotune, '_SLOW_ROW_SECONDS', 0)",
        "patch.object(autotune, '_SLOW_ROW_SECONDS', 0)",
        "getattr(batcher, '_queue')",
        "PROGRAM = 'import service.launch.worker as w; service.launch.worker._serve()'",
        "class Mine(Batcher):\n    def rows(self): return self._queue.waiting_rows",
    ],
)
def test_a_private_name_is_found(source: str) -> None:
    assert len(reached(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from numpy._core._multiarray_umath import __cpu_features__",
        "line._replace(status=200)",
        "os._exit(7)",
        "batcher.__class__",
        "monkeypatch.setattr(loading, 'build', build)",
        "class Mine(Base):\n    def __init__(self): self._x = 1\n    def x(self): return self._x",
    ],
)
def test_a_name_for_others_is_not_found(source: str) -> None:
    assert reached(source) == []
