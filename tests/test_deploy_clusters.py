"""What scales the service on several machines: fields, names and numbers that fit each other."""

import copy
import re
from collections.abc import Callable
from typing import Any

import jsonschema_rs
import kubernetes_validate
import pytest
import yaml

from service.auth import OPEN_PATHS
from service.settings import read
from service.telemetry import Metrics
from tests import custom_resources as custom
from tests.test_deploy import CONTAINER, OBJECTS, ROOT, VARIABLES, grace_and_pause

DEPLOY = ROOT / "deploy"
KUBERNETES = str(kubernetes_validate.latest_version())
SCHEMAS = {
    "ClusterServingRuntime": custom.CLUSTER_SERVING_RUNTIME,
    "GRPCRoute": custom.GRPC_ROUTE,
    "Gateway": custom.GATEWAY,
    "HTTPRoute": custom.HTTP_ROUTE,
    "InferenceService": custom.INFERENCE_SERVICE,
    "PrometheusRule": custom.PROMETHEUS_RULE,
    "ScaledObject": custom.SCALED_OBJECT,
    "ServiceMonitor": custom.SERVICE_MONITOR,
}

# Of these some fields are Kubernetes' own.
WITH_KUBERNETES_PARTS = {"ClusterServingRuntime", "InferenceService", "ScaledObject"}


def _load(name: str) -> dict[str, Any]:
    (loaded,) = yaml.safe_load_all((DEPLOY / name).read_text("utf-8"))
    return loaded  # type: ignore[no-any-return]


HPA, KEDA = _load("autoscaling/hpa.yaml"), _load("autoscaling/keda.yaml")
RUNTIME, INFERENCE = _load("kserve/runtime.yaml"), _load("kserve/inferenceservice.yaml")
KSERVE_KEDA = _load("kserve/scaledobject.yaml")
PREDICTOR = INFERENCE["spec"]["predictor"]
(SERVER,) = RUNTIME["spec"]["containers"]
SCRAPED = yaml.safe_load((DEPLOY / "monitoring/kubernetes.yml").read_text("utf-8"))
CUSTOM = {
    "keda": KEDA,
    "runtime": RUNTIME,
    "inferenceservice": INFERENCE,
    "kserve keda": KSERVE_KEDA,
}


def check(manifest: dict[str, Any]) -> None:
    """Refuse fields that are not there, whoever they belong to."""
    schema = SCHEMAS.get(manifest["kind"])
    if schema is None:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        return
    jsonschema_rs.validator_for(schema).validate(manifest)
    if manifest["kind"] not in WITH_KUBERNETES_PARTS:
        return
    for part in _kubernetes_parts(manifest):
        kubernetes_validate.validate(part, KUBERNETES, strict=True)
    for trigger in manifest["spec"].get("triggers", ()):
        known = custom.TRIGGER_METADATA[trigger["type"]]
        jsonschema_rs.validator_for(known).validate(trigger["metadata"])
    for name, value in manifest["metadata"].get("annotations", {}).items():
        assert value in custom.KSERVE_ANNOTATIONS[name]


def _kubernetes_parts(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """What a custom resource takes over from Kubernetes' own, as one of those."""
    spec = manifest["spec"]
    if manifest["kind"] == "ClusterServingRuntime":
        return [_pod(_some(spec, custom.RUNTIME_POD_FIELDS))]
    if manifest["kind"] == "InferenceService":
        predictor = spec["predictor"]
        container = _some(predictor["model"], custom.MODEL_CONTAINER_FIELDS)
        pod = _some(predictor, custom.PREDICTOR_POD_FIELDS)
        return [
            _pod({"containers": [{"name": "kserve-container", **container}], **pod}),
            _deployment(predictor.get("deploymentStrategy", {})),
        ]
    scaler = copy.deepcopy(HPA)
    scaler["spec"]["behavior"] = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    return [scaler]


def _some(given: dict[str, Any], names: str) -> dict[str, Any]:
    return {name: given[name] for name in names.split() if name in given}


def _pod(spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}


def _deployment(strategy: dict[str, Any]) -> dict[str, Any]:
    deployment = copy.deepcopy(OBJECTS["Deployment"])
    deployment["spec"]["strategy"] = strategy
    return deployment


@pytest.mark.parametrize("manifest", [*OBJECTS.values(), HPA], ids=lambda one: one["kind"])
def test_kubernetes_takes_the_manifests(manifest: dict[str, Any]) -> None:
    check(manifest)


@pytest.mark.parametrize("name", CUSTOM)
def test_kserve_and_keda_take_theirs(name: str) -> None:
    check(CUSTOM[name])


Break = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("keda", lambda one: one["spec"].update(maxReplicas=3)),
        ("keda", lambda one: one["spec"].update(minReplicaCount="2")),
        ("keda", lambda one: one["spec"]["triggers"][0]["metadata"].update(treshold="1")),
        ("keda", lambda one: one["spec"]["triggers"][0]["metadata"].update(threshold=256)),
        ("keda", lambda one: one["spec"]["fallback"].pop("replicas")),
        ("keda", lambda one: one["spec"]["advanced"].update(hpaConfig={})),
        (
            "kserve keda",
            lambda one: one["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"][
                "scaleDown"
            ].update(stabilisationWindowSeconds=1),
        ),
        ("runtime", lambda one: one["spec"].update(protocolVersion="v2")),
        ("runtime", lambda one: one["spec"]["containers"][0].update(livelinessProbe={})),
        ("runtime", lambda one: one["spec"]["supportedModelFormats"][0].update(autoselect=True)),
        ("runtime", lambda one: one["spec"]["volumes"][0].update(emptydir={})),
        ("inferenceservice", lambda one: one["spec"]["predictor"].update(minReplica=2)),
        ("inferenceservice", lambda one: one["spec"]["predictor"]["model"].update(storageURI="")),
        ("inferenceservice", lambda one: one["spec"]["predictor"].update(enableServiceLinks="no")),
        (
            "inferenceservice",
            lambda one: one["metadata"]["annotations"].update(
                {"serving.kserve.io/deploymentMode": "Raw"}
            ),
        ),
    ],
)
def test_a_field_that_is_not_there_is_seen(name: str, spoil: Break) -> None:
    spoilt = copy.deepcopy(CUSTOM[name])
    spoil(spoilt)
    with pytest.raises(
        (jsonschema_rs.ValidationError, kubernetes_validate.ValidationError, AssertionError)
    ):
        check(spoilt)


def test_what_is_scaled_is_there() -> None:
    deployment = OBJECTS["Deployment"]
    target = HPA["spec"]["scaleTargetRef"]
    assert (target["apiVersion"], target["kind"]) == ("apps/v1", "Deployment")
    assert target["name"] == deployment["metadata"]["name"]
    assert KEDA["spec"]["scaleTargetRef"] == {"name": deployment["metadata"]["name"]}
    # KServe 0.20.0, PredictorServiceName (pkg/constants/constants.go), of Deployments too.
    predictor = INFERENCE["metadata"]["name"] + "-predictor"
    assert KSERVE_KEDA["spec"]["scaleTargetRef"] == {"name": predictor}


def test_processors_are_asked_for_where_they_are_what_scales() -> None:
    for container in (CONTAINER, SERVER):
        wanted = {
            kind: float(container["resources"][kind]["cpu"]) for kind in ("requests", "limits")
        }
        (metric,) = HPA["spec"]["metrics"]
        percent = metric["resource"]["target"]["averageUtilization"]
        assert 0.5 < percent / 100 * wanted["requests"] / wanted["limits"] < 0.9
        for scaler in (KEDA, KSERVE_KEDA):
            (trigger,) = (one for one in scaler["spec"]["triggers"] if one["type"] == "cpu")
            assert trigger["metricType"] == "Utilization"
            assert int(trigger["metadata"]["value"]) == percent


@pytest.mark.parametrize(
    ("scaler", "pods"),
    [(KEDA, "pushforward-7c9f5d-x2x4z"), (KSERVE_KEDA, "flights-predictor-7c9f5d-x2x4z")],
    ids=["deployment", "kserve"],
)
def test_queries_ask_for_series_and_labels_that_exist(scaler: dict[str, Any], pods: str) -> None:
    metrics = Metrics()
    metrics.queue_rows.labels("flights", "1", "encode")
    metrics.dropped.labels("flights", "1", "overloaded").inc()
    known = {
        sample.name: set(sample.labels)
        for family in metrics.registry.collect()
        for sample in family.samples
    }
    (job,) = SCRAPED["scrape_configs"]
    added = {rule.get("target_label") for rule in job["relabel_configs"]}
    queries = [trigger["metadata"].get("query") for trigger in scaler["spec"]["triggers"]]
    asked = set()
    for query in filter(None, queries):
        shape = r"sum\((?:avg_over_time|rate)\((\w+)\{(.+)\}\[\d+m\]\)\)"
        matched = re.fullmatch(shape, query)
        assert matched is not None
        series, matchers = matched[1], dict(re.findall(r'(\w+)=~?"([^"]+)"', matched[2]))
        assert matchers.keys() <= known[series] | added
        assert re.fullmatch(matchers["pod"], pods)
        assert not re.fullmatch(matchers["pod"], pods.replace("-7", "-other-7"))
        assert matchers.get("reason", "overloaded") == "overloaded"
        asked.add(series)
    assert asked == {"pushforward_queue_rows", "pushforward_dropped_total"}


def test_prometheus_finds_the_pods_of_both() -> None:
    (job,) = SCRAPED["scrape_configs"]
    kept = {
        rule["source_labels"][0]: rule["regex"]
        for rule in job["relabel_configs"]
        if rule.get("action") == "keep"
    }
    label = kept["__meta_kubernetes_pod_label_app_kubernetes_io_name"]
    pod = OBJECTS["Deployment"]["spec"]["template"]
    assert pod["metadata"]["labels"]["app.kubernetes.io/name"] == label
    assert RUNTIME["spec"]["labels"]["app.kubernetes.io/name"] == label
    for container in (CONTAINER, SERVER):
        (port,) = container["ports"]
        assert port["name"] == kept["__meta_kubernetes_pod_container_port_name"]
    (mount,) = (one for one in CONTAINER["volumeMounts"] if one["name"] == "keys")
    assert job["authorization"]["credentials_file"].startswith(mount["mountPath"])


def test_the_runtime_serves_what_kserve_mounts() -> None:
    assert {one["name"] for one in SERVER["env"]} <= VARIABLES
    command, folder, *flags = SERVER["args"]
    # KServe 0.20.0: DefaultModelLocalMountPath (pkg/constants/constants.go).
    assert (command, folder) == ("serve", "/mnt/models")
    given = dict(flag.removeprefix("--").split("=", 1) for flag in flags)
    settings = read({name.replace("-", "_"): text for name, text in given.items()})
    # ReplacePlaceholders (pkg/controller/v1beta1/inferenceservice/utils/utils.go).
    assert settings.model_name == "{{.Name}}"
    (port,) = SERVER["ports"]
    assert settings.port == port["containerPort"]
    for kind in ("startup", "readiness", "liveness"):
        probe = SERVER[f"{kind}Probe"]["httpGet"]
        assert probe["path"] in OPEN_PATHS
        assert probe["port"] == settings.port


def test_the_runtime_is_chosen_for_the_service() -> None:
    (known,) = RUNTIME["spec"]["supportedModelFormats"]
    assert known["autoSelect"] is True
    assert PREDICTOR["model"]["modelFormat"]["name"] == known["name"]
    assert PREDICTOR["model"]["protocolVersion"] in RUNTIME["spec"]["protocolVersions"]
    # Two autoscalers of one Deployment would each undo what the other does.
    assert INFERENCE["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "external"


def test_pods_of_the_runtime_are_given_time_to_drain() -> None:
    grace, pause = grace_and_pause(SERVER)
    by_kubernetes_itself = 30
    assert grace + pause < by_kubernetes_itself
    assert grace + pause < PREDICTOR["terminationGracePeriodSeconds"]
