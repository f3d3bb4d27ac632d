"""The Helm chart: values, schema, and what its examples are rendered to.

Renderings lie in tests/fixtures/helm, each with the digest of the chart that it is of, so that they
are checked where there is no helm. Where there is one it must give the same.
"""

import copy
import json
import re
import shutil
from collections.abc import Callable
from typing import Any

import jsonschema_rs
import pytest
import yaml

from service.settings import read
from tests.test_deploy import CONTAINER, POD, VARIABLES
from tests.test_deploy_clusters import HPA, KEDA, check
from tools import chart

HELM = shutil.which("helm")
needs_helm = pytest.mark.skipif(HELM is None, reason="no helm here: its renderings are checked")
SCHEMA = json.loads(chart.SCHEMA.read_text("utf-8"))
VALUES = yaml.safe_load((chart.CHART / "values.yaml").read_text("utf-8"))
ALERTS = yaml.safe_load(chart.ALERTS.read_text("utf-8"))["groups"]
EXAMPLES = list(chart.examples())
Manifest = dict[str, Any]


def _objects(name: str) -> list[Manifest]:
    text = chart.rendered_file(name).read_text("utf-8")
    return list(yaml.safe_load_all(text))


RENDERED = {name: _objects(name) for name in EXAMPLES}


def _object(example: str, kind: str) -> Manifest:
    (found,) = (one for one in RENDERED[example] if one["kind"] == kind)
    return found


def _container(example: str) -> Manifest:
    (container,) = _object(example, "Deployment")["spec"]["template"]["spec"]["containers"]
    return container  # type: ignore[no-any-return]


def _variables(example: str) -> dict[str, str]:
    return {one["name"]: one["value"] for one in _container(example)["env"]}


def test_the_chart_has_the_alerts_of_prometheus() -> None:
    copied = (chart.CHART / "files" / "alerts.yml").read_text("utf-8")
    assert copied == chart.ALERTS.read_text("utf-8"), "run python -m tools.chart"


def test_the_chart_knows_every_setting() -> None:
    assert SCHEMA["properties"]["settings"] == chart.settings_schema(), "run python -m tools.chart"


def test_renderings_are_of_this_chart() -> None:
    for name in EXAMPLES:
        text = chart.rendered_file(name).read_text("utf-8")
        assert text.startswith(chart.digest_line()), "run python -m tools.chart, where helm is"


def _names(values: Manifest, schema: Manifest, at: str = "") -> list[str]:
    """Names that values and schema do not share."""
    known = schema.get("properties", {})
    if not known or schema.get("additionalProperties") is not False or at == ".settings":
        return []
    found = [f"{at}.{name}" for name in values.keys() ^ known.keys()]
    for name in values.keys() & known.keys():
        if isinstance(values[name], dict):
            found += _names(values[name], known[name], f"{at}.{name}")
    return found


def test_the_schema_has_the_values_and_no_others() -> None:
    kubernetes_own = {
        ".global",
        ".resources.claims",
        ".probes.startup.initialDelaySeconds",
        ".probes.startup.successThreshold",
        ".probes.startup.timeoutSeconds",
        ".probes.readiness.initialDelaySeconds",
        ".probes.readiness.successThreshold",
        ".probes.readiness.timeoutSeconds",
        ".probes.liveness.initialDelaySeconds",
        ".probes.liveness.successThreshold",
    }
    assert set(_names(VALUES, SCHEMA)) == kubernetes_own


def _leaves(values: Manifest, at: str = "") -> list[str]:
    """Values as the table names them: those of Kubernetes' own kinds as a whole."""
    whole = {"settings", "resources", "strategy", "podSecurityContext", "securityContext"}
    whole |= {f"probes.{kind}" for kind in VALUES["probes"]}
    found = []
    for name, value in values.items():
        path = f"{at}{name}"
        if isinstance(value, dict) and value and path not in whole:
            found += _leaves(value, f"{path}.")
        else:
            found.append(path)
    return found


def test_the_table_has_every_value() -> None:
    readme = (chart.CHART / "README.md").read_text("utf-8")
    heads = re.findall(r"^\| (`[a-z][a-zA-Z.]+`(?:, `[\w.]+`)*) \| ", readme, re.M)
    listed = [name for head in heads for name in re.findall(r"`([\w.]+)`", head)]
    assert sorted(listed) == sorted(_leaves(VALUES))


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda one: one["settings"].update(max_batch_sise=1), "max_batch_sise"),
        (lambda one: one["settings"].update(max_batch_size="many"), "many"),
        (lambda one: one["settings"].update(port=9000), "port"),
        (lambda one: one["settings"].update(engine="tpu"), "tpu"),
        (lambda one: one["autoscaling"].update(kind="vpa"), "vpa"),
        (lambda one: one["keys"].update(values=["short"]), "short"),
        (lambda one: one["models"].update(uris=["bucket/models"]), "bucket/models"),
        (lambda one: one["gpu"].update(count="1"), '"1"'),
        (lambda one: one.update(replicaCount=3), "replicaCount"),
        (
            lambda one: one["prometheusRule"]["overrides"].update(PushforwardSlow={"fro": "1m"}),
            "fro",
        ),
    ],
)
def test_wrong_values_are_refused_by_name(spoil: Callable[[Manifest], object], named: str) -> None:
    validator = jsonschema_rs.validator_for(SCHEMA)
    validator.validate(VALUES)
    spoilt = copy.deepcopy(VALUES)
    spoil(spoilt)
    with pytest.raises(jsonschema_rs.ValidationError, match=re.escape(named)):
        validator.validate(spoilt)


@pytest.mark.parametrize("name", EXAMPLES)
def test_kubernetes_takes_what_is_rendered(name: str) -> None:
    for one in RENDERED[name]:
        full = copy.deepcopy(one)
        if one["kind"] == "PrometheusRule":
            full["spec"]["groups"] = ALERTS
        full["metadata"].pop("annotations", None)
        check(full)
        assert full["metadata"]["name"].startswith("flows-pushforward")


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_service_reads_what_it_is_given(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    container, variables = _container(name), _variables(name)
    assert set(variables) <= VARIABLES
    for variable, text in variables.items():
        if variable != "PUSHFORWARD_API_KEY_FILE":
            monkeypatch.setenv(variable, text)
    serve, *rest = container["args"]
    flags = dict(word.removeprefix("--").split("=", 1) for word in rest if word.startswith("--"))
    settings = read({name.replace("-", "_"): text for name, text in flags.items()})
    assert serve == "serve"
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert (settings.host, settings.port) == ("0.0.0.0", ports.pop("http"))
    assert [getattr(settings, f"{kind}_port") for kind in ports] == list(ports.values())


def test_numbers_and_lists_are_written_as_the_service_reads_them() -> None:
    variables = _variables("keys")
    assert variables["PUSHFORWARD_MAX_BODY_BYTES"] == "134217728"
    assert variables["PUSHFORWARD_MAX_QUEUE_SECONDS"] == "0.25"
    assert variables["PUSHFORWARD_CORS_ORIGINS"].split(",")[1] == "https://example.org"


@pytest.mark.parametrize("name", EXAMPLES)
def test_pods_are_those_of_the_manifest(name: str) -> None:
    pod = _object(name, "Deployment")["spec"]["template"]["spec"]
    container = _container(name)
    same = ["readinessProbe", "livenessProbe", "lifecycle", "securityContext"]
    assert {key: container[key] for key in same} == {key: CONTAINER[key] for key in same}
    assert container["startupProbe"]["httpGet"] == CONTAINER["startupProbe"]["httpGet"]
    assert POD["securityContext"].items() <= pod["securityContext"].items()
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    grace = float(_variables(name)["PUSHFORWARD_SHUTDOWN_GRACE_SECONDS"])
    assert pod["terminationGracePeriodSeconds"] == grace + 5 + 10
    mounted = {one["name"] for one in container["volumeMounts"]}
    assert mounted == {one["name"] for one in pod["volumes"]}


@pytest.mark.parametrize("name", EXAMPLES)
def test_selectors_and_secrets_lead_somewhere(name: str) -> None:
    pod = _object(name, "Deployment")["spec"]["template"]
    selector = _object(name, "Service")["spec"]["selector"]
    assert selector.items() <= pod["metadata"]["labels"].items()
    asked = {
        _object(name, "Pod")["spec"]["containers"][0]["env"][1]["valueFrom"]["secretKeyRef"]["key"]
    }
    asked.add(_variables(name)["PUSHFORWARD_API_KEY_FILE"].rpartition("/")[2])
    kinds = {one["kind"]: one for one in RENDERED[name]}
    if "ServiceMonitor" in kinds:
        monitor = kinds["ServiceMonitor"]["spec"]
        assert monitor["selector"]["matchLabels"] == selector
        asked.add(monitor["endpoints"][0]["authorization"]["credentials"]["key"])
    if "Secret" in kinds:
        assert asked == set(kinds["Secret"]["data"])
    for kind in ("PodDisruptionBudget", "Deployment"):
        assert kinds[kind]["spec"]["selector"]["matchLabels"] == selector


def test_scalers_are_those_of_the_manifests() -> None:
    hpa, keda = _object("keys", "HorizontalPodAutoscaler")["spec"], _object("keda", "ScaledObject")
    for one, theirs in ((hpa, HPA["spec"]), (keda["spec"], KEDA["spec"])):
        assert one["scaleTargetRef"]["name"] == "flows-pushforward"
        assert one.keys() == theirs.keys()
    assert hpa["metrics"] == HPA["spec"]["metrics"]
    queries = [one["metadata"].get("query") for one in keda["spec"]["triggers"]]
    mine = [one["metadata"].get("query") for one in KEDA["spec"]["triggers"]]
    renamed = [
        query and query.replace("production", "default").replace("flows-pushforward", "pushforward")
        for query in queries
    ]
    assert renamed == mine
    for example in ("keys", "keda"):
        assert "replicas" not in _object(example, "Deployment")["spec"]


def test_models_come_from_where_the_values_say() -> None:
    mounts = {name: _container(name)["volumeMounts"] for name in EXAMPLES}
    assert "/models" in _container("default")["args"]
    (claim,) = (one for one in mounts["gpu"] if one["mountPath"] == "/models")
    assert (claim["subPath"], claim["readOnly"]) == ("flows", True)
    assert [one for one in _container("uris")["args"] if "/" in one] == [
        "s3://models/flows",
        "hf://example/moons@main",
    ]
    (cache,) = (one for one in mounts["uris"] if one["name"] == "cache")
    assert cache["mountPath"] == _variables("uris")["PUSHFORWARD_CACHE"]


def test_a_gpu_is_asked_for_and_its_nodes_are_tolerated() -> None:
    container = _container("gpu")
    pod = _object("gpu", "Deployment")["spec"]["template"]["spec"]
    assert container["image"].endswith(":gpu")
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert [one["key"] for one in pod["tolerations"]] == ["nvidia.com/gpu"]
    assert "nvidia.com/gpu" not in _container("default")["resources"]["limits"]


def test_the_gateway_leads_to_releases_of_the_chart() -> None:
    ports = {one["name"]: one["port"] for one in _object("uris", "Service")["spec"]["ports"]}
    text = (chart.ROOT / "deploy" / "proxy" / "gateway.yaml").read_text("utf-8")
    gateway, *routes = yaml.safe_load_all(text)
    check({**gateway, "metadata": {"name": "flows"}})
    listeners = {one["name"]: one["hostname"] for one in gateway["spec"]["listeners"]}
    for route, port in zip(routes, ("http", "grpc"), strict=True):
        check(route)
        (parent,) = route["spec"]["parentRefs"]
        assert route["spec"]["hostnames"] == [listeners[parent["sectionName"]]]
        backends = [one for rule in route["spec"]["rules"] for one in rule["backendRefs"]]
        assert {one["port"] for one in backends} == {ports[port]}
        assert {one["name"] for one in backends} == {"flows-pushforward", "candidate-pushforward"}


@needs_helm
@pytest.mark.parametrize("name", EXAMPLES)
def test_helm_renders_the_same(name: str) -> None:
    rendered = chart.render(str(HELM), *chart.examples()[name])
    assert chart.without_alerts(rendered) == RENDERED[name]
