"""How many processors this process may really use, and how many of them an engine gets.

`os.cpu_count()` sees the machine, not the container: on a node of 64 cores with a quota of two,
64 threads would fight over two cores.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores(cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> float:
    """The processors this process may use: its affinity, capped by its control groups' quotas."""
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return min([float(allowed), *_quotas(cgroups, membership)])


def engine_threads(asked: int | None, processes: int = 1) -> int:
    """Threads of one engine call: those asked for, else a process' usable cores less one.

    The one left is the event loop's. Two engine threads beside it on two cores were four times
    slower than one: each waits for the other, and both for the loop.
    """
    return asked or max(1, math.floor(usable_cores() / processes) - 1)


@dataclass(frozen=True, slots=True)
class CpuShare:
    """How the processors of a process are shared out.

    instances: of one model, at most. threads: of one engine call. budget: batches that are computed
    at a time, of all models.
    """

    instances: int
    threads: int
    budget: int


def share_cpu(
    instances: int | Literal["auto"], threads: int | None, processes: int = 1
) -> CpuShare:
    """Share the usable cores out to instances and to the threads of their calls.

    Several instances compute on one thread each, unless more are asked for: as many cores are
    busy, no batch waits for the slowest of its threads, and bits depend on none of it. One alone
    has the threads of `engine_threads`.
    """
    cores = max(1, math.floor(usable_cores() / processes))
    fitting = max(1, cores // (threads or 1))
    if instances == "auto":
        return CpuShare(fitting, threads or 1, fitting)
    if instances == 1:
        threads = engine_threads(threads, processes)
    return CpuShare(instances, threads or 1, max(instances, fitting))


def _quotas(cgroups: Path, membership: Path) -> list[float]:
    """The quota, in processors, of every control group this process is in, where there is one."""
    found = []
    for line in _read(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            found += [_quota_v2(folder) for folder in _lineage(cgroups, path)]
        elif "cpu" in controllers.split(","):
            for root in (cgroups / controllers, cgroups / "cpu"):
                found += [_quota_v1(folder) for folder in _lineage(root, path)]
    return [quota for quota in found if quota is not None]


def _lineage(root: Path, path: str) -> list[Path]:
    """A control group and those it is in; inside a container only the root can be seen."""
    folder = root / path.strip("/")
    return [folder, *(above for above in folder.parents if above.is_relative_to(root))]


def _quota_v2(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    return _ratio(quota, period)


def _quota_v1(folder: Path) -> float | None:
    return _ratio(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float | None:
    # "max" and -1 mean that there is no quota.
    quota, period = quota.strip(), period.strip()
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
