"""What is deployed beside the service names what the service has."""

import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.scoring import martingale
from service.app import create_app
from service.auth import OPEN_PATHS
from service.settings import Settings, variable_name
from service.telemetry import Metrics
from tests.service.fake_repository import FakeRepository
from tests.service.telemetry.test_metrics import PROMISED

ROOT = Path(__file__).resolve().parent.parent
MONITORING = ROOT / "deploy" / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana/dashboards/pushforward.json").read_text("utf-8"))
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"]}
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
}
OBJECTS = {
    one["kind"]: one
    for one in yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text("utf-8"))
}
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
POD = OBJECTS["Deployment"]["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
PROMTOOL = shutil.which("promtool")
# Counters whose `op` is the call, and those whose `op` is what the engine computes for it.
BY_CALL = {
    f"pushforward_{name}" for name in ("requests_total", "failed_rows_total", "anomalies_total")
}
KEY_LABELS = {"key", "limit", "code"}
# What is counted of requests without a model too: beside those that failed stand no others.
WITHOUT_MODEL = {
    f"pushforward_{name}"
    for name in ("requests_total", "request_duration_seconds_bucket", "dropped_total")
}
BY_COMPUTATION = {
    f"pushforward_{name}"
    for name in ("rows_total", "batches_total", "nonfinite_rows_total", "out_of_memory_total")
}
VARIABLES = {variable_name(field) for field in Settings.model_fields}


def _series() -> set[str]:
    """Every name that /metrics can show, once everything has been counted."""
    names = set()
    for family in Metrics().registry.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
        names |= {family.name + suffix for suffix in suffixes.get(family.type, ("",))}
    return names


@pytest.mark.parametrize("title", PANELS)
def test_panels_ask_for_series_that_exist(title: str) -> None:
    for target in PANELS[title]["targets"]:
        asked = set(re.findall(r"(?:pushforward|process)_\w+", target["expr"])) - {"pushforward"}
        assert asked
        assert asked <= _series()


def test_panels_show_what_was_refused_too() -> None:
    (models,) = (one for one in DASHBOARD["templating"]["list"] if one["name"] == "model")
    assert "pushforward_model_ready" in models["query"]["query"]
    for title in ("Requests without answer, a second", "Time of a request that failed, mean"):
        asked = re.findall(r'model=~"([^"]*)"', str(PANELS[title]["targets"]))
        assert set(asked) == {"$model|"}


def test_every_metric_has_a_panel() -> None:
    asked = " ".join(target["expr"] for panel in PANELS.values() for target in panel["targets"])
    families = {family.name for family in Metrics().registry.collect()}
    ours = {name for name in families if name.startswith("pushforward_")}
    assert {name for name in ours if name not in asked} == {"pushforward_build_info"}


@pytest.mark.parametrize("name", ALERTS)
def test_alerts_ask_for_series_that_exist(name: str) -> None:
    rule = ALERTS[name]
    asked = set(re.findall(r"\b(?:pushforward_\w+|process_\w+|up\b)", rule["expr"]))
    assert asked
    assert asked <= _series() | {"up", "process_start_time_seconds"}
    assert rule["labels"].keys() == {"severity"}
    assert rule["annotations"].keys() == {"summary", "description"}
    assert rule["expr"].count("(") == rule["expr"].count(")")


@pytest.mark.parametrize("name", ALERTS)
def test_alerts_group_by_labels_that_their_series_have(name: str) -> None:
    expression = ALERTS[name]["expr"]
    for labels, family in re.findall(
        r"by \(([\w, ]+)\)\s*\((?:\w+\()?pushforward_(\w+)", expression
    ):
        others = KEY_LABELS if family.startswith("key_") else {"model", "version"}
        others = {"source"} if family.startswith("source_") else others
        assert set(labels.split(", ")) <= PROMISED.get(family, others)
    asked = set(re.findall(r"pushforward_\w+", expression))
    if asked & BY_CALL and asked & BY_COMPUTATION:
        assert "on (model)" in expression


@pytest.mark.parametrize("name", ALERTS)
def test_alerts_do_not_take_requests_without_a_model_for_a_model(name: str) -> None:
    for part in re.split(r"\b(?:or|and|unless)\b", ALERTS[name]["expr"]):
        first = re.search(r"(pushforward_\w+)(?:{(.*?)})?", part)
        if first and first[1] in WITHOUT_MODEL:
            assert re.search(r'\b(model|version)(!="|="")', first[2] or ""), part


@pytest.mark.parametrize("name", ALERTS)
def test_the_runbook_says_what_to_do_at_every_alert(name: str) -> None:
    assert f"\n| `{name}` | " in (ROOT / "docs" / "operations.md").read_text("utf-8")


def test_every_alert_is_tried() -> None:
    tried = yaml.safe_load((MONITORING / "alerts_test.yml").read_text("utf-8"))["tests"]
    names = {case["alertname"] for test in tried for case in test["alert_rule_test"]}
    assert names == ALERTS.keys()


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool here, which comes with Prometheus")
def test_prometheus_fires_them_where_it_should() -> None:
    for words in (("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")):
        command = [str(PROMTOOL), *words]
        run = subprocess.run(command, cwd=MONITORING, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr


def test_the_alarm_is_where_the_drift_test_counts_a_crossing() -> None:
    limit = f"> 1 / {martingale.DELTA:g}"
    alarms = re.findall(r"> [\d./ ]+\d", ALERTS["PushforwardDrift"]["expr"])
    assert alarms == [limit, limit]
    (panel,) = (one for title, one in PANELS.items() if title.startswith("Drift: ln"))
    lines = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert lines[-1]["value"] == pytest.approx(-math.log(martingale.DELTA), abs=1e-3)


def test_prometheus_loads_the_alerts() -> None:
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text("utf-8"))
    mounted = {volume.split(":")[1] for volume in COMPOSE["services"]["prometheus"]["volumes"]}
    assert config["rule_files"] == ["/etc/prometheus/alerts.yml"]
    assert set(config["rule_files"]) <= mounted


def test_prometheus_scrapes_the_service_of_compose() -> None:
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text("utf-8"))
    (job,) = config["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    assert target.partition(":")[0] in COMPOSE["services"]


def test_compose_mounts_what_is_there_and_starts_the_service_alone() -> None:
    services: dict[str, Any] = COMPOSE["services"]
    assert [name for name, one in services.items() if "profiles" not in one] == ["cpu"]
    for one in services.values():
        for volume in one["volumes"]:
            source = volume.removeprefix("${MODELS:-").split("}")[0].split(":")[0]
            assert (ROOT / source).exists(), source
        assert all(port.startswith("127.0.0.1:") for port in one.get("ports", ()))
    for name in ("cpu", "gpu", "slim"):
        assert set(services[name]["environment"]) <= VARIABLES
        assert f" AS {services[name]['build']['target']}\n" in DOCKERFILE


def test_the_gpu_image_computes_on_every_gpu_by_one_version_of_cuda() -> None:
    stage = DOCKERFILE.partition(" AS build-gpu\n")[2].partition("\nFROM ")[0]
    assert stage.index("pip install '.[gpu,grpc,hub,otel]' -c") < stage.index("assert built[0]")
    stage = DOCKERFILE.partition(" AS gpu\n")[2].partition("\nFROM ")[0]
    assert "PUSHFORWARD_DEVICE=cuda\n" in stage
    (devices,) = COMPOSE["services"]["gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    # That of the build says which; these are the defaults that it chooses from.
    assert "PIP_EXTRA_INDEX_URL" not in str(COMPOSE["services"]["gpu"])


def test_the_slim_image_has_no_torch() -> None:
    stage = DOCKERFILE.partition(" AS build-slim\n")[2].partition("\nFROM ")[0]
    assert "pip install '.[onnx,grpc,hub,otel]'" in stage
    assert "build-slim /opt/venv" in DOCKERFILE.partition(" AS slim\n")[2].partition("\nFROM ")[0]


def test_the_manifest_names_real_settings_and_open_probes() -> None:
    assert {one["name"] for one in CONTAINER["env"]} <= VARIABLES
    probes = [CONTAINER[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")]
    assert {probe["httpGet"]["path"] for probe in probes} <= OPEN_PATHS
    paths = create_app(Settings(log_level="error"), FakeRepository()).openapi()["paths"]
    assert {probe["httpGet"]["path"] for probe in probes} <= set(paths)


def grace_and_pause(container: dict[str, Any]) -> tuple[float, float]:
    """What a container takes to end at most: the drain, and the pause before it."""
    variables = {one["name"]: one["value"] for one in container["env"]}
    (pause,) = re.findall(
        r"sleep\((\d+)\)", container["lifecycle"]["preStop"]["exec"]["command"][2]
    )
    return float(variables["PUSHFORWARD_SHUTDOWN_GRACE_SECONDS"]), float(pause)


def test_the_pod_is_given_time_to_drain_and_no_rights() -> None:
    assert POD["terminationGracePeriodSeconds"] > sum(grace_and_pause(CONTAINER))
    assert POD["enableServiceLinks"] is False
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"] is True
    assert set(CONTAINER["resources"]) == {"requests", "limits"}


def test_selectors_find_the_pods() -> None:
    labels = OBJECTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert OBJECTS["Service"]["spec"]["selector"] == labels
    assert OBJECTS["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert OBJECTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
