"""What /openapi.json promises is what the operations do."""

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from fastapi import FastAPI

from service import operations
from service.api import schemas
from service.api.openapi_v2 import INFER_PATHS
from service.settings import Settings
from tests.service.fake_repository import FakeRepository, app_over, ask, card, post

KEY = "0123456789abcdef"
OPERATIONS = tuple(kind.name for kind in operations.OPERATIONS)
STATUSES = {"200", "400", "401", "404", "406", "408", "413", "415", "422", "429"}
STATUSES |= {"500", "503", "504"}


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return app_over(FakeRepository())


@pytest.fixture(scope="module")
def document(app: FastAPI) -> dict[str, Any]:
    answer = ask(app, "GET", "/openapi.json")
    assert answer.status_code == 200
    result: dict[str, Any] = answer.json()
    return result


def test_every_path_is_documented(document: dict[str, Any]) -> None:
    assert set(document["paths"]) >= {f"/{name}" for name in OPERATIONS} | {
        "/models",
        "/models/{name}",
        "/health",
        "/health/live",
        "/health/ready",
        "/metrics",
    }


def test_every_reference_has_its_schema(document: dict[str, Any]) -> None:
    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if "$ref" in node else set()
            return own.union(*map(references, node.values()))
        if isinstance(node, list):
            return set().union(*map(references, node))
        return set()

    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= known


def test_the_seed_of_an_answer_is_one_that_a_request_may_name(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    asked, given = (
        schemas[f"Sample{kind}"]["properties"]["seed"] for kind in ("Request", "Result")
    )
    bounds = ("minimum", "maximum")
    assert [given[name] for name in bounds] == [asked["anyOf"][0][name] for name in bounds]


def test_operation_ids_are_distinct(document: dict[str, Any]) -> None:
    ids = [call["operationId"] for path in document["paths"].values() for call in path.values()]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_document_media_types_fields_and_errors(
    document: dict[str, Any], name: str
) -> None:
    call = document["paths"][f"/{name}"]["post"]
    kind = next(kind for kind in operations.OPERATIONS if kind.name == name)
    has_tensor, names = kind.tensor is not None, [field.name for field in kind.fields]
    bodies = {"application/json"}
    bodies |= {"application/x-npy"} if has_tensor else set()
    bodies |= {"application/x-npz"} if has_tensor or "context" in names else set()
    bodies |= {"image/png", "image/jpeg"} if "image/png" in kind.bodies else set()
    assert set(call["requestBody"]["content"]) == bodies
    answers = {"application/json", "application/x-npy", "application/x-npz"}
    answers |= {"image/png"} if kind.gives_images else set()
    assert set(call["responses"]["200"]["content"]) == answers
    assert set(call["responses"]) == STATUSES
    for status in STATUSES - {"200"}:
        (problem,) = call["responses"][status]["content"].values()
        assert problem["example"]["status"] == int(status)
        schemas.Problem.model_validate(problem["example"])
    for content in (
        *call["requestBody"]["content"].values(),
        *call["responses"]["200"]["content"].values(),
    ):
        assert content["examples"]
    assert {"Retry-After"} == set(call["responses"]["429"]["headers"])


@pytest.mark.parametrize("path", [*(f"/{name}" for name in OPERATIONS), *INFER_PATHS])
def test_what_every_call_takes_and_answers_is_described(
    document: dict[str, Any], path: str
) -> None:
    call = document["paths"][path]["post"]
    assert {"X-Request-Id", "X-Timeout-Seconds"} <= {one["name"] for one in call["parameters"]}
    assert "Content-Encoding says: gzip, zstd, deflate" in call["requestBody"]["description"]
    told = {status: call["responses"][status]["description"] for status in ("413", "429", "503")}
    assert told == {
        "413": "too_large or too_large_for_key",
        "429": "overloaded or key_limit_exceeded",
        "503": "not_ready or too_many_connections",
    }


def test_every_answer_has_its_media_type(document: dict[str, Any]) -> None:
    for path, calls in document["paths"].items():
        for call in calls.values():
            assert call["responses"]["200"].get("content"), path
    metrics = document["paths"]["/metrics"]["get"]["responses"]["200"]
    assert set(metrics["content"]) == {"text/plain"}


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_examples_work_as_they_stand(app: FastAPI, document: dict[str, Any], name: str) -> None:
    call = document["paths"][f"/{name}"]["post"]
    content = call["requestBody"]["content"]["application/json"]
    kind = next(kind for kind in operations.OPERATIONS if kind.name == name)
    has_names = kind.tensor is not None and kind.tensor.name == "x"
    assert list(content["examples"]) == ["rows", "rows_by_name"][: 1 + has_names]
    schema = call["responses"]["200"]["content"]["application/json"]["schema"]
    for example in reversed(content["examples"].values()):
        jsonschema_rs.validate({**document, **content["schema"]}, example["value"])
        answer = post(app, f"/{name}", json=example["value"])
        assert answer.status_code == 200, answer.text
        jsonschema_rs.validate({**document, **schema}, answer.json())
    (shown,) = call["responses"]["200"]["content"]["application/json"]["examples"].values()
    jsonschema_rs.validate({**document, **schema}, shown["value"])
    assert shown["value"].keys() == answer.json().keys()


def test_the_document_follows_what_is_served() -> None:
    document = ask(app_over(FakeRepository((card("rings", (2,)),))), "GET", "/openapi.json").json()
    body = document["paths"]["/encode"]["post"]["requestBody"]["content"]["application/json"]
    assert body["examples"]["rows"]["value"] == {"model": "rings", "x": [[0.5, 0.5]]}
    assert "rows_by_name" not in body["examples"]
    named = card("rings", (2,), feature_names=("a", "b"))
    document = ask(app_over(FakeRepository((named,))), "GET", "/openapi.json").json()
    body = document["paths"]["/encode"]["post"]["requestBody"]["content"]["application/json"]
    by_name = {"model": "rings", "x": [{"a": 0.5, "b": 0.5}]}
    assert body["examples"]["rows_by_name"]["value"] == by_name


def test_the_document_is_written_anew_when_the_models_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository = FakeRepository(())
    app = app_over(repository)
    before = ask(app, "GET", "/openapi.json").json()
    assert ask(app, "GET", "/openapi.json").json() == before
    monkeypatch.setattr(repository, "models", FakeRepository((card("rings", (2,)),)).models)
    after = ask(app, "GET", "/openapi.json").json()
    assert after["paths"].keys() == before["paths"].keys()
    assert "rings" in str(after)
    assert "rings" not in str(before)


def test_ordinary_routes_document_problems_not_the_frameworks_errors(
    document: dict[str, Any],
) -> None:
    responses = document["paths"]["/models/{name}"]["get"]["responses"]
    assert set(responses) == {"200", "default"}
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_docs_are_served(app: FastAPI) -> None:
    assert ask(app, "GET", "/docs").status_code == 200


def test_num_samples_states_the_limit_of_the_server(document: dict[str, Any]) -> None:
    properties = document["components"]["schemas"]["SampleRequest"]["properties"]
    asked, _ = properties["num_samples"]["anyOf"]
    assert asked["maximum"] == Settings().max_request_rows
    call = document["paths"]["/sample"]["post"]
    (given,) = (one for one in call["parameters"] if one["name"] == "num_samples")
    assert given["schema"]["anyOf"][0]["maximum"] == asked["maximum"]


def _defaults(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema with a default; a member of an object that is called so is a schema itself."""
    if isinstance(node, dict):
        kinds = ("anyOf", "type", "$ref")
        if "default" in node and any(kind in node for kind in kinds):
            yield path, node
        for name, inner in node.items():
            yield from _defaults(inner, f"{path}/{name}")
    elif isinstance(node, list):
        for index, inner in enumerate(node):
            yield from _defaults(inner, f"{path}/{index}")


@pytest.mark.parametrize(
    "settings", [{}, {"api_keys": KEY}, {"enable_model_control": True}], ids=str
)
def test_every_default_is_one_that_its_schema_allows(settings: dict[str, Any]) -> None:
    document = app_over(FakeRepository(), **settings).openapi()
    found = dict(_defaults(document))
    assert len(found) > 20
    wrong = {
        path: schema["default"]
        for path, schema in found.items()
        if not jsonschema_rs.is_valid({**document, **schema}, schema["default"])
    }
    assert wrong == {}


def test_a_parameter_in_the_query_has_no_default_that_a_form_would_send(
    document: dict[str, Any],
) -> None:
    """Swagger UI fills defaults in, and a field may not stand in the query and the body."""
    for name in OPERATIONS:
        for parameter in document["paths"][f"/{name}"]["post"]["parameters"]:
            assert "default" not in parameter["schema"], parameter
