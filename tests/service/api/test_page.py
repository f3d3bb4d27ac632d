"""The pages for browsers: who may get them, under which policy, and paths that are none."""

import re
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

import pytest
from fastapi import FastAPI

from service.api.page import PUBLIC_PATHS
from tests.service.fake_repository import FakeRepository, app_over, ask, card

KEY = "0123456789abcdef"
STATIC = Path(str(files("service"))) / "static"
PAGES = ("/ui", "/docs")
SECRET = card("payroll", (3,), feature_names=("salary", "age", "height"))


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return app_over(FakeRepository((SECRET,)), api_keys=KEY)


@pytest.mark.parametrize("path", sorted(PUBLIC_PATHS))
def test_pages_and_what_they_load_need_no_key(app: FastAPI, path: str) -> None:
    for headers in ({}, {"Authorization": f"Bearer {KEY}"}, {"Authorization": "Bearer wrong"}):
        for method in ("GET", "HEAD"):
            answer = ask(app, method, path, headers=headers)
            assert answer.status_code == (307 if path == "/" else 200), answer.text
            assert answer.headers["x-request-id"]
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(app, method, path).status_code == 401


NOT_PUBLIC = (
    *("/docs/", "/ui/", "/openapi.json/", "/openapi", "/redoc", "/docs/oauth2-redirect"),
    *("/static", "/static/", "/static/index.html", "/static/nothing.js", "/static/../auth.py"),
    *("/static/%2e%2e/auth.py", "/static/swagger-ui", "/static/swagger-ui/../../auth.py"),
    *("/static//etc/passwd", "/static/page.js/", "/static/PAGE.JS", "/static/page.js%00"),
)


@pytest.mark.parametrize("path", NOT_PUBLIC)
def test_no_other_path_is_public_or_there(app: FastAPI, path: str) -> None:
    assert ask(app, "GET", path).status_code == 401
    answer = ask(app, "GET", path, headers={"X-API-Key": KEY})
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize("path", sorted(PUBLIC_PATHS - {"/openapi.json"}))
def test_one_policy_for_all_of_them(app: FastAPI, path: str) -> None:
    headers = ask(app, "GET", path).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data: blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "txt": "text/plain"}


def test_files_have_the_types_that_browsers_insist_on(app: FastAPI) -> None:
    found = {
        path: ask(app, "GET", path).headers["content-type"].partition(";")[0]
        for path in PUBLIC_PATHS
        if path.startswith("/static/")
    }
    assert found == {path: TYPES[path.rpartition(".")[2]] for path in found}
    assert len(found) == sum(
        path.is_file() and path.suffix != ".html" for path in STATIC.rglob("*")
    )


def test_a_file_that_a_browser_has_is_not_sent_again(app: FastAPI) -> None:
    path = "/static/swagger-ui/swagger-ui-bundle.js"
    first = ask(app, "GET", path)
    again = ask(app, "GET", path, headers={"If-None-Match": first.headers["etag"]})
    assert first.headers["cache-control"] == "no-cache"
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", PAGES)
def test_pages_load_files_of_ours_alone(app: FastAPI, path: str) -> None:
    html = ask(app, "GET", path).text
    loaded = re.findall(r'(?:src|href)="([^"#]+)"', html)
    assert {f"/{name}" for name in loaded} <= PUBLIC_PATHS
    assert re.findall(r"<style|\bstyle=|\bon\w+=|<script[^>]*>[^<]", html) == []


def test_our_scripts_name_no_other_host() -> None:
    theirs = {"vendor", "swagger-ui"}
    for file in STATIC.rglob("*.*"):
        if theirs & set(file.parts) or file.suffix == ".svg":
            continue
        assert re.findall(r"(?:https?:)?//\w[\w.]+/", file.read_text("utf-8")) == []


# Of the published packages, as NOTICE says: whoever brings another version writes its digests here.
PUBLISHED = {
    "swagger-ui": {
        "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
        "37eb6e7e59aed57b2c1acf076574b818ea07b74265717e0bd67b59e0baf9abbb",
        "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
    },
    "vendor": {
        "92d71a23f36e96fe67a5affc0c5e40d3a4ff172ca0e051024301d65011911f58",  # d3.js
        "fcd3aee43dba178584cc98a552f731e3bf95138dd25dbce4ae75cccd4d82c23e",  # d3-dsv.js
        "1dad24cf3f36ec22fbafca82f1b6b44d65adf2724796ec1cbd105e173968f83a",  # fzstd.js
        "20f44adb435cd12a344d344a862ec2031caf19d9df19c06752a90e3d545babcb",  # hyparquet.js
        "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",  # uplot.css
        "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",  # uplot.js
    },
}


@pytest.mark.parametrize("folder", sorted(PUBLISHED))
def test_libraries_are_as_they_were_published(folder: str) -> None:
    files = (file for file in (STATIC / folder).iterdir() if "-LICENSE" not in file.name)
    assert {sha256(file.read_bytes()).hexdigest() for file in files} == PUBLISHED[folder]


MAX_PAGE_BYTES = 400_000


def test_the_page_and_all_that_it_loads_are_small() -> None:
    docs = {"docs.html", "docs.css", "docs.js"}
    files = [
        file
        for file in STATIC.rglob("*")
        if file.is_file()
        and file.name not in docs
        and "swagger-ui" not in file.parts
        # Licences are shipped, and not loaded.
        and "-LICENSE" not in file.name
    ]
    assert sum(file.stat().st_size for file in files) <= MAX_PAGE_BYTES


def test_the_description_says_no_name_of_a_model_to_strangers(app: FastAPI) -> None:
    for headers in ({}, {"X-API-Key": f"{KEY}0"}):
        answer = ask(app, "GET", "/openapi.json", headers=headers)
        assert not [name for name in ("payroll", "salary") if name in answer.text]
        assert set(answer.json()["components"]["securitySchemes"]) == {"bearer", "key"}
        assert answer.headers["vary"].startswith("Authorization, X-API-Key")
    known = ask(app, "GET", "/openapi.json", headers={"X-API-Key": KEY})
    assert "payroll" in known.text
    assert known.json()["paths"].keys() == answer.json()["paths"].keys()
    assert "payroll" not in ask(app, "GET", "/openapi.json").text


def test_the_description_says_which_calls_need_no_key(app: FastAPI) -> None:
    paths = ask(app, "GET", "/openapi.json").json()["paths"]
    free = {path for path, calls in paths.items() for call in calls.values() if "security" in call}
    assert free == {path for path in paths if ask(app, "GET", path).status_code == 200}


def test_without_keys_nothing_asks_for_one() -> None:
    document = ask(app_over(FakeRepository((SECRET,))), "GET", "/openapi.json").json()
    assert "payroll" in str(document)
    assert "security" not in document
    assert "securitySchemes" not in document["components"]


@pytest.mark.parametrize(
    ("path", "mend"),
    [
        ("/log_prob/", "leave out the slash at its end: /log_prob"),
        ("/models/", "leave out the slash at its end: /models"),
        ("/models/payroll/", "leave out the slash at its end: /models/payroll"),
        ("/v2/models/payroll/infer/", "the slash at its end: /v2/models/payroll/infer"),
        ("/docs//", "leave out the slash at its end: /docs"),
        ("/nothing/", "GET /openapi.json has all of them"),
        ("/", None),
        ("/redoc", "GET /docs has the documentation"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_path_that_is_none_names_the_mend(
    app: FastAPI, method: str, path: str, mend: str | None
) -> None:
    answer = ask(app, method, path, headers={"X-API-Key": KEY})
    assert (answer.status_code == 404) is (mend is not None)
    assert mend is None or answer.json()["detail"].endswith(mend)
