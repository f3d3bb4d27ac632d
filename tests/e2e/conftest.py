"""One server with the zoo for all tests that only read from it."""

from collections.abc import Iterator

import httpx
import pytest

from benchmarks.process import RunningServer, serving


@pytest.fixture(scope="session")
def zoo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    log = tmp_path_factory.mktemp("zoo") / "server.log"
    # A crowd may wait for a slow model on busy cores: to refuse it is tried elsewhere.
    with serving(log, "--max-queue-seconds", "30") as server:
        yield server


@pytest.fixture
def client(zoo_server: RunningServer) -> Iterator[httpx.Client]:
    with zoo_server.client() as http:
        yield http
