"""How many processors a process may use, read from control groups as containers set them."""

import os
from pathlib import Path
from typing import Literal

import pytest

from service.engines.cpu import engine_threads, share_cpu, usable_cores


@pytest.fixture(autouse=True)
def _machine_of_64_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))


def cores(tmp_path: Path, membership: str, files: dict[str, str]) -> float:
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return usable_cores(tmp_path / "cgroup", tmp_path / "membership")


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        pytest.param("", {}, 64, id="no-control-groups"),
        pytest.param("0::/\n", {"cpu.max": "max 100000\n"}, 64, id="v2-no-quota"),
        pytest.param("0::/\n", {"cpu.max": "200000 100000\n"}, 2, id="v2-container"),
        pytest.param("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5, id="v2-half-a-core"),
        pytest.param(
            "0::/slice/unit\n",
            {"slice/cpu.max": "300000 100000", "slice/unit/cpu.max": "max 100000"},
            3,
            id="v2-quota-of-a-parent",
        ),
        pytest.param(
            "4:memory:/m\n2:cpu,cpuacct:/docker/abc\n",
            {
                "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "400000\n",
                "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            4,
            id="v1",
        ),
        pytest.param(
            "1:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            64,
            id="v1-no-quota",
        ),
    ],
)
def test_quotas_are_read(
    tmp_path: Path, membership: str, files: dict[str, str], expected: float
) -> None:
    assert cores(tmp_path, membership, files) == expected


def test_one_core_is_left_to_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    for usable, threads in ((64.0, 63), (2.0, 1), (2.9, 1), (1.0, 1), (0.5, 1)):
        monkeypatch.setattr("service.engines.cpu.usable_cores", lambda usable=usable: usable)
        assert engine_threads(None) == threads
    assert engine_threads(5) == 5


@pytest.mark.parametrize(
    ("usable", "instances", "threads", "workers", "expected"),
    [
        (2.0, "auto", None, 1, (2, 1, 2)),
        (2.9, "auto", None, 1, (2, 1, 2)),
        (0.5, "auto", None, 1, (1, 1, 1)),
        (8.0, "auto", None, 2, (4, 1, 4)),
        (8.0, "auto", 4, 1, (2, 4, 2)),
        (8.0, "auto", 16, 1, (1, 16, 1)),
        (8.0, 1, None, 1, (1, 7, 8)),
        (8.0, 1, 2, 1, (1, 2, 4)),
        (2.0, 4, None, 1, (4, 1, 4)),
        (8.0, 4, 2, 1, (4, 2, 4)),
    ],
)
def test_cores_are_shared_out_to_instances_and_their_threads(
    monkeypatch: pytest.MonkeyPatch,
    usable: float,
    instances: int | Literal["auto"],
    threads: int | None,
    workers: int,
    expected: tuple[int, int, int],
) -> None:
    monkeypatch.setattr("service.engines.cpu.usable_cores", lambda: usable)
    share = share_cpu(instances, threads, workers)
    assert (share.instances, share.threads, share.budget) == expected
