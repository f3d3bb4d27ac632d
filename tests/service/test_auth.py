"""Keys: who gets in, on both ways through the server, and what happens when they change."""

import os
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from service.api.health import health_router
from service.auth import OPEN_PATHS, ApiKeyAuth, check_exposure
from service.errors import Unauthorized
from service.settings import Settings, SettingsError, read
from service.telemetry import Metrics
from tests.pushforward.cli.test_main import invoke
from tests.service.fake_repository import FakeRepository, app_over, ask
from tests.service.transport.loopback import LoopbackServer, request, run
from tests.service.transport.loopback import read as read_answer

KEY = "0123456789abcdef"
OTHER = "fedcba9876543210"
GOOD = {"Authorization": f"Bearer {KEY}"}
INFER = b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [2, 4, 6]}]}'


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return app_over(FakeRepository(), api_keys=f"{OTHER},{KEY}", enable_model_control=True)


SHOWN: dict[str, tuple[dict[str, str], int]] = {
    "bearer": (GOOD, 200),
    "another_of_the_keys": ({"Authorization": f"bearer  {OTHER}"}, 200),
    "x_api_key": ({"X-API-Key": KEY}, 200),
    "none": ({}, 401),
    "empty": ({"Authorization": ""}, 401),
    "no_key": ({"Authorization": "Bearer"}, 401),
    "basic": ({"Authorization": f"Basic {KEY}"}, 401),
    "wrong": ({"Authorization": f"Bearer {KEY[:-1]}0"}, 401),
    "a_part": ({"X-API-Key": KEY[:-1]}, 401),
    "both_keys": ({"X-API-Key": f"{OTHER},{KEY}"}, 401),
    "long": ({"X-API-Key": KEY * 2000}, 401),
    "bytes": ({"X-API-Key": "\xff" * 16}, 401),
    "a_wrong_one_beside_a_good_one": ({"Authorization": "Bearer x", "X-API-Key": KEY}, 401),
}


@pytest.mark.parametrize("case", SHOWN)
@pytest.mark.parametrize(
    ("path", "body"), [("/encode", None), ("/v2/models/line/infer", INFER)], ids=["plain", "v2"]
)
def test_which_keys_are_good(app: FastAPI, case: str, path: str, body: bytes | None) -> None:
    headers, status = SHOWN[case]
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    content = body or b'{"model": "line", "x": [[2, 4, 6]]}'
    raw["Content-Type"] = b"application/json"
    answer = ask(app, "POST", path, content=content, headers=raw)
    assert answer.status_code == status
    if status == 401:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"].startswith('Bearer realm="pushforward"')
        assert answer.json()["code"] == "unauthorized"
        assert KEY[:-1] not in answer.text


@pytest.mark.parametrize("path", sorted(OPEN_PATHS))
def test_probes_need_no_key(app: FastAPI, path: str) -> None:
    assert ask(app, "GET", path).status_code == 200


CLOSED = [
    *(("GET", path) for path in ("/metrics", "/models", "/models/line", "/v2", "/redoc")),
    *(("POST", path) for path in ("/", "/docs", "/openapi.json", "/static/page.js")),
    *(("GET", path) for path in ("/v2/models/line", "/health/../metrics", "/nowhere")),
    *(("POST", path) for path in ("/sample", "/v2/repository/index", "/health/live/")),
    ("POST", "/v2/repository/models/line/unload"),
    ("OPTIONS", "/encode"),
]


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_everything_else_does(app: FastAPI, method: str, path: str) -> None:
    answer = ask(app, method, path)
    assert answer.status_code == 401
    assert answer.headers["x-request-id"] == answer.json()["request_id"]


def test_every_documented_path_wants_a_key(app: FastAPI) -> None:
    document = ask(app, "GET", "/openapi.json", headers=GOOD).json()
    assert document["security"]
    statuses = {
        (path, method): ask(app, method.upper(), path).status_code
        for path, calls in document["paths"].items()
        if path not in OPEN_PATHS
        for method in calls
    }
    assert set(statuses.values()) == {401}, statuses


@pytest.mark.parametrize("is_short", [True, False], ids=["express", "ordinary"])
def test_both_ways_from_the_socket_ask_for_the_key(is_short: bool) -> None:
    async def play() -> None:
        loopback = LoopbackServer(api_keys=KEY)
        odd = {} if is_short else {"Origin": "http://page"}
        async with loopback.client() as (reader, writer):
            statuses = []
            for shown in ({}, GOOD, {"Authorization": f"Bearer {OTHER}"}, GOOD):
                writer.write(request(**odd, **shown))
                statuses.append((await read_answer(reader)).status)
        assert statuses == [401, 200, 401, 200]
        assert loopback.fast == (4 if is_short else 0)

    run(play)


def _check(auth: ApiKeyAuth, key: str) -> bool:
    try:
        auth.check({b"x-api-key": key.encode()})
    except Unauthorized:
        return False
    return True


def test_the_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# the first\n\n{KEY}\n")
    auth = ApiKeyAuth([], file, look_seconds=0)
    assert (_check(auth, KEY), _check(auth, OTHER)) == (True, False)
    file.write_text(f"{OTHER}\n{'x' * 20}\n")
    assert (_check(auth, KEY), _check(auth, OTHER), _check(auth, "x" * 20)) == (
        False,
        True,
        True,
    )


def test_a_link_that_leads_elsewhere_is_a_change(tmp_path: Path) -> None:
    for name, key in (("a", KEY), ("b", OTHER)):
        (tmp_path / name).write_text(key)
        os.utime(tmp_path / name, (1, 1))
    link = tmp_path / "keys"
    link.symlink_to("a")
    auth = ApiKeyAuth([], link, look_seconds=0)
    (tmp_path / "next").symlink_to("b")
    (tmp_path / "next").replace(link)
    assert (_check(auth, KEY), _check(auth, OTHER)) == (False, True)


def test_a_key_that_was_taken_out_is_good_for_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("service.auth.time.monotonic", lambda: now)
    file = tmp_path / "keys"
    file.write_text(KEY)
    auth = ApiKeyAuth([], file)
    file.write_text(f"{OTHER}\n")
    now += 0.9
    assert (_check(auth, KEY), _check(auth, OTHER)) == (True, False)
    now += 0.1
    assert (_check(auth, KEY), _check(auth, OTHER)) == (False, True)


@pytest.mark.parametrize("content", [None, "", "# none\n", "short\n", "kéy" * 10])
def test_a_file_that_went_bad_changes_nothing(
    tmp_path: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys"
    file.write_text(KEY)
    auth = ApiKeyAuth([], file, look_seconds=0)
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    assert _check(auth, KEY)
    assert _check(auth, KEY)
    assert len(caplog.records) == 1, "logged once, not at every request"
    assert KEY not in caplog.text


def test_a_file_that_could_not_be_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its permissions may change and nothing else, or descriptors be free again."""
    file = tmp_path / "keys"
    file.write_text(KEY)
    auth = ApiKeyAuth([], file, look_seconds=0)
    file.write_text(f"{OTHER}\n")

    def read_key_file(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("service.auth.read_key_file", read_key_file)
        assert [_check(auth, KEY), _check(auth, KEY)] == [True, True]
    assert (_check(auth, KEY), _check(auth, OTHER)) == (False, True)
    faults = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(faults) == 1, "logged once, not at every look"


def test_a_file_that_went_bad_is_told_of(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(KEY)
    metrics = Metrics()
    auth = ApiKeyAuth([], file, look_seconds=0, metrics=metrics.keys)
    app = FastAPI()
    app.include_router(health_router(FakeRepository(), metrics, auth))
    found = []
    for content in (KEY, "short", "shorter", f"{OTHER}\n"):  # nobody shows a key meanwhile
        file.write_text(content)
        shown = metrics.registry.get_sample_value("pushforward_key_file_ok")
        ready = ask(app, "GET", "/health/ready")
        assert ready.status_code == 200
        found.append(ready.json()["api_key_file"])
        assert shown == found[-1]["ok"]
    assert [one["ok"] for one in found] == [True, False, False, True]
    assert found[1]["since"] == found[2]["since"]
    without = ApiKeyAuth([KEY], None, metrics=metrics.keys)
    assert without.file_status is None
    assert metrics.registry.get_sample_value("pushforward_key_file_ok") == 1


@pytest.mark.parametrize("content", ["", "short", "kéy" * 10])
def test_a_bad_file_at_the_start_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "keys"
    file.write_text(content)
    with pytest.raises(SettingsError, match=r"^--api-key-file: "):
        ApiKeyAuth([], file)


def test_keys_are_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read({"api_keys": KEY})
    assert KEY not in f"{settings} {settings!r} {settings.model_dump_json()}"
    for bad in ("hunter2", "hunter2 and some spaces"):
        monkeypatch.setenv("PUSHFORWARD_API_KEYS", bad)
        with pytest.raises(SettingsError, match=r"^PUSHFORWARD_API_KEYS: ") as caught:
            read({})
        assert "hunter2" not in str(caught.value)


EXPOSED: dict[str, tuple[dict[str, Any], bool]] = {
    "loopback": ({}, True),
    "loopback_by_name": ({"host": "localhost"}, True),
    "loopback_6": ({"host": "::1"}, True),
    "all": ({"host": "0.0.0.0"}, False),
    "all_6": ({"host": "::"}, False),
    "an_address": ({"host": "192.0.2.1"}, False),
    "with_keys": ({"host": "0.0.0.0", "api_keys": KEY}, True),
    "allowed": ({"host": "0.0.0.0", "allow_unauthenticated": True}, True),
    "control_told_to": (
        {"host": "0.0.0.0", "allow_unauthenticated": True, "enable_model_control": True},
        False,
    ),
    "control_with_keys": (
        {"host": "0.0.0.0", "api_keys": KEY, "enable_model_control": True},
        True,
    ),
}


@pytest.mark.parametrize("case", EXPOSED)
def test_where_a_server_without_keys_may_listen(case: str) -> None:
    given, is_fine = EXPOSED[case]
    if is_fine:
        check_exposure(Settings(**given))
        return
    with pytest.raises(SettingsError, match=r"^--host: .* PUSHFORWARD_API_KEYS"):
        check_exposure(Settings(**given))


@pytest.mark.parametrize("order", [1, -1])
def test_a_host_with_one_address_beyond_loopback_is_beyond(
    monkeypatch: pytest.MonkeyPatch, order: int
) -> None:
    found = [(0, 0, 0, "", (address, 0)) for address in ("127.0.0.1", "192.0.2.1")][::order]
    monkeypatch.setattr("service.auth.socket.getaddrinfo", lambda *_, **__: found)
    with pytest.raises(SettingsError, match=r"^--host: both is beyond loopback"):
        check_exposure(Settings(host="both"))
    del found[found.index((0, 0, 0, "", ("192.0.2.1", 0)))]
    check_exposure(Settings(host="both"))


def test_beyond_loopback_without_keys_is_one_line_and_exit_3() -> None:
    result = invoke("serve", "--host", "0.0.0.0")
    assert result.exit_code == 3
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("pushforward: --host: 0.0.0.0 ")


PREFLIGHT = {
    "Origin": "https://page.example",
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, content-type",
}


@pytest.mark.parametrize("path", ["/encode", "/models"])
def test_pages_of_other_origins_may_not_call(path: str) -> None:
    app = app_over(FakeRepository())
    for method in ("OPTIONS", "GET", "POST"):
        answer = ask(app, method, path, headers=PREFLIGHT)
        assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize("origin", ["https://page.example", "https://else.example"])
@pytest.mark.parametrize(("method", "path"), [("POST", "/encode"), ("GET", "/models")])
def test_pages_of_named_origins_may(method: str, path: str, origin: str) -> None:
    app = app_over(FakeRepository(), api_keys=KEY, cors_origins="https://page.example")
    expected = origin if origin == "https://page.example" else None
    flight = ask(app, "OPTIONS", path, headers=PREFLIGHT | {"Origin": origin})
    assert flight.status_code == (200 if expected else 400)
    for headers in (GOOD, {}):
        content = {"json": {"model": "line", "x": [[2, 4, 6]]}} if method == "POST" else {}
        answer = ask(app, method, path, headers=headers | {"Origin": origin}, **content)
        assert answer.status_code == (200 if headers else 401)
        assert answer.headers.get("access-control-allow-origin") == expected


PICTURES = {"Origin": "https://page.example", "Accept": "application/x-npy", **GOOD}


def test_pages_of_named_origins_may_read_what_an_answer_says_of_itself() -> None:
    """Every header of an answer of ours that a script is not allowed to read anyway."""
    app = app_over(FakeRepository(), api_keys=KEY, cors_origins="https://page.example")
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/sample", {"json": {"model": "line", "num_samples": 2}}),
        ("POST", "/encode", {"json": {"model": "line", "x": [[1e39, 0, 0]]}}),
        ("POST", "/encode", {"json": {"model": "line", "x": [[1, 2, 3]]}}),
        ("GET", "/models", {}),
    ]
    sent, exposed = set(), set()
    for method, path, given in requests:
        answer = ask(app, method, path, headers=PICTURES, **given)
        listed = answer.headers["access-control-expose-headers"].lower().split(", ")
        sent |= {name for name in answer.headers if not name.startswith("access-control")}
        exposed = set(listed)
    safe = {"content-length", "content-type", "vary"}
    assert sent - safe - exposed == set()
    assert {"x-seed", "x-model", "x-model-version", "x-non-finite", "x-request-id"} <= exposed
    assert {"retry-after", "server-timing", "inference-header-content-length"} <= exposed
