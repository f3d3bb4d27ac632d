"""The Helm chart by its values: what they make of it, and which of them contradict each other."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import Any

import pytest
import yaml

from service.keys import read_key_file
from tests.test_deploy import PROMTOOL
from tools import chart

HELM = shutil.which("helm")
ALERTS = yaml.safe_load(chart.ALERTS.read_text("utf-8"))["groups"]
NAME, NAMESPACE = "flows-pushforward", chart.RELEASE[1]
KEYS = [f"key-number-{number}-0123456" for number in range(3)]
DIGEST = sha256(KEYS[0].encode()).hexdigest()
Manifest = dict[str, Any]

pytestmark = pytest.mark.skipif(HELM is None, reason="no helm here: its renderings are checked")


class _Loader(yaml.SafeLoader):
    """Refuses a name that stands twice, as API servers do."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Manifest:
        names = [key.value for key, _ in node.value]
        assert len(set(names)) == len(names), names
        return super().construct_mapping(node, deep)


def _render(*values: str, cluster: str | None = None) -> dict[str, Manifest]:
    """Objects by kind.

    Args:
        values: as --set-json has them.
        cluster: URL of the API server that `lookup` asks.
    """
    words = [word for value in values for word in ("--set-json", value)]
    if cluster is not None:
        words += ["--dry-run=server", "--kube-apiserver", cluster]
    rendered = yaml.load_all(chart.render(str(HELM), *words), _Loader)
    return {one["kind"]: one for one in rendered if one is not None}


def _said(name: str, value: object) -> str:
    return f"{name}={json.dumps(value)}"


def _secret(*values: str, cluster: str | None = None) -> dict[str, str]:
    """The entries of the Secret that is made."""
    data = _render(*values, cluster=cluster)["Secret"]["data"]
    return {name: base64.b64decode(text).decode() for name, text in data.items()}


def _variables(*values: str) -> dict[str, str]:
    """What the container's environment has, each name once."""
    pod = _render(*values)["Deployment"]["spec"]["template"]["spec"]
    given = pod["containers"][0]["env"]
    variables = {one["name"]: one.get("value") for one in given}
    assert len(variables) == len(given)
    return variables


@contextmanager
def _cluster(entries: dict[str, str]) -> Iterator[str]:
    """The API server of a cluster in which the release's Secret is.   -> its URL."""
    secret = {
        **{"kind": "Secret", "apiVersion": "v1"},
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "data": {name: base64.b64encode(text.encode()).decode() for name, text in entries.items()},
    }
    secrets = {"name": "secrets", "namespaced": True, "kind": "Secret", "verbs": ["get"]}
    answers = {
        "/version": {"major": "1", "minor": "37", "gitVersion": "v1.37.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
        "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [secrets]},
        f"/api/v1/namespaces/{NAMESPACE}/secrets/{NAME}": secret,
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            body = json.dumps(answer or {"kind": "Status", "reason": "NotFound"}).encode()
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_rules_are_those_of_prometheus_but_for_what_is_overridden() -> None:
    plain = _render("prometheusRule.enabled=true")["PrometheusRule"]["spec"]["groups"]
    assert plain == ALERTS
    changed = _render(
        "prometheusRule.enabled=true",
        'prometheusRule.overrides={"PushforwardSlow": {"for": "1m"}, "PushforwardDown": false}',
    )
    rules = {one["alert"]: one for one in changed["PrometheusRule"]["spec"]["groups"][0]["rules"]}
    assert "PushforwardDown" not in rules
    assert rules["PushforwardSlow"]["for"] == "1m"
    assert "annotations" in rules["PushforwardSlow"]


def test_rules_ask_for_the_series_of_their_release(tmp_path: Path) -> None:
    mine = "up == 0"
    spec = _render(
        "prometheusRule.enabled=true",
        "serviceMonitor.enabled=true",
        _said("prometheusRule.overrides", {"PushforwardDown": {"expr": mine}}),
    )["PrometheusRule"]["spec"]
    own = {"namespace": NAMESPACE, "service": NAME}
    matchers = ", ".join(f'{name}="{value}"' for name, value in own.items())
    rules = [rule for group in spec["groups"] for rule in group["rules"]]
    plain = [rule for group in ALERTS for rule in group["rules"]]
    for rule, former in zip(rules, plain, strict=True):
        assert rule["labels"] == former["labels"] | own
        if rule["alert"] == "PushforwardDown":
            assert rule["expr"] == mine
            continue
        series = r"\b(?:pushforward_|process_|up\b)\w*"
        selectors = re.findall(rf"{series}(?:{{.*?}})?", rule["expr"])
        assert len(selectors) == len(re.findall(series, former["expr"]))
        assert all(f"{{{matchers}" in one for one in selectors)
        bare = rule["expr"].replace(f"{{{matchers}}}", "").replace(f"{matchers}, ", "")
        assert bare == former["expr"]
    if PROMTOOL is not None:
        file = tmp_path / "rules.yml"
        file.write_text(yaml.safe_dump(spec), "utf-8")
        subprocess.run([PROMTOOL, "check", "rules", file], check=True, capture_output=True)


def test_a_key_is_made_where_none_is_given() -> None:
    entries = _secret()
    assert entries["keys"] == entries["monitor"]
    assert re.fullmatch(r"\w{40}", entries["keys"])
    assert "Secret" not in _render("keys.allowUnauthenticated=true")


@pytest.mark.parametrize("entry", ["monitor", "prometheus"])
@pytest.mark.parametrize("former", ["monitor", "prometheus"])
def test_a_key_that_was_made_is_kept(former: str, entry: str) -> None:
    with _cluster({"keys": KEYS[0], former: KEYS[0]}) as cluster:
        entries = _secret(_said("keys.monitorEntry", entry), cluster=cluster)
    assert entries == {"keys": KEYS[0], entry: KEYS[0]}


def test_what_is_given_wins_over_what_was_made() -> None:
    with _cluster({"keys": KEYS[0], "monitor": KEYS[0]}) as cluster:
        entries = _secret(_said("keys.values", KEYS[1:]), cluster=cluster)
        assert entries == {"keys": "\n".join(KEYS[1:]), "monitor": KEYS[1]}
        entries = _secret(_said("keys.monitor", KEYS[2]), cluster=cluster)
        assert entries == {"keys": KEYS[2], "monitor": KEYS[2]}


@pytest.mark.parametrize(
    "values",
    [
        {"monitor": KEYS[0]},
        {"values": KEYS},
        {"values": KEYS, "monitor": KEYS[2]},
        {"values": KEYS, "file": "mine", "monitorEntry": "keys"},
        {"toml": f'[keys.a]\nkey = "{KEYS[0]}"\n', "monitor": KEYS[0]},
        {"toml": f'[keys.a]\nsha256 = "{DIGEST.upper()}"\n', "monitor": KEYS[0]},
    ],
    ids=["monitor", "values", "one_of_them", "entries", "toml", "digest"],
)
def test_the_service_knows_the_key_of_prometheus(tmp_path: Path, values: Manifest) -> None:
    path = PurePosixPath(_variables(_said("keys", values))["PUSHFORWARD_API_KEY_FILE"])
    entries = _secret(_said("keys", values))
    file = tmp_path / path.name
    file.write_text(entries.pop(file.name), "utf-8")
    (monitor,) = entries.values()
    digests = [digest.hex() for rule in read_key_file(file) for digest in rule.digests]
    assert sha256(monitor.encode()).hexdigest() in digests


def test_a_variable_of_yours_takes_the_place_of_the_chart_s() -> None:
    mine = [{"name": "PUSHFORWARD_LOG_FORMAT", "value": "text"}, {"name": "OTHER", "value": "1"}]
    variables = _variables(_said("extraEnv", mine), _said("settings", {"workers": 2}))
    assert variables["PUSHFORWARD_LOG_FORMAT"] == "text"
    assert (variables["OTHER"], variables["PUSHFORWARD_WORKERS"]) == ("1", "2")


def test_a_label_of_yours_takes_the_place_of_the_chart_s() -> None:
    mine = {"app.kubernetes.io/version": "7", "team": "flows"}
    objects = _render(
        _said("podLabels", mine),
        _said("serviceMonitor", {"enabled": True, "labels": mine}),
        _said("prometheusRule", {"enabled": True, "labels": mine}),
    )
    for one in (
        objects["Deployment"]["spec"]["template"],
        objects["ServiceMonitor"],
        objects["PrometheusRule"],
    ):
        labels = one["metadata"]["labels"]
        assert mine.items() <= labels.items()
        assert labels["app.kubernetes.io/instance"] == chart.RELEASE[0]


@pytest.mark.parametrize(
    ("bounds", "replicas"), [((2, 20), 4), ((1, 3), 3), ((6, 8), 6)], ids=["4", "most", "least"]
)
def test_pods_without_an_answer_of_prometheus_are_within_the_bounds(
    bounds: tuple[int, int], replicas: int
) -> None:
    least, most = bounds
    values = {"kind": "keda", "minReplicas": least, "maxReplicas": most}
    spec = _render(_said("autoscaling", values))["ScaledObject"]["spec"]
    assert spec["fallback"]["replicas"] == replicas


def test_a_scaler_counts_its_own_pods_alone() -> None:
    spec = _render('autoscaling.kind="keda"')["ScaledObject"]["spec"]
    (pods,) = {
        re.findall(r'pod=~"(.*?)"', one["metadata"]["query"])[0]
        for one in spec["triggers"]
        if "query" in one["metadata"]
    }
    # A name of 52 letters leaves no room for all of the hash, and none for the dash behind it.
    for pod in (f"{NAME}-7c9f5d8b64-x2x4z", f"{NAME}-7c9fx2x4z"):
        assert re.fullmatch(pods, pod)
    for pod in (f"{NAME}-other-7c9f5d8b64-x2x4z", f"{NAME}-test-0", "pushforward-7c9f5d8b64-x2x4z"):
        assert not re.fullmatch(pods, pod)


def test_what_makes_no_sum_of_what_is_given_is_taken() -> None:
    _render("grpc.port=8000")  # nobody listens there
    _render('autoscaling={"kind": "hpa"}', "resources.requests=null")  # they are the limits, then
    _render('autoscaling={"minReplicas": 30}')  # nobody scales
    _render("resources=null", "gpu.count=1")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (['keys.values=["0123456789abcdef"]', "keys.allowUnauthenticated=true"], "keys.allowUnau"),
        (['keys.existingSecret="a"', 'keys.toml="b"'], "keys.existingSecret"),
        ([_said("keys", {"existingSecret": "a", "monitor": KEYS[0]})], "keys.existingSecret"),
        (['keys.toml="[keys.a]"'], "keys.monitor: expected one key"),
        ([_said("keys", {"toml": "[keys.a]", "monitor": KEYS[0]})], "neither it nor its SHA-256"),
        ([_said("keys", {"values": KEYS[:2], "monitor": KEYS[2]})], "expected one of keys.values"),
        ([_said("keys", {"values": KEYS, "monitorEntry": "keys"})], "both are keys"),
        ([_said("keys", {"values": KEYS, "file": "monitor"})], "both are monitor"),
        ([_said("keys", {"values": KEYS, "file": "keys.toml"})], "keys.file: keys.toml"),
        (['keys.file="keys.toml"'], "keys.file: keys.toml"),
        (
            [_said("keys", {"toml": f'key = "{KEYS[0]}"', "monitor": KEYS[0], "file": "keys"})],
            "keys.file: keys",
        ),
        (['models.existingClaim="a"', 'models.image.reference="b"'], "give one of them"),
        (['models.volume={"nfs": {}}', 'models.image.reference="b"'], "give one of them"),
        (["grpc.enabled=true", "grpc.port=8000", "service.port=80"], "listen for HTTP"),
        (["grpc.enabled=true", "grpc.port=80", "service.port=80"], "80 is service.port too"),
        (["service.headless=true", 'service.type="LoadBalancer"'], "type LoadBalancer"),
        (['autoscaling={"kind": "hpa", "minReplicas": 5, "maxReplicas": 3}'], "5 is more than"),
        (['autoscaling.kind="hpa"', "resources=null"], "hpa counts percent"),
        (['autoscaling.kind="keda"', 'resources={"requests": null, "limits": null}'], "keda count"),
        (
            ['autoscaling={"kind": "keda", "maxReplicas": 2, "keda": {"fallbackReplicas": 4}}'],
            "fallbackReplicas: 4 is more",
        ),
        (['podLabels={"app.kubernetes.io/name": "mine"}'], "podLabels: app.kubernetes.io/name"),
        (['extraVolumes=[{"name": "keys", "emptyDir": {}}]'], "a volume keys already"),
        (['prometheusRule={"enabled": true, "overrides": {"Slow": false}}'], "there is no alert"),
    ],
)
def test_values_that_contradict_each_other_are_refused(values: list[str], reason: str) -> None:
    with pytest.raises(RuntimeError, match=reason):
        _render(*values)
