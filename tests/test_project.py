"""The project's own papers agree with each other: version, changelog, pins, containers, CI."""

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest

from service.errors import ServiceError
from service.settings import Settings, variable_name
from service.telemetry import Metrics

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
DOCS = ROOT / "docs"
EXTRAS = PROJECT["optional-dependencies"]

# Where a distribution's module is not of its name. uvloop is chosen by uvicorn, where it is there.
_MODULES = {
    "grpcio": "grpc",
    "grpcio-health-checking": "grpc_health",
    "grpcio-reflection": "grpc_reflection",
    "mlflow-skinny": "mlflow",
    "onnxruntime-gpu": "onnxruntime",
    "opentelemetry-api": "opentelemetry",
    "opentelemetry-exporter-otlp-proto-http": "opentelemetry",
    "opentelemetry-sdk": "opentelemetry",
    "pillow": "PIL",
    "protobuf": "google",
    "scikit-learn": "sklearn",
}
# Calls whose first argument names a module.
_IMPORTERS = {"import_module", "importlib.import_module", "optional_package"}


def _read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_version_is_the_changelog_head() -> None:
    heads = re.findall(r"^## \[(\d[^\]]*)\] - \d{4}-\d{2}-\d{2}$", _read("CHANGELOG.md"), re.M)
    assert heads, "CHANGELOG.md: expected a heading like '## [0.1.0] - 2026-11-22'"
    assert heads[0] == PROJECT["version"]


def test_installed_version_is_the_project_version() -> None:
    installed = metadata.distribution("pushforward")
    origin = json.loads(installed.read_text("direct_url.json") or "{}").get("url", ROOT.as_uri())
    if origin != ROOT.as_uri():
        pytest.skip("the environment was made for another checkout")
    assert installed.version == PROJECT["version"]


def test_image_label_is_the_project_version() -> None:
    assert re.findall(r"^ARG VERSION=(.+)$", _read("Dockerfile"), re.M) == [PROJECT["version"]]


def test_constraints_are_plain_pins() -> None:
    """Name==version only: no hash, address or local version, each package once and in order."""
    lines = _read("constraints.txt").splitlines()
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    names = [_normal(line.split("==")[0]) for line in lines]
    assert len(set(names)) == len(names)


def _names(requirements: Iterable[str]) -> set[str]:
    """Distributions named by requirements; an extra of our own stands for what it holds."""
    names = set()
    for line in requirements:
        name, extras = re.match(r"([\w.-]+)(?:\[(.*?)\])?", line).groups()  # type: ignore[union-attr]
        if name == "pushforward":
            names |= {inner for extra in extras.split(",") for inner in _names(EXTRAS[extra])}
        else:
            names.add(_normal(name))
    return names


def test_the_client_needs_httpx_and_numpy_alone() -> None:
    assert _names(PROJECT["dependencies"]) == {"httpx", "numpy"}


@pytest.mark.parametrize("group", ["dependencies", *EXTRAS])
def test_every_dependency_is_pinned(group: str) -> None:
    names = _names(PROJECT.get(group) or EXTRAS[group])
    pinned = {_normal(line.split("==")[0]) for line in _read("constraints.txt").splitlines()}
    missing = names - pinned
    assert not missing, f"constraints.txt lacks {sorted(missing)}: install them and run make lock"


def test_onnxruntime_builds_are_alternatives() -> None:
    runtimes = {"onnxruntime", "onnxruntime-gpu"}
    brought = {extra: _names(lines) & runtimes for extra, lines in EXTRAS.items()}
    named = {extra: next(iter(names)) for extra, names in brought.items() if len(names) == 1}
    assert named == {"onnx": "onnxruntime", "cpu": "onnxruntime", "gpu": "onnxruntime-gpu"}
    assert all(not names for extra, names in brought.items() if extra not in named)


def test_cpu_and_gpu_differ_in_the_build_of_onnxruntime_alone() -> None:
    assert _names(EXTRAS["cpu"]) ^ _names(EXTRAS["gpu"]) == {"onnxruntime", "onnxruntime-gpu"}


def _imported() -> set[str]:
    """Top-level modules that the shipped code imports, in whatever way."""
    found = set()
    for folder in ("pushforward", "models", "service"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    found.add(str(node.module))
                elif isinstance(node, ast.Call) and ast.unparse(node.func) in _IMPORTERS:
                    found |= {
                        str(name.value) for name in node.args if isinstance(name, ast.Constant)
                    }
    return {name.partition(".")[0] for name in found}


def test_every_dependency_is_imported_and_every_import_declared() -> None:
    """One fewer where nothing imports it; nothing that comes along by chance."""
    shipped = set(EXTRAS) - {"dev"}
    declared = _names([*PROJECT["dependencies"], *(f"pushforward[{name}]" for name in shipped)])
    modules = {_MODULES.get(name, name.replace("-", "_")) for name in declared}
    third_party = _imported() - sys.stdlib_module_names - {"pushforward", "models", "service"}
    # torch's builds for CUDA bring Triton, and kernels are imported where it is.
    assert third_party - modules == {"triton"}, "imported, in no extra of pyproject.toml"
    # uvicorn finds uvloop; Ray calls what is shipped, and is called by the examples.
    assert modules - third_party == {"uvloop", "ray"}, "declared, imported by nothing"


def test_ci_runs_the_readme_commands() -> None:
    assert "make test" in _read(".ci/run")
    assert {"serve", "test"} <= set(re.findall(r"^make (\w+)", _read("README.md"), re.M))


def _python_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)


# For users; architecture.md is for those who change the code.
_MANUALS = ["README.md", *(f"docs/{path.name}" for path in sorted(DOCS.glob("*.md")))]
_MANUALS.remove("docs/architecture.md")


@pytest.mark.parametrize("name", _MANUALS)
def test_manuals_import_pushforward_alone(name: str) -> None:
    text = _read(name)
    imported = set()
    for block in _python_blocks(text):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module))
    assert not {module.partition(".")[0] for module in imported} & {"models", "service"}
    named = re.findall(r"`(?:(?:models|service)\.[\w.]+|import (?:models|service))\b", text)
    assert named == [], "dotted names of modules: say it with pushforward's own"


def _settings_rows() -> list[str]:
    """The table of docs/settings.md as the settings themselves give it."""
    rows = []
    for name, field in Settings.model_fields.items():
        unset = field.default in (None, ())
        default = "" if unset else f"`{field.default}`"
        rows.append(f"| `{variable_name(name)}` | {default} | {field.description} |")
    return rows


def test_the_manual_lists_every_setting() -> None:
    expected = _settings_rows()
    lines = _read("docs/settings.md").splitlines()
    listed = [line for line in lines if line.startswith("| `PUSHFORWARD")]
    table = "\n".join(expected)
    assert listed == expected, f"docs/settings.md: the table should read\n{table}"


def _errors(kind: type[ServiceError] = ServiceError) -> dict[str, str]:
    """The table of docs/errors.md as the tree gives it: code -> row, subclasses last."""
    summary = (kind.__doc__ or "").splitlines()[0]
    rows = {kind.code: f"| {kind.status} | `{kind.code}` | {summary} |"}
    for child in kind.__subclasses__():
        rows.update(_errors(child))
    return rows


def test_the_manual_lists_every_error() -> None:
    expected = sorted(_errors().values())
    lines = _read("docs/errors.md").splitlines()
    listed = [line for line in lines if re.match(r"\| [45]\d\d \| `", line)]
    table = "\n".join(expected)
    assert listed == expected, f"docs/errors.md: the table should read\n{table}"


def test_the_manual_lists_every_metric() -> None:
    names = {family.name for family in Metrics().registry.collect()}
    ours = {name for name in names if name.startswith("pushforward_")}
    text = _read("docs/metrics.md")
    listed = set(re.findall(r"^\| `(pushforward_\w+?)(?:_total)?` \|", text, re.M))
    assert listed == ours


def test_the_readme_is_read_in_five_minutes() -> None:
    assert len(_read("README.md").splitlines()) <= 180


_PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in DOCS.glob("*.md"))]


def test_the_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\(((?:docs/)?[\w-]+\.md)[#)]", _read("README.md")))
    assert linked == set(_PAGES) - {"README.md"}


def _anchors(text: str) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in headings}


@pytest.mark.parametrize("page", _PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Files that are there, and are in the source distribution; headings that are there."""
    built = tomllib.loads(_read("pyproject.toml"))["tool"]["hatch"]["build"]["targets"]["sdist"]
    shipped = {entry.strip("/") for entry in built["include"]} | {"LICENSE", "README.md"}
    for link in re.findall(r"\]\((?!https?://)(.+?)\)", _read(page)):
        file, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / file).resolve() if file else ROOT / page
        assert target.exists(), link
        assert target.relative_to(ROOT).parts[0] in shipped, f"{link}: not in the sdist"
        assert not anchor or anchor in _anchors(target.read_text("utf-8")), link


@pytest.mark.xdist_group("pages")
def test_tests_of_a_group_run_in_one_process(request: pytest.FixtureRequest) -> None:
    """pytest-xdist tells groups by the ends of names; where it cannot, each process pays again."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("groups are formed in runs with --dist loadgroup")
    assert request.node.nodeid.endswith("@pages")
