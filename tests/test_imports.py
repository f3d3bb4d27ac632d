"""Imports point one way, pushforward -> service -> models -> torch: checked against the ASTs."""

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Top to bottom: a module may import its own unit, units below it, and the leaves. A unit is a
# module or a package with all it holds. Units on one line do not import each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    # Names of 0.1.0, with a warning.
    (
        "models.certificate",
        "models.checkpoint",
        "models.evaluate",
        "models.transforms.ode",
        "models.zoo.__main__",
        "service.cli",
        "service.client",
    ),
    ("pushforward.cli",),
    ("pushforward.mlflow",),
    ("pushforward.asgi", "pushforward.batch", "pushforward.bench"),
    ("pushforward",),
    ("pushforward.client",),
    ("service.launch.main",),
    ("service.launch.processes",),
    ("service.launch.supervisor",),
    ("service.launch.worker_process",),
    ("service.launch.worker",),
    ("service.launch.limits", "service.launch.uvicorn_server"),
    ("service.app",),
    ("service.transport.grpc",),
    ("service.api",),
    ("service.transport.fast_path",),
    ("service.transport.v2",),
    ("service.transport",),
    ("service.auth",),
    ("service.operations",),
    ("service.keys",),
    ("service.telemetry.recorder",),
    ("service.telemetry.tracing",),
    ("service.repository",),
    ("service.remote",),
    ("service.codec", "service.batcher"),
    ("service.api.schemas_v2",),
    ("service.api.schemas",),
    ("service.engines",),
    ("service.contracts",),
    # The lazy names of `import models`.
    ("models",),
    ("models.importers", "models.kernels", "models.onnx", "models.training"),
    ("models.scoring",),
    ("models.datasets", "models.fold", "models.trajectory"),
    ("models.checkpoints",),
    ("models.registry",),
    ("models.families",),
    ("models.monotone",),
    ("models.conditioners", "models.flow", "models.ode"),
    ("models.transforms",),
    ("models.extras", "models.noise", "models.ode.call", "models.ode.while_loop", "models.zoo"),
    ("models.row_sum",),
)
# Rows that stand for a package's `__init__` alone: what is below has rows of its own.
TOPS = ("pushforward", "service", "models")
# Not part of the package: may import all of it.
FREE = ("benchmarks", "tools")
# Tables of the tests that a check of a device takes its flows from.
TABLES = (
    ("benchmarks.gpu.subjects", "tests.cases"),
    ("benchmarks.gpu.subjects", "tests.models.importers.golden"),
)
# Importable from the whole of `service`; import nothing of ours.
LEAVES = (
    "pushforward.siblings",
    "pushforward.version",
    "service",
    "service.engines.registry",
    "service.errors",
    "service.problem",
    "service.settings",
    "service.telemetry",
    "service.launch.exits",
    "service.uris",
)

# What a unit may import beside the standard library, where that is a promise: the client is
# usable without the server's dependencies.
ONLY: dict[str, set[str]] = {
    "pushforward": set(),
    "pushforward.bench": {"httptools", "httpx", "matplotlib", "numpy"},
    "pushforward.client": {"httpx", "numpy"},
    "pushforward.siblings": set(),
    "pushforward.version": set(),
    "service.engines.registry": set(),
}

# What a unit must never import.
WEB = {"fastapi", "starlette", "uvicorn", "httpx", "prometheus_client", "pydantic_settings"}
NEVER = {
    "models": WEB,
    "service.engines": WEB,
    "service.batcher": WEB | {"torch"},
    "service.codec": {"torch"},
}


def _unit(module: str) -> str | None:
    """The row of the tables that `module` belongs to: the longest that holds it."""
    rows = [name for layer in (*LAYERS, LEAVES) for name in layer if name not in TOPS]
    holding = [name for name in rows if f"{module}.".startswith(f"{name}.")]
    if module in TOPS:
        return module
    return max(holding, key=len, default=None)


def _may_import(importer: str, imported: str) -> bool:
    if importer == imported or importer in FREE:
        return True
    if importer in LEAVES:
        # The settings name the engines that there are, and split URIs; problems show errors,
        # metrics the version.
        return (importer, imported) in (
            ("service.settings", "service.engines.registry"),
            ("service.settings", "service.uris"),
            ("service.problem", "service.errors"),
            ("service.telemetry", "pushforward.version"),
        )
    if importer == "pushforward":
        return imported in ("models", "pushforward.client", "pushforward.siblings")
    if imported in LEAVES:
        return importer.split(".")[0] != "models" and importer != "pushforward.client"
    if importer == "pushforward.client":
        return False
    depth = {name: level for level, layer in enumerate(LAYERS) for name in layer}
    return depth[importer] < depth[imported]


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def _imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Every imported module with its line; `from service import app` counts as service.app."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            source = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield node.lineno, inner if _is_module(inner) else source


def _problem(module: str, imported: str) -> str | None:
    """Why `module` may not import `imported`, or None."""
    top = module.split(".")[0]
    importer = _unit(module) or (top if top in FREE else None)
    if importer is None:
        return f"{module} has no row in LAYERS or LEAVES of tests/test_imports.py: give it one"
    top = imported.split(".")[0]
    if top == "tests" and (module, imported) not in TABLES:
        return "nothing outside the tests imports them"
    if top in TOPS:
        target = _unit(imported)
        if target is None:
            return f"{imported} has no row in LAYERS or LEAVES of tests/test_imports.py"
        if not _may_import(importer, target):
            return f"{importer} may not import {target}: see the order of LAYERS"
        return None
    if importer in ONLY and top not in ONLY[importer] | sys.stdlib_module_names:
        return f"{importer} imports only {', '.join(sorted(ONLY[importer]))} and the library"
    if any(top in names for unit, names in NEVER.items() if f"{importer}.".startswith(f"{unit}.")):
        return f"{importer} knows nothing of {top}"
    return None


def _problems(path: Path, source: str) -> list[str]:
    module = _module_name(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    imports = sorted(set(_imports(ast.parse(source, str(path)), package)))
    return [
        f"{path.relative_to(ROOT)}:{line}: imports {imported}: {problem}"
        for line, imported in imports
        if (problem := _problem(module, imported)) is not None
    ]


@pytest.mark.parametrize("folder", ["models", "service", "pushforward", "benchmarks", "tools"])
def test_imports_point_one_way(folder: str) -> None:
    paths = sorted((ROOT / folder).rglob("*.py"))
    problems = [line for path in paths for line in _problems(path, path.read_text("utf-8"))]
    assert not problems, "\n".join(["backward imports:", *problems])


def test_no_two_modules_of_models_import_each_other() -> None:
    imports: dict[str, set[str]] = {}
    for path in (ROOT / "models").rglob("*.py"):
        module = _module_name(path)
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        tree = ast.parse(path.read_text("utf-8"))
        imports[module] = {name for _, name in _imports(tree, package)} - {module}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_context_variables_serve_tracing_alone() -> None:
    """What a call does follows from its arguments; the loop of a traced graph is the exception."""
    users = {
        _module_name(path)
        for path in (ROOT / "models").rglob("*.py")
        for _, name in _imports(ast.parse(path.read_text("utf-8")), "")
        if name == "contextvars"
    }
    assert users == {"models.ode.while_loop", "models.transforms.ode"}  # the second until 0.3.0


@pytest.mark.parametrize(
    ("path", "statement", "allowed"),
    [
        ("models/flow.py", "import service.app", False),
        ("models/flow.py", "from models.noise import base_noise", True),
        ("models/flow.py", "import torch.nn", True),
        ("models/training/run.py", "from fastapi import FastAPI", False),
        ("models/training/run.py", "from models.transforms.actnorm import ActNorm", True),
        ("models/transforms/actnorm.py", "from models.flow import Flow", False),
        ("models/ode/solver.py", "from models.checkpoints import golden", False),
        ("models/onnx/export.py", "import models.training", False),
        ("models/onnx/export.py", "from service.errors import ServiceError", False),
        ("models/newcomer.py", "import json", False),
        ("models/noise.py", "import models", False),
        ("service/engines/torch.py", "import models.zoo", True),
        ("models/flow.py", "from tests.cases import CASES", False),
        ("models/families/glow.py", "from ..transforms import coupling", True),
        ("models/families/glow.py", "from ...service import errors", False),
        ("service/errors.py", "from service.settings import Settings", False),
        ("service/settings.py", "import models", False),
        ("service/telemetry/metrics.py", "import prometheus_client", True),
        ("pushforward/cli/main.py", "from service import app", True),
        ("pushforward/cli/main.py", "from pushforward.cli.train import train", True),
        ("pushforward/cli/train.py", "import models.training", True),
        ("pushforward/__init__.py", "from models import load", True),
        ("pushforward/__init__.py", "from service import app", False),
        ("pushforward/__init__.py", "import torch", False),
        ("pushforward/siblings.py", "import models", False),
        ("service/app.py", "from .api import health", True),
        ("service/app.py", "import pushforward.cli.main", False),
        ("service/operations/sample.py", "from service.codec import decode_body", True),
        ("service/operations/sample.py", "from service.app import create_app", False),
        ("service/codec.py", "from service.batcher import Batcher", False),
        ("service/codec.py", "import torch", False),
        ("service/batcher.py", "from service.engines import Engine", True),
        ("service/batcher.py", "from fastapi import Request", False),
        ("service/engines/torch.py", "import models", True),
        ("service/engines/torch.py", "from service.batcher import Batcher", False),
        ("service/engines/torch.py", "from service.errors import ServiceError", True),
        ("pushforward/client/calls.py", "import httpx, numpy, json", True),
        ("pushforward/client/calls.py", "from service.errors import ServiceError", False),
        ("pushforward/client/calls.py", "import rich", False),
        ("service/newcomer.py", "import json", False),
        ("benchmarks/bench_http.py", "from pushforward.client import Client", True),
        ("benchmarks/bench_http.py", "from tests.cases import CASES", False),
        ("benchmarks/gpu/subjects.py", "from tests.cases import CASES", True),
    ],
)
def test_the_rule_itself(path: str, statement: str, allowed: bool) -> None:
    problems = _problems(ROOT / path, f"def late():\n    {statement}\n")
    assert (problems == []) is allowed, problems
    assert all(line.startswith(f"{path}:2: ") for line in problems)
