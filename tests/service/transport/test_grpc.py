"""The Open Inference Protocol over gRPC: what the contract's table cannot say of it."""

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hypothesis import given, settings
from hypothesis import strategies as st

from service.codec.v2_tensors import DATATYPES
from service.errors import Unauthorized
from service.transport.grpc.messages import SERVICE, message_class
from tests.contract.grpc_calls import CONTENTS
from tests.service.transport.grpc_server import Asking, asking, never, outputs, question, run

ROWS = np.array([[2, 4, 6], [8, 0, 2]], np.float32)
Z = [[1.0, 2.0, 3.0], [4.0, 0.0, 1.0]]
KEY = "a-key-of-sixteen-letters"
REQUEST = message_class("ModelInferRequest")


def test_every_datatype_comes_as_bytes_or_as_values() -> None:
    async def test(client: Asking) -> None:
        for datatype, code in DATATYPES.items():
            rows = ROWS.astype(code)
            for raw in (True, False) if datatype in CONTENTS else (True,):
                answer = await client.call("ModelInfer", question(rows, datatype, raw=raw))
                assert outputs(answer)["z"].tolist() == Z, (datatype, raw)

    run(test)


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"datatype": "FP16"}, "bad_dtype", "x: FP16 has no contents, send it in raw_input"),
        ({"datatype": "BYTES"}, "bad_dtype", "x: expected a datatype out of FP16"),
        ({"datatype": "INT8", "ints": [128, 0, 0]}, "bad_dtype", "whole numbers that fit INT8"),
        ({"datatype": "UINT16", "uints": [2**16, 0, 0]}, "bad_dtype", "that fit UINT16"),
        ({"ints": [1, 2, 3]}, "bad_dtype", "FP32 stands in fp32_contents, got int_contents"),
        ({"floats": [1, 2]}, "shape_mismatch", "takes 3 values, fp32_contents has 2"),
        ({}, "missing_field", "x: expected fp32_contents or raw_input_contents"),
        ({"raw": [b"1234"]}, "shape_mismatch", "takes 12 bytes, raw_input_contents[0] has 4"),
        ({"raw": [bytes(12), b""]}, "malformed_body", "expected one for each of the 1 inputs"),
        ({"raw": [bytes(12)], "floats": [1]}, "invalid_parameter", "got both"),
        ({"shape": [2**62, 2**62, 2**62], "raw": [b""]}, "shape_mismatch", "bytes, raw_input"),
        ({"shape": [2**40] * 3, "floats": [1]}, "shape_mismatch", "values, fp32_contents has 1"),
        ({"shape": [-1, 3], "floats": [1]}, "shape_mismatch", "positive sizes, got [-1, 3]"),
        ({"shape": [0, 3]}, "shape_mismatch", "positive sizes, got [0, 3]"),
        ({"shape": []}, "shape_mismatch", "positive sizes, got []"),
        ({"shape": [1] * 17}, "shape_mismatch", "positive sizes"),
        ({"twice": True, "floats": [1, 2, 3]}, "invalid_parameter", "inputs: 'x' twice"),
        ({"shared": True}, "invalid_parameter", "shared memory is not offered"),
        ({"name": "", "shape": []}, "missing_field", "inputs: expected a name for each"),
    ],
    ids=str,
)
def test_a_tensor_that_is_not_what_it_says_is_refused(
    change: dict[str, Any], code: str, said: str
) -> None:
    message = REQUEST(model_name="line", raw_input_contents=change.get("raw", ()))
    tensor = message.inputs.add(
        name=change.get("name", "x"),
        datatype=change.get("datatype", "FP32"),
        shape=change.get("shape", [1, 3]),
    )
    tensor.contents.int_contents.extend(change.get("ints", ()))
    tensor.contents.uint_contents.extend(change.get("uints", ()))
    tensor.contents.fp32_contents.extend(change.get("floats", ()))
    if "shared" in change:
        tensor.parameters["shared_memory_region"].string_param = "there"
    if "twice" in change:
        message.inputs.append(tensor)

    async def test(client: Asking) -> None:
        status, details, found = await client.refusal("ModelInfer", message)
        assert (status, found) == ("INVALID_ARGUMENT", code)
        assert said in details
        assert client.repository.queue("line", "encode").calls == []

    run(test)


def test_parameters_of_schedulers_mean_nothing_and_numbers_may_be_text() -> None:
    message = question(ROWS, id="mine")
    message.parameters["sequence_id"].int64_param = 7
    message.parameters["priority"].uint64_param = 1
    message.parameters["triton_enable_empty_final_response"].bool_param = True
    message.parameters["timeout"].string_param = ""
    message.parameters["timeout"].ClearField("parameter_choice")
    draw = REQUEST(model_name="line")
    draw.parameters["num_samples"].string_param = "2"
    draw.parameters["seed"].uint64_param = 2**63 + 1
    draw.parameters["temperature"].double_param = 0.5

    async def test(client: Asking) -> None:
        answer = await client.call("ModelInfer", message)
        assert (answer.id, answer.model_version) == ("mine", "3")
        drawn = await client.call("ModelInfer", draw)
        assert outputs(drawn)["x"].shape == (2, 3)
        assert drawn.parameters["seed"].uint64_param == 2**63 + 1
        message.parameters["colour"].bool_param = True
        assert (await client.refusal("ModelInfer", message))[2] == "unknown_field"

    run(test)


def test_what_is_not_finite_comes_as_it_is() -> None:
    async def test(client: Asking) -> None:
        rows = np.array([[3e38, 0, 0]], np.float32)
        message = REQUEST(model_name="line")
        message.inputs.add(name="z", datatype="FP32", shape=rows.shape)
        message.raw_input_contents.append(rows.tobytes())
        call = client.begin("ModelInfer", message)
        answer = await call
        assert outputs(answer)["x"][0, 0] == np.inf
        assert outputs(answer)["status"].tolist() == [7]
        assert '"infinite"' in answer.parameters["failures"].string_param
        told = dict(await call.trailing_metadata())
        assert (told["x-failures"], told["x-failed-rows"]) == ("1", "0")
        assert told["server-timing"].startswith("queue;dur=1.000")

    run(test)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_bytes_are_answered_as_a_fault_of_the_server(data: st.DataObject) -> None:
    whole = bytearray(question(ROWS, raw=data.draw(st.booleans())).SerializeToString())
    body = data.draw(
        st.binary(max_size=64)
        | st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)).map(
            lambda change: bytes(whole[: change[0]] + bytes([change[1]]) + whole[change[0] + 1 :])
        )
        | st.integers(0, len(whole)).map(lambda end: bytes(whole[:end]))
    )
    status, details, code = _RUNNER.refuse(body)
    assert status in ("OK", "INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE"), (details, code)
    assert (status == "OK") == (code == "")


class _Runner:
    """One server for all bodies."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None

    def refuse(self, body: bytes) -> tuple[str, str, str]:
        if self._runner is None:
            self._runner = asyncio.Runner()
            self._context = asking()
            self._client = self._runner.run(self._context.__aenter__())
        return self._runner.run(self._client.refusal("ModelInfer", body))

    def close(self) -> None:
        if self._runner is not None:
            self._runner.run(self._context.__aexit__(None, None, None))
            self._runner.close()


_RUNNER = _Runner()


@pytest.fixture(scope="module", autouse=True)
def _close_runner() -> Any:
    yield
    _RUNNER.close()


def test_the_server_its_models_and_their_statistics() -> None:
    async def test(client: Asking) -> None:
        assert (await client.call("ServerLive")).live
        assert (await client.call("ServerReady")).ready
        server = await client.call("ServerMetadata")
        assert (server.name, list(server.extensions)[:1]) == ("pushforward", ["binary_tensor_data"])
        name = message_class("ModelMetadataRequest")
        known = await client.call("ModelMetadata", name(name="wide"))
        assert list(known.versions) == ["3"]
        assert [(one.name, one.datatype, list(one.shape)) for one in known.inputs] == [
            ("x", "FP64", [-1, 2]),
            ("z", "FP64", [-1, 2]),
        ]
        found = await client.refusal("ModelMetadata", name(name="wide", version="4"))
        assert found[0] == "NOT_FOUND"
        asked = [("line", ""), ("line", "3"), ("line", "4"), ("none", "")]
        ready = [await client.call("ModelReady", name(name=n, version=v)) for n, v in asked]
        assert [one.ready for one in ready] == [True, True, False, False]
        index = await client.call("RepositoryIndex")
        assert index.models[-1].state == "UNAVAILABLE"
        only_ready = message_class("RepositoryIndexRequest")(ready=True)
        assert len((await client.call("RepositoryIndex", only_ready)).models) == 7
        every = await client.call("ModelStatistics")
        assert len(every.model_stats) == 7
        found = await client.refusal("ModelStatistics", name(version="3"))
        assert found[::2] == ("INVALID_ARGUMENT", "missing_field")
        await client.call("ModelInfer", question(ROWS))
        (line,) = (await client.call("ModelStatistics", name(name="line"))).model_stats
        assert line.inference_stats.success.count == 1
        client.repository.is_ready = client.repository.is_alive = False
        assert not (await client.call("ServerLive")).live
        assert not (await client.call("ServerReady")).ready

    run(test)


def test_a_version_is_named_once() -> None:
    twice = {"name": "line@3", "version": "4"}
    messages = {
        "ModelMetadata": message_class("ModelMetadataRequest")(**twice),
        "ModelStatistics": message_class("ModelStatisticsRequest")(**twice),
        "ModelInfer": question(ROWS, model_name="line@3", model_version="4"),
    }

    async def test(client: Asking) -> None:
        for method, message in messages.items():
            status, detail, code = await client.refusal(method, message)
            assert (status, code) == ("NOT_FOUND", "model_not_found")
            assert "expected one version, got 'line@3' and the version '4'" in detail

    run(test)


def test_models_are_loaded_and_unloaded_where_that_is_allowed() -> None:
    load = message_class("RepositoryModelLoadRequest")

    async def allowed(client: Asking) -> None:
        await client.call("RepositoryModelLoad", load(model_name="line"))
        await client.call("RepositoryModelUnload", load(model_name="line"))
        assert client.repository.history == ["load line", "unload line"]
        found = await client.refusal("RepositoryModelLoad", load(model_name="broken"))
        assert found[::2] == ("INVALID_ARGUMENT", "model_refused")
        message = load(model_name="line")
        message.parameters["file:1/model"].bytes_param = b"weights"
        found = await client.refusal("RepositoryModelLoad", message)
        assert "models come from the repository alone" in found[1]

    async def not_allowed(client: Asking) -> None:
        found = await client.refusal("RepositoryModelLoad", load(model_name="line"))
        assert found[0] == "UNIMPLEMENTED"

    run(allowed, enable_model_control=True)
    run(not_allowed)


def test_a_key_is_asked_for_before_the_message_is_received() -> None:
    async def test(client: Asking) -> None:
        for metadata in ((), (("authorization", "Bearer wrong"),)):
            found = await client.refusal("ModelInfer", question(ROWS), metadata=metadata)
            assert found[::2] == ("UNAUTHENTICATED", "unauthorized")
        slow = client.channel.stream_unary(f"/{SERVICE}/ModelInfer")(never())
        assert await slow.code() is grpc.StatusCode.UNAUTHENTICATED
        for metadata in ((("authorization", f"Bearer {KEY}"),), (("x-api-key", KEY),)):
            await client.call("ModelInfer", question(ROWS), metadata=metadata)
        assert (await client.refusal("ServerMetadata"))[0] == "UNAUTHENTICATED"
        assert (await client.call("ServerReady")).ready
        health = health_pb2_grpc.HealthStub(client.channel)
        ask = health_pb2.HealthCheckRequest
        assert (await health.Check(ask())).status == health_pb2.HealthCheckResponse.SERVING
        call = health.Check(ask(service="line"))
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
        await health.Check(ask(service="line"), metadata=(("x-api-key", KEY),))

    run(test, api_keys=(KEY,))


def test_what_is_too_large_is_not_to_be_sent_again() -> None:
    async def test(client: Asking) -> None:
        found = await client.refusal("ModelInfer", bytes(1001))
        assert found[::2] == ("OUT_OF_RANGE", "too_large")
        bomb = bytes(4 * 2**20)
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            found = await client.refusal("ModelInfer", bomb, compression=compression)
            assert found[0] == "RESOURCE_EXHAUSTED"
        # Nobody reads the status of what gRPC itself refused.
        assert client.counted(499, "") == 2
        rows = question(np.zeros((30, 3), np.float32))
        found = await client.refusal("ModelInfer", rows)
        assert found[::2] == ("OUT_OF_RANGE", "too_large")
        await client.call("ModelInfer", question(ROWS), compression=grpc.Compression.Gzip)

    run(test, max_body_bytes=1000, max_request_rows=20)


def test_a_deadline_and_a_cancelled_call_leave_the_queue() -> None:
    async def test(client: Asking) -> None:
        for end in ("deadline", "cancel"):
            queue = client.repository.held()
            timeout = 0.2 if end == "deadline" else None
            call = client.begin("ModelInfer", question(ROWS), timeout=timeout)
            assert queue.entered is not None
            await queue.entered.wait()
            if end == "cancel":
                call.cancel()
            code = await call.code()
            assert code.name == {"deadline": "DEADLINE_EXCEEDED", "cancel": "CANCELLED"}[end]
            for _ in range(100):
                if queue.was_cancelled:
                    break
                await asyncio.sleep(0.01)
            assert queue.was_cancelled, end
            queue.was_cancelled = False

    run(test)


def test_the_deadline_of_a_call_is_the_deadline_of_its_rows() -> None:
    async def test(client: Asking) -> None:
        queue, left = client.repository.queue("line", "encode"), []

        async def submit(rows: Any, context: Any, deadline: float) -> Any:
            left.append(deadline - time.monotonic())
            return await type(queue).submit(queue, rows, context, deadline)

        queue.submit = submit  # type: ignore[method-assign]
        for timeout, seconds in ((None, 30.0), (2.5, 2.5), (100.0, 30.0)):
            await client.call("ModelInfer", question(ROWS), timeout=timeout)
            assert left.pop() == pytest.approx(seconds, abs=1.0)

    run(test)


def test_a_message_that_does_not_come_is_waited_for_as_long_as_a_body() -> None:
    async def test(client: Asking) -> None:
        call = client.channel.stream_unary(f"/{SERVICE}/ModelInfer")(never())
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert dict(await call.trailing_metadata())["problem-code"] == "body_timeout"

    run(test, request_timeout_seconds=0.2)


def test_a_stream_answers_each_message_in_its_turn() -> None:
    async def test(client: Asking) -> None:
        stream = client.stream()
        told = []
        for message in (question(ROWS, id="1"), question(ROWS[:, :2]), question(ROWS, id="3")):
            await stream.write(message)
            told.append(await stream.read())
        assert [one.infer_response.id for one in told] == ["1", "", "3"]
        assert [bool(one.error_message) for one in told] == [False, True, False]
        parameters = told[1].infer_response.parameters
        assert parameters["problem-code"].string_param == "shape_mismatch"
        assert parameters["x-request-id"].string_param
        client.server.begin_drain()
        assert await stream.code() is grpc.StatusCode.UNAVAILABLE

    run(test)


def test_a_stream_asks_for_its_key_before_it_reads(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(KEY)

    async def test(client: Asking) -> None:
        for metadata in ((), (("x-api-key", "wrong"),)):
            stream = client.stream(never(), metadata=metadata)
            assert await stream.code() is grpc.StatusCode.UNAUTHENTICATED
            assert dict(await stream.trailing_metadata())["problem-code"] == "unauthorized"
        assert client.counted(401, "") == 2
        twice = client.stream(never(), metadata=(("x-api-key", KEY), ("x-api-key", KEY)))
        assert await twice.code() is grpc.StatusCode.INVALID_ARGUMENT
        stream = client.stream(metadata=(("x-api-key", KEY),))
        await stream.write(question(ROWS))
        assert not (await stream.read()).error_message
        assert client.counted(200, "line") == 1

    run(test, api_key_file=keys)


def test_a_stream_ends_once_its_key_is_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(client: Asking) -> None:
        stream = client.stream(metadata=(("x-api-key", KEY),))
        await stream.write(question(ROWS))
        await stream.read()
        monkeypatch.setattr(client.app.auth, "check", refuse)
        await stream.write(question(ROWS))
        assert await stream.code() is grpc.StatusCode.UNAUTHENTICATED

    def refuse(_: Any) -> Any:
        raise Unauthorized("the key is not one of this server's")

    run(test, api_keys=(KEY,))


def test_calls_whose_message_has_not_come_are_let_go_at_once() -> None:
    async def test(client: Asking) -> None:
        begin = client.channel.stream_unary(f"/{SERVICE}/ModelInfer")
        call = begin(never())
        await asyncio.sleep(0.02)
        client.server.begin_drain()
        began = time.monotonic()
        for late in (call, begin(never())):
            assert await late.code() is grpc.StatusCode.UNAVAILABLE
            assert dict(await late.trailing_metadata())["problem-code"] == "not_ready"
        assert await client.call("ModelInfer", question(ROWS)), "its message is there"
        await client.server.stop(10.0)
        assert time.monotonic() - began < 2.0

    run(test)


def test_health_is_watched_until_the_end_and_calls_are_answered() -> None:
    async def test(client: Asking) -> None:
        health = health_pb2_grpc.HealthStub(client.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="line"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        unknown = health.Watch(health_pb2.HealthCheckRequest(service="none"))
        assert (await unknown.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        queue = client.repository.held()
        call = client.begin("ModelInfer", question(ROWS))
        assert queue.entered is not None
        assert queue.gate is not None
        await queue.entered.wait()
        ending = asyncio.ensure_future(client.server.stop(10.0))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert not ending.done()
        queue.gate.set()
        assert outputs(await call)["z"].tolist() == Z
        began = time.monotonic()
        await ending
        assert time.monotonic() - began < 2.0

    run(test)


@pytest.mark.parametrize("grace", [0.0, 0.2, 0.5])
def test_calls_are_cut_off_once_the_grace_is_over(grace: float) -> None:
    async def test(client: Asking) -> None:
        queue = client.repository.held()
        assert queue.entered is not None
        call = client.begin("ModelInfer", question(ROWS))
        await queue.entered.wait()
        reflecting = reflection_pb2_grpc.ServerReflectionStub(client.channel).ServerReflectionInfo()
        await reflecting.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        await reflecting.read()
        await client.server.stop(grace)
        assert await call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        await client.server.stop(grace)

    run(test)


def test_reflection_describes_the_service() -> None:
    async def test(client: Asking) -> None:
        stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
        ask = reflection_pb2.ServerReflectionRequest
        stream = stub.ServerReflectionInfo()
        await stream.write(ask(list_services=""))
        listed = (await stream.read()).list_services_response.service
        assert SERVICE in [one.name for one in listed]
        for symbol in (SERVICE, "grpc.health.v1.Health"):
            await stream.write(ask(file_containing_symbol=symbol))
            assert (await stream.read()).file_descriptor_response.file_descriptor_proto
        await stream.done_writing()

    run(test)


def test_calls_are_counted_as_over_http() -> None:
    async def test(client: Asking) -> None:
        call = client.begin("ModelInfer", question(ROWS), metadata=(("x-request-id", "mine"),))
        await call
        assert dict(await call.trailing_metadata())["x-request-id"] == "mine"
        await client.refusal("ModelInfer", question(ROWS, model_name="none"))
        assert client.counted(200, "line") == 1
        assert client.counted(404, "") == 1

    run(test)
