"""Every question of the table gets its answer over every transport."""

import asyncio
import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.contract import grpc_calls, v2
from tests.contract.case import ANY, MADE, NPZ, PNG, PROBLEM, REQUEST_ID, Case
from tests.contract.table import CASES, NEIGHBOURS, PARTS
from tests.contract.transports import TRANSPORTS, ContractServer, Received, exchange, wire

# One process for all: each server starts once.
pytestmark = pytest.mark.xdist_group("contract")

PATIENCE_SECONDS = 20.0
_TIMING = re.compile(r"queue;dur=\d+\.\d{3}, compute;dur=\d+\.\d{3}")


class Servers:
    """One server for each set of settings, on one event loop."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._servers: dict[str, ContractServer] = {}

    def ask(self, transport: str, case: Case) -> Received:
        """Put a question."""

        async def exchange() -> Received:
            server = await self._server_of(case.settings)
            await server.repository.prepare(case.model)
            async with asyncio.timeout(PATIENCE_SECONDS):
                try:
                    return await TRANSPORTS[transport](server, case)
                finally:
                    await server.repository.renew()

        return self._runner.run(exchange())

    def ask_together(self, cases: list[Case]) -> list[Received]:
        """Put questions of one server over connections of their own, all at once."""

        async def exchange_all() -> list[Received]:
            server = await self._server_of(cases[0].settings)
            for case in cases:
                await server.repository.prepare(case.model)
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await exchange(server, [wire(case) for case in cases])

        return self._runner.run(exchange_all())

    def get(self, settings: Mapping[str, Any]) -> ContractServer:
        """A server by its settings."""
        return self._runner.run(self._server_of(settings))

    async def _server_of(self, settings: Mapping[str, Any]) -> ContractServer:
        key = repr(sorted(settings.items()))
        if key not in self._servers:
            self._servers[key] = ContractServer(settings)
            await self._servers[key].start()
        return self._servers[key]

    def close(self) -> None:
        """End all of them."""
        for server in self._servers.values():
            self._runner.run(server.stop())
        self._runner.close()


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    made = Servers()
    yield made
    made.close()


# Of the transports that cannot put every question.
_WHY_NOT = {"v2": v2.why_not, "grpc": grpc_calls.why_not}


def _parameters() -> Iterator[Any]:
    for transport in TRANSPORTS:
        for name, case in CASES.items():
            why_not = _WHY_NOT.get(transport)
            if why_not is not None and why_not(case):
                continue
            yield pytest.param(transport, case, id=f"{transport}-{name}")


@pytest.mark.parametrize(("transport", "case"), list(_parameters()))
def test_every_question_gets_its_answer(servers: Servers, transport: str, case: Case) -> None:
    received = servers.ask(transport, case)
    assert received.status == case.answer.status, received.body
    assert_answer(transport, case, received)


def test_what_is_refused_reaches_no_engine(servers: Servers) -> None:
    refused = {name: case for name, case in CASES.items() if 400 <= case.answer.status < 429}
    # That a flow solves no equations shows in its answer alone: this one is refused late.
    del refused["log_prob-evaluations of no flow"]
    # And how many rows are flagged, in their scores.
    del refused["score-more flagged rows than can be explained"]
    for name, case in refused.items():
        repository = servers.get(case.settings).repository
        calls = repository.calls()
        servers.ask("asgi", case)
        assert repository.calls() - calls in (0, 2 * (case.model == "full")), name
        assert isinstance(case.answer.body, bytes)
        assert case.method == "HEAD" or len(json.loads(case.answer.body)["detail"]) < 300, name


def test_all_questions_at_once_get_their_answers(servers: Servers) -> None:
    """Every operation, every model, good and bad: one turn of the loop, each gets what is its."""
    parts = (*servers.get({}).operations, "heads", "invalid", "versions")
    cases = [case for part in parts for case in PARTS[part] if not case.settings]
    for case, received in zip(cases, servers.ask_together(cases), strict=True):
        assert received.status == case.answer.status, received.body
        assert_answer("coalesced", case, received)


def assert_answer(transport: str, case: Case, received: Received) -> None:
    """What came is what must come, as far as the transport can say it."""
    if transport in _WHY_NOT:
        assert_same_in_v2(case, received)
    else:
        assert_headers(case, received)
        assert_body(case, received)


def test_every_case_has_a_name_of_its_own() -> None:
    assert len(CASES) == sum(map(len, PARTS.values()))


def test_every_operation_has_its_table(servers: Servers) -> None:
    """Answers and refusals of its own, and healthy neighbours: an operation without fails here."""
    for operation in servers.get({}).operations:
        assert operation in PARTS, f"docs/architecture.md asks for contract/table/{operation}.py"
        cases = PARTS[operation]
        missing = {200, 404, 422} - {case.answer.status for case in cases}
        assert not missing, f"tests/contract/table/{operation}.py has no case answered {missing}"
        assert all(case.operation == operation for case in cases)
        assert any(v2.why_not(case) is None for case in cases), operation
        assert (operation, "line") in NEIGHBOURS


def test_requests_of_every_operation_take_the_fast_path_and_share_a_batch(servers: Servers) -> None:
    server = servers.get({})
    for operation in server.operations:
        case = next((case for case in PARTS.get(operation, []) if case.name == "one row"), None)
        assert case, f"tests/contract/table/{operation}.py has no case called 'one row'"
        tensor = v2.tensor_of(operation)
        engine = "encode" if tensor == "x" else "decode"
        fast, together = server.heads.fast, server.heads.coalesced
        batches = len(server.repository.batches("line", engine))
        servers.ask("coalesced", case)
        assert server.heads.fast == fast + 5
        assert server.heads.coalesced == together + 5
        assert server.repository.batches("line", engine)[batches:] == [5]
        servers.ask("asgi", case)
        assert server.heads.fast == fast + 5


def assert_headers(case: Case, received: Received) -> None:
    """The names are exactly those expected, each once, and so are the values."""
    expected: dict[str, Any] = {
        "content-length": str(len(received.body)),
        "x-request-id": case.header("X-Request-Id"),
    }
    if received.status == 200:
        expected["server-timing"] = ANY
    expected |= case.answer.headers
    if case.method == "HEAD":
        expected["content-length"] = ANY
    expected = {name: value for name, value in expected.items() if value is not None}
    got = dict(received.headers)
    assert sorted(name for name, _ in received.headers) == sorted(expected)
    assert {name: got[name] for name in expected} == {
        name: got[name] if value in (ANY, MADE) else value for name, value in expected.items()
    }
    if "server-timing" in got:
        assert _TIMING.fullmatch(got["server-timing"])
    if case.answer.headers.get("x-request-id") is MADE:
        assert_made(got["x-request-id"], case)


def assert_made(identity: str, case: Case) -> None:
    """An id of the server's own is in the place of what the client sent."""
    assert identity != case.header("X-Request-Id")
    assert re.fullmatch(r"[!-~]{1,128}", identity)


def assert_body(case: Case, received: Received) -> None:
    """The bytes are those expected; of archives and pictures, what they hold."""
    expected, media = case.answer.body, dict(received.headers)["content-type"]
    if media == NPZ:
        assert isinstance(expected, dict)
        archive = np.load(io.BytesIO(received.body), allow_pickle=False)
        assert list(archive.files) == list(expected)
        for name, values in expected.items():
            np.testing.assert_array_equal(archive[name], values)
            assert archive[name].dtype == values.dtype
    elif media == PNG:
        assert np.asarray(Image.open(io.BytesIO(received.body))).tolist() == expected
    else:
        made = dict(received.headers)["x-request-id"]
        assert isinstance(expected, bytes)
        if case.answer.code is not None:
            expected = expected.replace(REQUEST_ID.encode(), made.encode())
        assert received.body == expected


def assert_same_in_v2(case: Case, received: Received) -> None:
    """The same error, or the same numbers under the same names."""
    headers = dict(received.headers)
    for name, value in case.answer.headers.items():
        if name not in ("content-type", "x-model", "x-model-version", "x-non-finite"):
            if value is MADE:
                assert_made(headers[name], case)
            else:
                assert headers[name] == value or value is ANY
    if case.answer.status != 200:
        content = json.loads(received.body)
        assert headers["content-type"] == PROBLEM
        assert (content["code"], content["status"]) == (case.answer.code, received.status)
        assert content["request_id"] == headers["x-request-id"]
        return
    assert _TIMING.fullmatch(headers["server-timing"])
    told = v2.answer(case, headers, received.body)
    assert isinstance(case.answer.body, bytes)
    if case.answer.body.startswith(b"\x93NUMPY"):
        first = {"log_prob": "log_prob", "score": "score", "encode": "z"}.get(case.operation, "x")
        wanted = np.load(io.BytesIO(case.answer.body)).tolist()
        assert v2.is_same(told[first], wanted), told
    else:
        assert v2.is_same(told, json.loads(case.answer.body)), told
