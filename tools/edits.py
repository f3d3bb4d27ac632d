"""Count what a further operation, engine, field or format costs, by what an existing one takes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

FOLDERS = ("pushforward", "service")

EXISTING = {
    "operation": re.compile(r'"/?sample"|Sample|def [Ss]ample'),
    "engine": re.compile(r'"onnx"|(def )?(onnx|Onnx|OnnxEngine|ONNX)'),
    "field of rows": re.compile(r'"columns"|_?COLUMNS|FIELD'),
    "field of one operation": re.compile(r'"temperature"|TEMPERATURE'),
    "format": re.compile(r'"(application/x-)?npz"|(def )?(_?NPZ_?\w*|(read|write)_npz)'),
}


def count_lines(root: Path, folder: str) -> int:
    """Lines of all modules in a folder."""
    return sum(len(path.read_text("utf-8").splitlines()) for path in _modules(root, folder))


def find_edits(root: Path, name: re.Pattern[str]) -> dict[str, int]:
    """How many statements of each file name something that exists."""
    edits: dict[str, int] = {}
    for folder in FOLDERS:
        for path in _modules(root, folder):
            if name.fullmatch(f'"{path.stem}"'):
                edits[str(path.relative_to(root))] = 1
                continue
            tree = ast.parse(path.read_text("utf-8"))
            count = sum(_names(statement, name) for statement in _statements(tree))
            if count:
                edits[str(path.relative_to(root))] = count
    return edits


def _modules(root: Path, folder: str) -> list[Path]:
    return sorted((root / folder).rglob("*.py")) if (root / folder).is_dir() else []


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef):
            yield from statement.body
        else:
            yield statement


def _names(statement: ast.stmt, name: re.Pattern[str]) -> bool:
    return any(name.fullmatch(word) for node in ast.walk(statement) for word in _words(node))


def _words(node: ast.AST) -> Iterator[str]:
    """The identifiers of one node, strings in quotes, and what is defined behind `def`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield f'"{node.value}"'
    elif isinstance(node, ast.alias):
        yield from (node.name.split(".")[-1], node.asname or "")
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield f"def {node.name}"
