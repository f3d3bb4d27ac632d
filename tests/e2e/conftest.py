"""One server with the zoo for all tests that only read from it."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks.process import RunningServer, serving


@pytest.fixture(scope="session")
def zoo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    log = tmp_path_factory.mktemp("zoo") / "server.log"
    # A crowd may wait for a slow model on busy cores: to refuse it is tried elsewhere.
    with serving(log, "--max-queue-seconds", "30") as server:
        yield server


@pytest.fixture(scope="session")
def flows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three versions of a model: those that reloads and promotions serve."""
    from tests.e2e.live_flows import write_flows  # torch, which other tests do without

    folder = tmp_path_factory.mktemp("flows")
    write_flows(folder)
    return folder


@pytest.fixture
def client(zoo_server: RunningServer) -> Iterator[httpx.Client]:
    with zoo_server.client() as http:
        yield http
