"""Which requests of a coalesced batch are logged and counted as having anomalies: each once."""

import asyncio
import logging
from typing import Any

import pytest

from service.operations.score import Score
from tests.contract.backend import calibration_of
from tests.contract.case import Case, ok
from tests.contract.transports import TRANSPORTS, ContractServer, Received, exchange, wire

CALM, ODD = [0, 0, 0], [0, 16, 0]
# By request id: the rows of a request, and how many are flagged.
ASKED: dict[str, tuple[list[list[int]], int]] = {
    "calm-1": ([CALM], 0),
    "odd-1": ([ODD], 1),
    "odd-2": ([ODD], 1),
    "many": ([ODD, CALM, ODD], 2),
    "calm-2": ([CALM], 0),
    "odd-3": ([ODD], 1),
}


def case(model: str, identity: str, rows: Any, **fields: Any) -> Case:
    body = {"model": model, "x": rows, "alpha": 0.1} | fields
    headers = {"X-Request-Id": identity}
    return Case(identity, "score", body, ok(b""), headers=headers)


def ask_together(cases: list[Case], *, times: int = 1) -> tuple[list[Received], str]:
    """Ask for all of them in one turn of the loop; give the last answers, and the metrics."""

    async def ask() -> tuple[list[Received], str]:
        server = ContractServer({})
        await server.start()
        try:
            for _ in range(times):
                received = await exchange(server, [wire(one) for one in cases])
            return received, server.metrics.render().decode()
        finally:
            await server.stop()

    with asyncio.Runner() as runner:
        return runner.run(ask())


@pytest.mark.parametrize("model", ["judged", "judged_flow"])
def test_each_request_of_a_batch_is_logged_once_by_its_own_id(
    model: str, caplog: pytest.LogCaptureFixture
) -> None:
    cases = [case(model, identity, rows) for identity, (rows, _) in ASKED.items()]
    with caplog.at_level(logging.INFO, "service.operations.score"):
        # The second time the requests of one row are known, and read together.
        received, metrics = ask_together(cases, times=2)
    assert [one.status for one in received] == [200] * len(ASKED)
    for identity, answer in zip(ASKED, received, strict=True):
        assert dict(answer.headers)["x-request-id"] == identity
    calibration = calibration_of(model)
    assert calibration is not None
    assert sorted(record.getMessage() for record in caplog.records) == sorted(
        f"request {identity}: {flagged} of {len(rows)} rows are anomalies, model {model} 3, "
        f"calibration {calibration.id}"
        for identity, (rows, flagged) in ASKED.items()
        if flagged
        for _ in range(2)
    )
    flagged = 2 * sum(count for _, count in ASKED.values())
    assert f'pushforward_anomalies_total{{model="{model}",version="3"}} {flagged}.0' in metrics


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_fails_in_noting_an_answer_costs_nobody_the_answer(
    transport: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no room for the note")

    async def ask() -> Received:
        server = ContractServer({})
        await server.start()
        try:
            return await TRANSPORTS[transport](server, case("judged", "odd", [ODD]))
        finally:
            await server.stop()

    monkeypatch.setattr(Score, "observe", fail)
    with asyncio.Runner() as runner:
        assert runner.run(ask()).status == 200
    assert "an answer of score could not be noted" in caplog.messages
