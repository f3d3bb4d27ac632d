"""How a continuous flow's equations were solved, from the engine to the client, row by row."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch

import models
from models.ode.call import SolveCall, SolveStatus
from service.contracts import Array, EngineOutput, ServedModel, SolverStats
from service.engines.torch import TorchEngine
from service.operations.failures import CODES
from service.telemetry import Metrics
from tests.service.batcher.batching import batcher, run, submitted
from tests.service.engines.fakes import Doubling, rows
from tests.service.fake_repository import FakeRepository, Linear, Tasked, app_over, ask, card, post


class Solving(Doubling):
    """A doubling engine that evaluates 10 x times and fails where x is 3."""

    def __call__(self, x: Array, context: Array | None) -> EngineOutput:
        value, log_det = super().__call__(x, context)
        first = x[:, 0]
        status = np.where(first == 3, int(SolveStatus.BUDGET_SPENT), 0)
        value[status > 0] = log_det[status > 0] = np.nan
        error = np.where(first == 5, 0.25, 0).astype(x.dtype)
        error[first == 6] = np.nan
        return value, log_det, SolverStats(status, (10 * first).astype(np.int64), error)


def test_the_reasons_are_those_of_the_solver() -> None:
    failed = [(status.value, status.name.lower()) for status in SolveStatus if status.value]
    assert [(code, CODES[code][1]) for code, _ in failed] == failed
    assert {code for code, (kind, _) in enumerate(CODES) if kind == "solver_failed"} == {
        code for code, _ in failed
    }


def test_each_request_gets_what_its_rows_took() -> None:
    async def test() -> None:
        metrics = Metrics()
        queue = batcher(Solving(), metrics, max_batch_rows=4)
        queue.start()
        tasks = await submitted(queue, rows(1, 3), rows(2), rows(4, 5, 6, 7, 8))
        answers = [await task for task in tasks]
        found = [answer.solver_stats for answer in answers]
        assert all(solves is not None for solves in found)
        taken = [solves.evaluations.tolist() for solves in found if solves is not None]
        assert taken == [[10, 30], [20], [40, 50, 60, 70, 80]]
        status = [solves.status.tolist() for solves in found if solves is not None]
        assert status == [[0, SolveStatus.BUDGET_SPENT], [0], [0] * 5]
        await queue.drain()
        labels = {"model": "toy", "version": "", "op": "encode"}
        sample = metrics.registry.get_sample_value
        assert sample("pushforward_ode_evaluations_count", labels) == 8
        assert sample("pushforward_ode_evaluations_sum", labels) == 360
        below = [
            sample("pushforward_ode_evaluations_bucket", {**labels, "le": f"{bound}.0"})
            for bound in (1, 2, 4, 8, 16, 32)
        ]
        assert below == [0, 0, 0, 0, 1, 3]

    run(test())


def test_discrete_flows_have_no_solves() -> None:
    async def test() -> None:
        queue = batcher(Doubling())
        queue.start()
        (task,) = await submitted(queue, rows(1, 2))
        assert (await task).solver_stats is None
        await queue.drain()

    run(test())


def ffjord(**changes: Any) -> models.Flow:
    torch.manual_seed(0)
    return models.build("ffjord", {"event_shape": [2], "hidden_features": [8], **changes})


def test_the_torch_engine_tells_what_the_flow_reports() -> None:
    flow = ffjord(num_blocks=2, divergence={"evaluation": "hutchinson", "num_probes": 3})
    engine = TorchEngine(flow)
    x = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    _, _, solves = engine.encode(x, None)
    call = SolveCall()
    with torch.no_grad():
        flow.encode(torch.from_numpy(x), call=call)
    reports = call.reports
    wanted = reports[0].evaluations + reports[1].evaluations
    assert solves.evaluations.tolist() == wanted.tolist()
    assert solves.status.tolist() == [0, 0, 0]
    errors = (reports[0].estimates + reports[1].estimates).std(1) / math.sqrt(3)
    np.testing.assert_allclose(solves.log_det_se, errors, rtol=1e-6)
    assert (solves.log_det_se > 0).all()


def test_a_row_that_fails_costs_its_neighbours_nothing() -> None:
    engine = TorchEngine(ffjord(solver={"max_evaluations": 500}))
    x = np.array([[0.5, 1], [1e30, -1e30], [2, -1]], np.float32)
    value, log_det, solves = engine.encode(x, None)
    alone, own, _ = engine.encode(x[[0, 2]], None)
    np.testing.assert_allclose(value[[0, 2]], alone, atol=1e-6)
    np.testing.assert_allclose(log_det[[0, 2]], own, atol=1e-6)
    failed = solves.status[1] != SolveStatus.SOLVED
    assert failed == np.isnan(log_det[1])


@pytest.fixture
def app() -> Any:
    """A server of two models: `flow` solves equations, `line` does not."""
    repository = FakeRepository((card("line", (3,)), card("flow", (3,))))
    queue = batcher(Solving(), max_batch_rows=8)

    class Started(Tasked):
        async def submit(self, x: Array, context: Array | None, deadline: float) -> Any:
            queue.start()
            try:
                return await queue.submit(x, context, deadline)
            finally:
                await queue.drain()

    repository.served["flow"] = ServedModel(card("flow", (3,)), Started(), Started())
    return app_over(repository)


@pytest.fixture
def drawing() -> tuple[Any, Linear]:
    """A server whose model `flow` has a queue for values alone, and that queue."""
    pixels = card("flow", (1, 2, 2), num_levels=256)
    repository = FakeRepository((pixels, card("line", (3,))))
    two, alone = repository.served["flow"], Linear((1, 2, 2), is_encode=False)
    repository.served["flow"] = ServedModel(pixels, two.encode, two.decode, alone)
    return app_over(repository), alone


def test_samples_without_log_prob_skip_its_work(drawing: tuple[Any, Linear]) -> None:
    app, alone = drawing
    both = content(app, "/sample", num_samples=2, seed=1)
    assert not alone.calls
    told = content(app, "/sample", num_samples=2, seed=1, return_log_prob=False)
    assert told == {key: value for key, value in both.items() if key != "log_prob"}
    assert len(alone.calls) == 1


def test_pictures_hold_no_log_prob(drawing: tuple[Any, Linear]) -> None:
    app, alone = drawing
    for asked, calls in (({}, 1), ({"return_log_prob": True}, 1)):
        request = {"model": "flow", **asked}
        answer = post(app, "/sample", json=request, headers={"accept": "image/png"})
        assert answer.headers["content-type"] == "image/png"
        assert len(alone.calls) == calls


def content(app: Any, path: str = "/log_prob", **request: Any) -> Any:
    answer = post(app, path, json={"model": "flow"} | request)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("is_binary", [True, False])
def test_one_probe_has_no_standard_error_and_v2_says_so(app: Any, is_binary: bool) -> None:
    request = inference(rows(1, 6), parameters={"binary_data_output": is_binary})
    answer = post(app, INFER, json=request)
    assert b"one probe" in answer.content
    assert "x-failures" not in answer.headers
    if not is_binary:
        assert answer.json()["outputs"][-1]["data"] == [0, None]
        assert answer.json()["outputs"][-1]["name"] == "log_prob_se"


def test_an_engine_with_one_probe_knows_no_standard_error() -> None:
    engine = TorchEngine(ffjord(divergence={"evaluation": "hutchinson", "num_probes": 1}))
    _, log_det, solves = engine.encode(np.ones((2, 2), np.float32), None)
    assert np.isfinite(log_det).all()
    assert np.isnan(solves.log_det_se).all()


INFER = "/v2/models/flow/infer"


def inference(x: Any, **more: Any) -> dict[str, Any]:
    data = np.asarray(x)
    given = {"name": "x", "shape": data.shape, "datatype": "FP32", "data": data.tolist()}
    return {"inputs": [given], **more}


def test_v2_tells_which_rows_failed_and_why(app: Any) -> None:
    answer = post(app, INFER, json=inference(rows(1, 3, 2)))
    assert answer.json()["parameters"] == {
        "failures": [
            {"row": 1, "status": "solver_failed", "reason": "budget_spent", "evaluations": 30}
        ]
    }
    assert answer.json()["non_finite"] == [1]
    assert "x-failures" not in answer.headers
    assert [one["name"] for one in answer.json()["outputs"]] == [
        *("z", "log_det", "log_prob"),
        "status",
    ]
    assert answer.json()["outputs"][-1]["data"] == [0, SolveStatus.BUDGET_SPENT, 0]


@pytest.mark.parametrize("wanted", [None, ["log_prob"]], ids=["all", "one"])
def test_v2_tells_it_beside_bytes_too(app: Any, wanted: list[str] | None) -> None:
    request = inference(rows(1, 3, 2, 3), parameters={"binary_data_output": True})
    if wanted is not None:
        request["outputs"] = [{"name": name} for name in wanted]
    answer = post(app, INFER, json=request)
    assert answer.headers["x-failures"] == "2"
    end = int(answer.headers["inference-header-content-length"])
    told = json.loads(answer.content[:end])
    assert [failure["row"] for failure in told["parameters"]["failures"]] == [1, 3]
    status = told["outputs"][-1]
    assert (status["name"], status["datatype"], status["shape"]) == ("status", "INT32", [4])
    values = np.frombuffer(answer.content[-status["parameters"]["binary_data_size"] :], "<i4")
    assert values.tolist() == [0, SolveStatus.BUDGET_SPENT, 0, SolveStatus.BUDGET_SPENT]


@pytest.mark.parametrize("is_binary", [True, False])
def test_v2_tells_evaluations_beside_the_outputs_that_are_named(app: Any, is_binary: bool) -> None:
    parameters = {"binary_data_output": is_binary, "return_evaluations": True}
    request = inference(rows(1, 2), parameters=parameters, outputs=[{"name": "log_prob"}])
    answer = post(app, INFER, json=request)
    end = int(answer.headers.get("inference-header-content-length", len(answer.content)))
    outputs = json.loads(answer.content[:end])["outputs"]
    assert [(one["name"], one["datatype"]) for one in outputs] == [
        ("log_prob", "FP32"),
        ("evaluations", "INT64"),
    ]
    told = np.frombuffer(answer.content[-16:], "<i8").tolist() if is_binary else outputs[1]["data"]
    assert told == [10, 20]


@pytest.mark.parametrize("is_binary", [True, False])
def test_v2_says_nothing_where_all_went_well(app: Any, is_binary: bool) -> None:
    answer = post(app, INFER, json=inference(rows(1), parameters={"binary_data_output": is_binary}))
    assert "x-failures" not in answer.headers
    assert b"parameters" not in answer.content or is_binary
    assert b"failures" not in answer.content
    assert b"status" not in answer.content


@pytest.mark.parametrize("wanted", [["log_prob"], None], ids=["one", "all"])
def test_v2_gives_estimates_their_standard_error(app: Any, wanted: list[str] | None) -> None:
    asked = None if wanted is None else [{"name": name} for name in wanted]
    told = post(app, INFER, json=inference(rows(1, 5), outputs=asked)).json()["outputs"]
    found = {one["name"]: one["data"] for one in told}
    if wanted is None:
        assert found["log_prob_se"] == [0, 0.25]
    else:
        assert list(found) == wanted


def test_the_document_has_the_field(app: Any) -> None:
    parameters = ask(app, "GET", "/openapi.json").json()["paths"]["/log_prob"]["post"]["parameters"]
    assert "return_evaluations" in {parameter["name"] for parameter in parameters}
