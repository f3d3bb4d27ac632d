"""Nobody is told that this project is used: onnxruntime is imported in one place, told to be still.

`tests/e2e/test_silence.py` watches a real server's system calls.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from models.onnx import runtime

ROOT = Path(__file__).resolve().parent.parent
# The one place, and the example that stands without this project.
ALLOWED = {"models/onnx/runtime.py", "examples/onnx_only.py"}
VARIABLE = "ORT_DISABLE_TELEMETRY"


def imports_of(tree: ast.AST, library: str) -> Iterator[int]:
    """Lines that import a library: by statement, by `import_module`, by `__import__`."""
    for node in ast.walk(tree):
        names: list[object] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        elif isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in ("import_module", "__import__", "importorskip"):
                names = [item.value for item in node.args if isinstance(item, ast.Constant)]
        if any(str(name).split(".")[0] == library for name in names):
            yield node.lineno  # type: ignore[attr-defined]


def test_onnxruntime_is_imported_in_one_place() -> None:
    paths = [
        path
        for folder in ("models", "service", "benchmarks", "examples", "tests", ".ci")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]
    found = {
        str(path.relative_to(ROOT))
        for path in paths
        if any(imports_of(ast.parse(path.read_text("utf-8")), "onnxruntime"))
    }
    assert found == ALLOWED, "import onnxruntime through models.onnx.runtime.load_runtime"


@pytest.mark.parametrize(
    ("statement", "count"),
    [
        ("import onnxruntime as ort", 1),
        ("from onnxruntime.capi import x", 1),
        ("def f():\n    import json, onnxruntime", 1),
        ("importlib.import_module('onnxruntime')", 1),
        ("__import__('onnxruntime')", 1),
        ("import onnx", 0),
        ("from models.onnx.runtime import load_runtime", 0),
    ],
)
def test_the_rule_itself(statement: str, count: int) -> None:
    assert len(list(imports_of(ast.parse(statement), "onnxruntime"))) == count


def test_the_variable_stands_before_the_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever set it to something else: no setting of ours turns reports on."""
    seen: list[str | None] = []
    monkeypatch.setenv(VARIABLE, "0")

    def import_module(name: str) -> Mock:
        seen.append(runtime.os.environ.get(VARIABLE))
        return Mock()

    monkeypatch.setattr(runtime, "import_module", import_module)
    runtime.load_runtime.__wrapped__()
    assert seen == ["1"]


def test_the_example_sets_it_before_its_import() -> None:
    tree = ast.parse((ROOT / "examples" / "onnx_only.py").read_text("utf-8"))
    (line,) = imports_of(tree, "onnxruntime")
    (told,) = (node.lineno for node in tree.body if VARIABLE in ast.unparse(node))
    assert told < line


def test_the_image_sets_it_too() -> None:
    assert f"{VARIABLE}=1" in (ROOT / "Dockerfile").read_text("utf-8")


def test_a_use_as_a_library_leaves_no_file_at_home(tmp_path: Path) -> None:
    code = "from models.onnx.runtime import load_runtime; print(load_runtime().__version__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin", "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout
    assert list(tmp_path.iterdir()) == []
