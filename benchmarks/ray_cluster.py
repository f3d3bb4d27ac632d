"""`examples/ray_serve.py` on a Ray cluster of this machine alone, which is gone afterwards."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import free_port, wait_until_ready

_ROOT = Path(__file__).resolve().parent.parent
_REPLICA = "ray::ServeReplica:"
# The cluster lives as long as this process does, which is until its stdin ends.
_DRIVER = """
import json, sys
import ray
from ray import serve
import ray_serve

port, folder, cpus, arguments = sys.argv[1:]
ray.init(
    address="local", num_cpus=int(cpus), object_store_memory=2**27, include_dashboard=False,
    log_to_driver=False, _temp_dir=folder,
)
serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
serve.run(ray_serve.build(json.loads(arguments)))
sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class RayCluster:
    """A cluster that has answered ready."""

    url: str
    driver: int

    def replicas(self) -> set[int]:
        """The processes that are replicas now."""
        return {pid for pid in descendants(self.driver) if _title(pid).startswith(_REPLICA)}


@contextmanager
def serving_by_ray(
    log: Path, arguments: str, cpus: int = 3, env: dict[str, str] | None = None
) -> Iterator[RayCluster]:
    """Start a cluster with `ray_serve.build(arguments)` on a free port; wait until it is ready.

    Args:
        log: where its output goes.
        arguments: of the builder, as JSON.
        cpus: that Ray may give to replicas.
        env: variables beside those of this process.
    """
    port = free_port()
    # Not in a folder of the test's: paths of sockets may have 107 bytes.
    folder = tempfile.mkdtemp(prefix="ray-")
    paths = os.pathsep.join((str(_ROOT / "examples"), str(_ROOT)))
    with log.open("w") as output:
        driver = subprocess.Popen(
            [sys.executable, "-c", _DRIVER, str(port), folder, str(cpus), arguments],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": paths, "RAY_USAGE_STATS_ENABLED": "0", **(env or {})},
            text=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(url, driver, log)
            yield RayCluster(url, driver.pid)
        finally:
            _kill_all(driver)
            shutil.rmtree(folder, ignore_errors=True)


def _kill_all(driver: "subprocess.Popen[str]") -> None:
    """Kill the processes of a cluster, those first that start others."""
    started = descendants(driver.pid)
    for pid in started:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    driver.kill()
    driver.communicate()


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have, parents first."""
    found = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in tasks.read_text().split()]
    return [each for child in found for each in (child, *descendants(child))]


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
