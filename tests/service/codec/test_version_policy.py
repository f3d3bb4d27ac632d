"""What a load may say of versions, in Triton's words and in ours."""

import json
from typing import Any

import pytest

from service.codec.version_policy import read_version_policy
from service.contracts import VersionPolicy
from service.errors import InvalidParameter


def config(policy: Any, name: str = "version_policy") -> dict[str, Any]:
    return {"config": json.dumps({name: policy})}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, None),
        ({"unload_dependents": True}, None),
        ({"default_version": 3}, VersionPolicy(None, 3)),
        (config({"latest": {}}), VersionPolicy("latest")),
        (config({"latest": {"num_versions": 1}}), VersionPolicy("latest")),
        (config({"all": {}}), VersionPolicy("all")),
        (config({"specific": {"versions": [3, 1]}}), VersionPolicy((3, 1))),
        (config({"specific": {"versions": ["3"]}}, "versionPolicy"), VersionPolicy((3,))),
        ({**config({"all": {}}), "default_version": 0}, VersionPolicy("all", 0)),
    ],
)
def test_it_is_read(parameters: dict[str, Any], expected: VersionPolicy | None) -> None:
    assert read_version_policy(parameters) == expected


@pytest.mark.parametrize(
    ("parameters", "at"),
    [
        ({"default_version": "3"}, "default_version"),
        ({"default_version": -1}, "default_version"),
        ({"default_version": True}, "default_version"),
        ({"default_version": 10**9}, "default_version"),
        ({"config": "{"}, "config"),
        ({"config": 3}, "config"),
        ({"config": "[]"}, "config"),
        ({"config": "{}"}, "config"),
        ({"config": json.dumps({"max_batch_size": 8})}, "config"),
        ({"config": json.dumps({"version_policy": {"all": {}}, "backend": "x"})}, "config"),
        (config({"latest": {"num_versions": 2}}), "config"),
        (config({"newest": {}}), "config"),
        (config({"all": {"a": 1}}), "config"),
        (config({"all": {}, "latest": {}}), "config"),
        (config({"specific": {}}), "config"),
        (config({"specific": {"versions": []}}), "config"),
        (config({"specific": {"versions": 3}}), "config"),
        (config({"specific": {"versions": [1.5]}}), "config"),
        (config({"specific": {"versions": ["-1"]}}), "config"),
        (config("all"), "config"),
    ],
)
def test_what_is_no_policy_is_refused(parameters: dict[str, Any], at: str) -> None:
    with pytest.raises(InvalidParameter) as raised:
        read_version_policy(parameters)
    assert raised.value.detail.startswith(f"{at}: ")
    assert len(raised.value.detail) < 250
