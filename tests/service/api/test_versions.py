"""What is said of a model of which several versions are live."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.repository import FolderRepository, repository
from service.settings import Settings
from service.telemetry import Metrics
from tests.service.repository.test_versions import load_fake, put

Get = Callable[..., Awaitable[Any]]


@pytest.fixture
def over_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Ask a service whose model `flow` has the versions 1, 2 and 4; 1 is the default."""
    monkeypatch.setattr(repository, "load_model", load_fake)
    (tmp_path / "flow").mkdir()
    put(tmp_path / "flow", {1, 2, 3, 4}, set(), {1, 2, 4}, 1)

    def start(test: Callable[[Get], Awaitable[None]]) -> None:
        options = {"watch_models": False, "log_level": "error", "enable_model_control": True}
        settings = Settings(model_repository=(tmp_path,), **options)
        metrics = Metrics()
        app = create_app(settings, FolderRepository(settings, metrics), metrics)

        async def play() -> None:
            async with app.router.lifespan_context(app):
                transport = httpx.ASGITransport(app)
                async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

                    async def get(path: str, method: str = "GET", *, whole: bool = False) -> Any:
                        answer = await client.request(method, path)
                        if whole:
                            return answer
                        return answer.json() if answer.is_success else answer.status_code

                    await test(get)

        asyncio.run(play())

    return start


def test_each_description_lists_what_is_live(over_versions: Callable[..., None]) -> None:
    async def test(get: Get) -> None:
        (listed,) = (await get("/models"))["models"]
        assert (listed["version"], listed["versions"]) == ("1", ["1", "2", "4"])
        one = await get("/models/flow@4")
        assert (one["name"], one["version"], one["versions"]) == ("flow", "4", ["1", "2", "4"])
        assert await get("/models/flow@3") == 404
        assert (await get("/v2/models/flow"))["versions"] == ["1", "2", "4"]
        assert (await get("/v2/models/flow/versions/2"))["versions"] == ["1", "2", "4"]
        assert await get("/v2/models/flow/versions/3") == 404
        assert [one["version"] for one in await get("/v2/repository/index", "POST")] == [
            "1",
            "2",
            "4",
        ]

    over_versions(test)


@pytest.mark.parametrize("name", ["flow@1", "flow@9", "flow@", "@", "flow@1@2", "nobody"])
@pytest.mark.parametrize("action", ["load", "unload"])
def test_a_model_is_loaded_and_unloaded_as_a_whole(
    over_versions: Callable[..., None], action: str, name: str
) -> None:
    async def test(get: Get) -> None:
        assert await get(f"/v2/repository/models/{name}/{action}", "POST") == 404
        assert (await get("/v2/models/flow"))["versions"] == ["1", "2", "4"]

    over_versions(test)


@pytest.mark.parametrize("path", ["", "/ready", "/stats", "/infer"])
@pytest.mark.parametrize("version", ["2", "4"])
def test_a_version_is_named_once(
    over_versions: Callable[..., None], path: str, version: str
) -> None:
    async def test(get: Get) -> None:
        method = "POST" if path == "/infer" else "GET"
        answer = await get(f"/v2/models/flow@4/versions/{version}{path}", method, whole=True)
        assert answer.status_code == 404
        assert f"expected one version, got 'flow@4' and the version '{version}'" in answer.text

    over_versions(test)


@pytest.mark.parametrize(
    ("path", "versions"),
    [
        ("/v2/models/stats", ["1", "2", "4"]),
        ("/v2/models/flow/stats", ["1", "2", "4"]),
        ("/v2/models/flow/versions/2/stats", ["2"]),
        ("/v2/models/flow@4/stats", ["4"]),
    ],
)
def test_statistics_are_those_of_each_version(
    over_versions: Callable[..., None], path: str, versions: list[str]
) -> None:
    async def test(get: Get) -> None:
        found = (await get(path))["model_stats"]
        assert [one["version"] for one in found] == versions

    over_versions(test)
