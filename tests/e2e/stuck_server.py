"""The real main, whose engine waits for a byte from the test before every batch.

Its folder holds two named pipes: a byte comes out of `started` when a batch begins, and one goes
into `commands` to let it end: "g" gives the answer, "e" raises, "x" ends the worker's thread. The
engine waits only while the file `armed` is there, so that the warm-up can pass.

Servers are forked from a process that has imported what they need: a start takes a tenth of the
processor time.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from models.flow import Flow
from service.contracts import Array
from service.engines.registry import ENGINES, EngineSpec
from service.engines.selection import EngineConfig, EngineSelection
from service.engines.torch import TorchEngine
from service.launch import main
from service.settings import read

ROOT = Path(__file__).resolve().parents[2]


class StuckEngine(TorchEngine):
    """The torch engine, stuck in every batch until a command comes."""

    folder: Path

    def __init__(self, flow: Flow) -> None:
        super().__init__(flow)
        # Read and write: opening waits for nobody, and no end of file ever comes.
        self._started = os.open(self.folder / "started", os.O_RDWR)
        self._commands = os.open(self.folder / "commands", os.O_RDWR)

    def encode(self, x: Array, context: Array | None) -> tuple[Array, Array]:
        if (self.folder / "armed").exists():
            os.write(self._started, b"s")
            command = os.read(self._commands, 1)
            if command == b"e":
                raise RuntimeError("the engine failed, as commanded")
            if command == b"x":
                raise SystemExit
        return super().encode(x, context)


def make_engine(config: EngineConfig) -> EngineSelection:
    return EngineSelection(StuckEngine(config.flow))


def serve(folder: Path, fields: dict[str, str]) -> None:
    """Be the server of a folder, whose output goes to `server.log` in it."""
    with (folder / "server.log").open("w") as output:
        for number in (1, 2):
            os.dup2(output.fileno(), number)
    StuckEngine.folder = folder
    ENGINES["torch"] = EngineSpec(__name__, "torch, stuck")
    # One thread that is stuck, and not the event loop's.
    stuck = {"engine": "torch", "instances": "1", "max_inline_seconds": "0"}
    sys.exit(main.run(read({**stuck, **fields})))


class ServerProcess:
    """A forked server, as far as a `Popen` of it is asked."""

    def __init__(self, folder: Path, fields: dict[str, str]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__, "service.launch.worker"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(ROOT))
            forkserver.ensure_running()
        self._process: ForkServerProcess = context.Process(
            target=serve, args=(folder, fields), daemon=True
        )
        self._process.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        if self._process.exitcode is None:
            self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("serve", timeout or 0)
        return self._process.exitcode
