"""The real main, whose engine waits for a byte from the test before every batch.

    python -m tests.e2e.stuck_server FOLDER MODEL field=value ...

FOLDER holds two named pipes: a byte comes out of `started` when a batch begins, and one goes into
`commands` to let it end: "g" gives the answer, "e" raises, "x" ends the worker's thread. The engine
waits only while the file `armed` is there, so that the warm-up can pass.
"""

import os
import sys
from pathlib import Path

from models.flow import Flow
from service.contracts import Array
from service.engines.registry import ENGINES, EngineSpec
from service.engines.selection import EngineConfig, EngineSelection
from service.engines.torch import TorchEngine
from service.launch import main
from service.settings import read

FOLDER = Path(sys.argv[1])


class StuckEngine(TorchEngine):
    """The torch engine, stuck in every batch until a command comes."""

    def __init__(self, flow: Flow) -> None:
        super().__init__(flow)
        # Read and write: opening waits for nobody, and no end of file ever comes.
        self._started = os.open(FOLDER / "started", os.O_RDWR)
        self._commands = os.open(FOLDER / "commands", os.O_RDWR)

    def encode(self, x: Array, context: Array | None) -> tuple[Array, Array]:
        if (FOLDER / "armed").exists():
            os.write(self._started, b"s")
            command = os.read(self._commands, 1)
            if command == b"e":
                raise RuntimeError("the engine failed, as commanded")
            if command == b"x":
                raise SystemExit
        return super().encode(x, context)


def make_engine(config: EngineConfig) -> EngineSelection:
    return EngineSelection(StuckEngine(config.flow))


if __name__ == "__main__":
    ENGINES["torch"] = EngineSpec("tests.e2e.stuck_server", "torch, stuck")
    fields = dict(argument.split("=", 1) for argument in sys.argv[3:])
    # One thread that is stuck, and not the event loop's.
    stuck = {"engine": "torch", "instances": "1", "max_inline_seconds": "0"}
    sys.exit(main.run(read({"model_repository": sys.argv[2], **stuck, **fields})))
