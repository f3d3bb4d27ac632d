"""The project's own papers agree with each other: version, changelog, pins, containers, CI."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from service.errors import ServiceError
from service.settings import Settings, variable_name
from service.telemetry import Metrics

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def _read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_version_is_the_changelog_head() -> None:
    heads = re.findall(r"^## \[(\d[^\]]*)\] - \d{4}-\d{2}-\d{2}$", _read("CHANGELOG.md"), re.M)
    assert heads, "CHANGELOG.md: expected a heading like '## [0.1.0] - 2026-11-22'"
    assert heads[0] == PROJECT["version"]


def test_installed_version_is_the_project_version() -> None:
    assert metadata.version("pushforward") == PROJECT["version"]


def test_image_label_is_the_project_version() -> None:
    assert re.findall(r"^ARG VERSION=(.+)$", _read("Dockerfile"), re.M) == [PROJECT["version"]]


def test_constraints_are_plain_pins() -> None:
    """Name==version only: no hash, address or local version, each package once and in order."""
    lines = _read("constraints.txt").splitlines()
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    names = [_normal(line.split("==")[0]) for line in lines]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("group", ["dependencies", *PROJECT["optional-dependencies"]])
def test_every_dependency_is_pinned(group: str) -> None:
    required = PROJECT.get(group) or PROJECT["optional-dependencies"][group]
    names = {_normal(re.split(r"[\[<>=!;\s]", line, maxsplit=1)[0]) for line in required}
    pinned = {_normal(line.split("==")[0]) for line in _read("constraints.txt").splitlines()}
    missing = names - pinned - {"pushforward"}
    assert not missing, f"constraints.txt lacks {sorted(missing)}: install them and run make lock"


def test_onnxruntime_builds_are_alternatives() -> None:
    extras = PROJECT["optional-dependencies"]
    named = [extra for extra, lines in extras.items() if "onnxruntime" in " ".join(lines)]
    assert named == ["cpu", "gpu"]
    assert "onnxruntime" not in " ".join(PROJECT["dependencies"])


def test_ci_runs_the_readme_commands() -> None:
    assert "make test" in _read(".ci/run")
    assert {"serve", "test"} <= set(re.findall(r"^make (\w+)", _read("README.md"), re.M))


def _settings_rows() -> list[str]:
    """The README's settings table as the settings themselves give it."""
    rows = []
    for name, field in Settings.model_fields.items():
        unset = field.default in (None, ())
        default = "" if unset else f"`{field.default}`"
        rows.append(f"| `{variable_name(name)}` | {default} | {field.description} |")
    return rows


def test_readme_lists_every_setting() -> None:
    expected = _settings_rows()
    listed = [line for line in _read("README.md").splitlines() if line.startswith("| `PUSHFORWARD")]
    table = "\n".join(expected)
    assert listed == expected, f"README.md: the settings table should read\n{table}"


def _errors(kind: type[ServiceError] = ServiceError) -> dict[str, str]:
    """The README's error table as the tree gives it: code -> row, subclasses after their base."""
    summary = (kind.__doc__ or "").splitlines()[0]
    rows = {kind.code: f"| {kind.status} | `{kind.code}` | {summary} |"}
    for child in kind.__subclasses__():
        rows.update(_errors(child))
    return rows


def test_readme_lists_every_error() -> None:
    expected = sorted(_errors().values())
    readme = _read("README.md").splitlines()
    listed = [line for line in readme if re.match(r"\| [45]\d\d \| `", line)]
    table = "\n".join(expected)
    assert listed == expected, f"README.md: the table of errors should read\n{table}"


def test_readme_lists_every_metric() -> None:
    names = {family.name for family in Metrics().registry.collect()}
    ours = {name for name in names if name.startswith("pushforward_")}
    listed = set(re.findall(r"^\| `(pushforward_\w+?)(?:_total)?` \|", _read("README.md"), re.M))
    assert listed == ours
