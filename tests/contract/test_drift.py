"""Which rows of an answer the drift test is given, over every transport: each once, in order."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.contract.backend import calibration_of
from tests.contract.grpc_calls import why_not
from tests.contract.table import CASES
from tests.contract.transports import TRANSPORTS, ContractServer

# Of cases of `judged`, what counts.
SCORES = {
    "nothing decides": [10.0068, 2.7568, 19.7568],
    "alpha": [10.0068, 2.7568, 19.7568],
    "one row by alpha": [19.7568],
    "fdr over the request": [10.0068, 2.7568, 19.7568],
    "explained": [10.0068, 2.7568, 19.7568],
    "not observed": [],
    "one row not observed": [],
    "an invalid row is not flagged": [10.0068, 19.7568],
    "invalid rows alone": [],
}
# What the two neighbours of coalesced requests add.
NEIGHBOURS = [12.2568, 3.1318]


class KeepingTest:
    """Keeps the scores that it is given."""

    windows = crossings = 0
    log_value = log_max = 0.0

    def __init__(self) -> None:
        self.seen: list[float] = []

    def update(self, scores: NDArray[np.float64]) -> None:
        self.seen += scores.tolist()


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="module")
def server(runner: asyncio.Runner) -> Iterator[ContractServer]:
    async def make() -> ContractServer:
        made = ContractServer({})
        await made.start()
        return made

    made = runner.run(make())
    yield made
    runner.run(made.stop())


@pytest.mark.parametrize(
    ("name", "transport"),
    [
        (name, transport)
        for name in SCORES
        for transport in TRANSPORTS
        if transport != "grpc" or why_not(CASES[f"score-{name}"]) is None
    ],
)
def test_rows_are_tested_once(
    runner: asyncio.Runner, server: ContractServer, name: str, transport: str
) -> None:
    calibration = calibration_of("judged")
    assert calibration is not None
    test, drift = KeepingTest(), server.metrics.drift
    drift.forget("judged", version="3")
    drift.watch("judged", calibration.id, lambda: test, 1e9, version="3")
    runner.run(TRANSPORTS[transport](server, CASES[f"score-{name}"]))
    server.metrics.render()
    added = NEIGHBOURS if transport == "coalesced" else []
    assert sorted(test.seen) == pytest.approx(sorted(SCORES[name] + added), abs=1e-3)
    mine = [one for one in test.seen if min(abs(one - other) for other in NEIGHBOURS) > 1e-3]
    assert mine == pytest.approx(SCORES[name], abs=1e-3)
