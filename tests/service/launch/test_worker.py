"""The order of a worker's start."""

import gc
import socket
from typing import Any

import pytest

from service.launch import limits, worker
from service.launch.exits import StartupError
from service.settings import Settings
from service.telemetry import Metrics
from tests.service.fake_repository import FakeRepository


class Repository(FakeRepository):
    """Needs no library."""

    async def import_libraries(self) -> None:
        """Import nothing."""


def test_a_worker_without_room_for_connections_is_never_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that is lost after that is started anew, one that cannot start ends the service."""

    def share_connections(**_: Any) -> Any:
        raise StartupError("too few descriptors")

    async def ready_barrier() -> None:
        raise AssertionError("it has no room")

    monkeypatch.setattr(limits, "share_connections", share_connections)
    monkeypatch.setattr(worker, "FolderRepository", lambda *_, **__: Repository())
    for name in ("freeze", "set_threshold"):
        monkeypatch.setattr(gc, name, lambda *_: None)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(StartupError, match="too few descriptors"),
    ):
        worker.Worker(Settings(), Metrics(), ready_barrier).run(listener)
