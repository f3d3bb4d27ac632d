"""What the machine grants: one line where it is too little, whoever notices first."""

import os
import resource
import subprocess
import sys
from contextlib import suppress

import pytest

from service.launch import limits
from service.launch.exits import StartupError
from service.launch.limits import (
    check_memory,
    enough_memory,
    room_for_connections,
    share_connections,
)

MIB = 2**20


class FakeLimits:
    """The limits in force, as far as `service.launch.limits` can see."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.granted: dict[int, int] = {}
        monkeypatch.setattr(resource, "getrlimit", self._get)

    def _get(self, limit: int) -> tuple[int, int]:
        return self.granted.get(limit, resource.RLIM_INFINITY), resource.RLIM_INFINITY


@pytest.fixture
def limits_in_force(monkeypatch: pytest.MonkeyPatch) -> FakeLimits:
    return FakeLimits(monkeypatch)


@pytest.mark.parametrize(
    ("limit", "too_few", "enough", "words"),
    [
        (resource.RLIMIT_AS, 700, 768, "address space of a process is 700 MiB: .* 768 .*ulimit -v"),
        (resource.RLIMIT_DATA, 256, 336, "data of a process is 256 MiB: .* 336 .*ulimit -d"),
    ],
)
def test_limits_in_which_nothing_starts_are_refused(
    limits_in_force: FakeLimits, limit: int, too_few: int, enough: int, words: str
) -> None:
    check_memory()  # not limited
    limits_in_force.granted[limit] = enough * MIB
    check_memory()
    limits_in_force.granted[limit] = too_few * MIB
    with pytest.raises(StartupError, match=words):
        check_memory()


@pytest.mark.parametrize("kind", [ImportError, MemoryError, OSError, SystemError])
def test_an_import_that_fails_is_reported_with_the_limit_in_its_way(
    limits_in_force: FakeLimits, kind: type[Exception]
) -> None:
    limits_in_force.granted[resource.RLIMIT_AS] = 800 * MIB
    expected = rf"address space to 800 MiB \(ulimit -v\): {kind.__name__}"
    with pytest.raises(StartupError, match=expected), enough_memory():
        raise kind("failed to map segment")


def test_an_import_that_fails_for_another_reason_is_not_hidden(limits_in_force: FakeLimits) -> None:
    with pytest.raises(ImportError, match="no such module"), enough_memory():
        raise ImportError("no such module")


@pytest.mark.parametrize("chosen", [None, "4"])
def test_numpy_computes_in_one_thread_unless_set(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None
) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", chosen or "")
    if chosen is None:
        monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    limits.spare_memory()
    assert os.environ["OPENBLAS_NUM_THREADS"] == (chosen or "1")


def test_a_server_imports_no_scipy() -> None:
    """Its linear algebra asks for memory again and again where it is limited, without a word."""
    script = (
        "import sys, service.launch.worker, service.launch.supervisor\n"
        "sys.exit('scipy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_descriptors_that_are_open_or_reserved_are_not_for_connections(
    limits_in_force: FakeLimits,
) -> None:
    assert room_for_connections() is None
    limits_in_force.granted[resource.RLIMIT_NOFILE] = 4096
    before = room_for_connections()
    assert before is not None
    assert 0 < before <= 4096 - 24 - 3
    pipe = os.pipe()
    try:
        assert room_for_connections() == before - 2
    finally:
        for end in pipe:
            os.close(end)


def test_no_room_for_any_connection_is_refused(limits_in_force: FakeLimits) -> None:
    limits_in_force.granted[resource.RLIMIT_NOFILE] = 20
    with pytest.raises(StartupError, match=r"descriptors of a process is 20: .*ulimit -n"):
        room_for_connections()


def test_a_quarter_of_the_connections_is_for_grpc(limits_in_force: FakeLimits) -> None:
    assert share_connections(has_grpc=True) == (None, None)
    limits_in_force.granted[resource.RLIMIT_NOFILE] = 4096
    room = room_for_connections()
    assert room is not None
    assert share_connections(has_grpc=False) == (room, None)
    of_http, of_grpc = share_connections(has_grpc=True)
    assert of_http is not None
    assert of_grpc == (room - 24) // 4  # its own descriptors are none of them
    assert of_http + of_grpc == room - 24
    shared = []
    for granted in range(24, 1024):
        limits_in_force.granted[resource.RLIMIT_NOFILE] = granted
        with suppress(StartupError):
            shared.append(share_connections(has_grpc=True))
            if len(shared) == 5:
                break
    assert shared == [(1, 1), (1, 1), (2, 1), (3, 1), (4, 1)]
