"""Write what the Helm chart takes from elsewhere, and render its examples.

    python -m tools.chart

deploy/helm/files/alerts.yml is deploy/monitoring/alerts.yml, the `settings` of values.schema.json
are those of the service, and tests/fixtures/helm holds what the examples are rendered to: the tests
check that with or without helm. Without it (`--helm` names another) they stay as they are.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from service.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "deploy" / "helm"
ALERTS = ROOT / "deploy" / "monitoring" / "alerts.yml"
EXAMPLES = CHART / "examples"
RENDERED = ROOT / "tests" / "fixtures" / "helm"
SCHEMA = CHART / "values.schema.json"
RELEASE = ("flows", "production")
# Without one `helm template` would make another each time.
FIXED_KEY = "keys.values[0]=0123456789abcdef"
# Settings that the chart sets itself, by values of their own.
SET_BY_VALUES = {
    "allow_unauthenticated",
    "api_key_file",
    "api_keys",
    "cache",
    "grpc_port",
    "host",
    "model_repository",
    "port",
    "shutdown_grace_seconds",
}


def settings_schema() -> dict[str, Any]:
    """The values of `settings`: a property for each setting of the service, and no others."""
    known = Settings.model_json_schema()["properties"]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _as_value(known[name]) for name in known if name not in SET_BY_VALUES},
    }


def _as_value(schema: dict[str, Any]) -> dict[str, Any]:
    """A setting as values give it: without what docs/settings.md says of it."""
    told = ("default", "description", "title")
    return {key: part for key, part in schema.items() if key not in told}


def chart_digest() -> str:
    """SHA-256 of what decides how examples are rendered, the text of the alerts apart."""
    paths = [CHART / "Chart.yaml", CHART / "values.yaml"]
    paths += sorted((CHART / "templates").rglob("*.*")) + sorted(EXAMPLES.glob("*.yaml"))
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(CHART)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def render(helm: str, *values: str) -> str:
    """What `helm template` makes of the chart.

    Args:
        helm: the program.
        values: its arguments -f and --set, with theirs.

    Raises:
        RuntimeError: helm refuses the chart or the values.
    """
    release, namespace = RELEASE
    command = [helm, "template", release, str(CHART), "--namespace", namespace, *values]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise RuntimeError(run.stderr.strip())
    return run.stdout


def examples() -> dict[str, tuple[str, ...]]:
    """Name -> the arguments of `helm template` that render it."""
    named: dict[str, tuple[str, ...]] = {"default": ("--set", FIXED_KEY)}
    for path in sorted(EXAMPLES.glob("*.yaml")):
        key = () if "keys" in yaml.safe_load(path.read_text("utf-8")) else ("--set", FIXED_KEY)
        named[path.stem] = ("-f", str(path), *key)
    return named


def without_alerts(rendered: str) -> list[dict[str, Any]]:
    """Objects of a rendering; the groups of a PrometheusRule are those of the alerts, left out."""
    objects = [one for one in yaml.safe_load_all(rendered) if one is not None]
    for one in objects:
        if one["kind"] == "PrometheusRule":
            one["spec"].pop("groups")
    return objects


def rendered_file(name: str) -> Path:
    """Where the rendering of an example lies."""
    return RENDERED / name / "objects.yaml"


def digest_line() -> str:
    """The first line of a rendering, which says of which chart it is."""
    return f"# python -m tools.chart, of the chart {chart_digest()}\n"


def write_renderings(helm: str) -> None:
    """Render every example into tests/fixtures/helm, with the digest of the chart."""
    shutil.rmtree(RENDERED, ignore_errors=True)
    for name, values in examples().items():
        objects = without_alerts(render(helm, *values))
        text = digest_line() + yaml.safe_dump_all(objects, sort_keys=False)
        rendered_file(name).parent.mkdir(parents=True)
        rendered_file(name).write_text(text, "utf-8")


def main() -> None:
    """Write the copies, the schema and, where helm is, the renderings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--helm", default="helm", help="the program (default: helm on PATH)")
    helm = shutil.which(parser.parse_args().helm)
    shutil.copy(ALERTS, CHART / "files" / "alerts.yml")
    schema = json.loads(SCHEMA.read_text("utf-8"))
    schema["properties"]["settings"] = settings_schema()
    SCHEMA.write_text(json.dumps(schema, indent=2) + "\n", "utf-8")
    if helm is None:
        sys.exit("helm is not here: the renderings in tests/fixtures/helm are left as they are")
    write_renderings(helm)


if __name__ == "__main__":
    main()
