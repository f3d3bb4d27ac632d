"""Lines 25 to 29, 35 and 36: signals, reloads, engines that die, poor surroundings."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.process import RunningServer, command, free_port, serving, wait_until_ready
from tests.e2e.test_reload import Asker
from tests.reliability.registry import ZOO, Ground, expect, suite, trial

FAULTS = "tests/e2e/test_faults.py"


class Crowd:
    """Threads that ask one row after the other, and keep every status and lost answer."""

    def __init__(self, url: str, clients: int) -> None:
        self.statuses: list[int] = []
        self.lost: list[str] = []
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(url,)) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, url: str) -> None:
        body = {"model": "moons", "num_samples": 200}
        with httpx.Client(base_url=url, timeout=60) as http:
            while not self._is_over.is_set():
                try:
                    status = http.post("/sample", json=body).status_code
                    self.statuses.append(status)
                    if status == httpx.codes.SERVICE_UNAVAILABLE:  # told to go elsewhere
                        return
                except httpx.ConnectError:  # the port is closed: never accepted
                    return
                except httpx.TransportError as error:
                    self.lost.append(repr(error))
                    return

    def stop(self) -> None:
        """Let them end, and wait."""
        self._is_over.set()
        for thread in self._threads:
            thread.join(60)


@trial(25, "SIGTERM under load: every accepted request is answered")
def drain(ground: Ground) -> str:
    answered, codes, rounds = 0, set[int](), ground.count(20, 2)
    for turn in range(rounds):
        log = ground.folder / f"drain-{turn}.log"
        with serving(log, str(ZOO / "moons"), "--engine", "torch") as server:
            crowd = Crowd(server.url, 16)
            time.sleep(2)
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            code = server.process.wait(timeout=60)
            took = time.monotonic() - began
            crowd.stop()
        expect(code == 0, f"exit code {code}: {log.read_text()[-300:]}")
        expect(took < 30, f"ended after {took:.1f} s")
        expect(not crowd.lost, f"lost: {crowd.lost[:3]}")
        codes |= set(crowd.statuses)
        answered += len(crowd.statuses)
    expect(codes <= {200, 503}, codes)
    return (
        f"{rounds} times, {answered:,} requests, none lost, statuses {sorted(codes)}, exit code 0"
    )


suite(
    25,
    "a second signal; what is left after the grace; signals while loading",
    f"{FAULTS}::test_a_second_signal_ends_at_once",
    f"{FAULTS}::test_after_the_grace_what_is_left_is_answered_503",
    f"{FAULTS}::test_a_signal_while_loading_ends_at_once",
)
suite(
    26,
    "engines that raise or die, faults in forming and undoing batches, workers killed",
    f"{FAULTS}::test_an_engine_error_is_told_without_its_words_and_the_next_request_works",
    f"{FAULTS}::test_a_dead_worker_ends_the_process",
    "tests/service/batcher/test_faults.py",
    "tests/e2e/test_workers.py",
)
suite(
    27,
    "simulated out of memory: halves, then 503; a lost device ends the process",
    "tests/service/batcher/test_executor.py",
    "tests/service/engines/test_torch.py",
)
suite(
    28,
    "bad versions under load: the old one serves on",
    "tests/e2e/test_reload.py::test_bad_versions_under_load_cost_nobody_anything",
    "tests/service/repository/test_reload.py",
)


@trial(29, "200 reloads under load")
def reloads(ground: Ground) -> str:
    toy = ground.folder / "reloads" / "toy"
    source = ZOO / "moons"
    shutil.copytree(source, toy / "1")
    flags = ("--enable-model-control", "true", "--watch-models", "false")
    count, resident = ground.count(200, 10), []
    log = ground.folder / "reloads.log"
    with serving(log, str(toy.parent), *flags) as server:
        is_over = threading.Event()
        askers = [Asker(server.url, is_over) for _ in range(2)]
        for asker in askers:
            asker.start()
        with httpx.Client(base_url=server.url, timeout=120) as http:
            for version in range(2, count + 2):
                shutil.copytree(source, toy / str(version))
                shutil.rmtree(toy / str(version - 1))
                answer = http.post("/v2/repository/models/toy/load")
                expect(answer.status_code == 200, answer.text)
                resident.append(server.resident_bytes())
        is_over.set()
        for asker in askers:
            asker.join(60)
    failures = [failure for asker in askers for failure in asker.failures]
    answers = [answer for asker in askers for answer in asker.answers]
    expect(not failures, failures[:3])
    growth = (resident[-1] - resident[len(resident) // 5]) / 2**20
    expect(growth < 40, f"resident memory grew by {growth:.0f} MiB")
    seen = {version for version, _ in answers}
    return f"{count} reloads, {len(answers):,} answers of {len(seen)} versions, {growth:+.0f} MiB"


def _start(ground: Ground, name: str, *, prefix: tuple[str, ...] = (), env: Any = None) -> Any:
    """Start a server in poor surroundings. -> (exit code, last line) or its control answer."""
    port, log = free_port(), ground.folder / f"{name}.log"
    flags = ("serve", str(ZOO / "moons"), "--port", str(port))
    with log.open("w") as output:
        process = subprocess.Popen(
            [*prefix, *command(*flags)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd="/",
            text=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, process, log)
    except RuntimeError:
        lines = log.read_text().strip().splitlines()
        return f"exit {process.returncode}: {lines[-1][:160] if lines else 'silence'}", len(lines)
    else:
        ground.control(RunningServer(url, process, log, 0, 0))
        process.terminate()
        return f"serves, exit {process.wait(60)}", 0
    finally:
        process.kill()
        process.wait()


@trial(35, "memory and address space of 256 MB, one core, no place to write")
def poor(ground: Ground) -> str:
    found = []
    nowhere = {"TMPDIR": "/nonexistent", "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    cases: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
        "256 MB of address space": (("prlimit", f"--as={256 << 20}"), {}),
        "256 MB of data": (("prlimit", f"--data={256 << 20}"), {}),
        "700 MB of address space": (("prlimit", f"--as={700 << 20}"), {}),
        "one core": (("taskset", "-c", "0"), {}),
        "no file can grow": (("prlimit", "--fsize=0"), nowhere),
    }
    for index, (name, (prefix, env)) in enumerate(cases.items()):
        if name == "no file can grow":
            continue  # its own log could not be a file: held by the suite
        came, lines = _start(ground, f"poor-{index}", prefix=prefix, env=env)
        expect(lines <= 1, f"{name}: {lines} lines, the last {came}")
        found.append(f"{name}: {came}")
    return "; ".join(found)


suite(
    35,
    "a full disk, nowhere to write, another user; quotas of processors",
    "tests/e2e/test_hostile.py::test_it_serves_where_nothing_can_be_written",
    "tests/e2e/test_hostile.py::test_several_processes_say_that_they_need_a_place_to_write",
    "tests/service/engines/test_cpu.py",
)

JUMPING = textwrap.dedent("""
    import sys, time
    real, nano, first = time.time, time.time_ns, time.monotonic()
    def jump():
        # An hour ahead, then an hour behind, second by second, from the third second on.
        since = time.monotonic() - first
        return 0 if since < 3 else 3600 if int(since) % 2 else -3600
    time.time = lambda: real() + jump()
    time.time_ns = lambda: nano() + int(jump() * 1e9)
    from pushforward.cli.main import main
    sys.argv = ["pushforward", *sys.argv[1:]]
    main()
""")


@trial(36, "a clock that jumps by an hour both ways, every second")
def clock(ground: Ground) -> str:
    port, log = free_port(), ground.folder / "clock.log"
    flags = ["serve", str(ZOO / "moons"), "--port", str(port)]
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", JUMPING, *flags],
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, process, log)
        crowd = Crowd(url, 4)
        time.sleep(ground.seconds(20, 5))
        crowd.stop()
        process.terminate()
        code = process.wait(60)
    finally:
        process.kill()
        process.wait()
    expect(not crowd.lost and set(crowd.statuses) == {200}, (crowd.lost[:3], set(crowd.statuses)))
    expect(code == 0, f"exit code {code}")
    return f"{len(crowd.statuses):,} requests answered, exit code 0"


@trial(36, "64 descriptors and 200 connections, then none")
def descriptors(ground: Ground) -> str:
    port, log = free_port(), ground.folder / "descriptors.log"
    flags = ("serve", str(ZOO / "moons"), "--port", str(port))
    with log.open("w") as output:
        process = subprocess.Popen(
            ["prlimit", "--nofile=64", *command(*flags)],
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
    url = f"http://127.0.0.1:{port}"
    statuses: list[int] = []
    try:
        wait_until_ready(url, process, log)
        clients = [httpx.Client(base_url=url, timeout=20) for _ in range(200)]
        for client in clients:
            try:
                statuses.append(client.get("/health/live").status_code)
            except httpx.TransportError:
                statuses.append(0)
        for client in clients:
            client.close()
        time.sleep(1)
        expect(httpx.get(f"{url}/health/live").status_code == 200, "it does not recover")
        process.terminate()
        process.wait(60)
    finally:
        process.kill()
        process.wait()
    counts = {status: statuses.count(status) for status in sorted(set(statuses))}
    expect(set(counts) <= {200, 503}, counts)
    lines = len(log.read_text().splitlines())
    expect(lines < 60, f"{lines} lines in the log")
    return f"{counts}, recovers, {lines} lines in the log"
