"""Continuous flows in captured graphs, on a runtime of the CPU: the flow's own numbers."""

import copy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from models.checkpoints import golden
from models.checkpoints.folder import Checkpoint
from models.fold import fold
from models.ode.call import SolveCall, SolveStatus, join_reports
from models.registry import build
from service.contracts import Array
from service.engines.cuda.buffers import RowShapes
from service.engines.cuda.graphed import CapturedBatch
from service.engines.cuda.graphs import capture_flow
from service.engines.cuda.solved import SolvedBatch
from service.engines.engine import PipelinedEngine
from service.engines.selection import EngineConfig
from service.engines.torch import TorchEngine
from tests.cases import CASES, perturb

from . import flows
from .fakes import FakeRuntime

pytestmark = pytest.mark.xdist_group("folded")

# Two solves with a batch norm between; a field with context; one that does not fold.
FLOWS = ["ffjord_stack", "ffjord_flow_matching_classes", "ffjord_hyper"]


@cache
def checkpoint(name: str) -> Checkpoint:
    """A case in float32 at the solver's default tolerances, with a few golden rows."""
    case = CASES[name]
    exact = build(case.family, {**case.config, "solver": {}}).double()
    exact = perturb(exact, case.scale).eval().float().double()
    record = golden.record(exact, golden.draw(exact, rows=4))
    return Checkpoint(Path(name), copy.deepcopy(exact).float(), exact, record)


@cache
def engine(name: str) -> PipelinedEngine:
    config = EngineConfig(checkpoint(name), threads=1, max_rows=2)
    flow, runtime = fold(config.flow), FakeRuntime()
    selection = capture_flow(flow, config, "graphs", runtime, time_replay=lambda one: 1.0)
    facts = selection.comparison["graphs"]
    assert list(facts) == ["encode", "decode", "generate"]
    assert all(one["batch_sizes"] == [2] for one in facts.values())
    assert isinstance(selection.engine, PipelinedEngine)
    return selection.engine


def rows(name: str) -> tuple[Array, Array, Array | None]:
    found = {key: value.float().numpy() for key, value in checkpoint(name).record.items()}
    return found["x"], found["z"], found.get("context")


@pytest.mark.parametrize("name", FLOWS)
def test_graphs_solve_as_the_flow_does(name: str) -> None:
    graphs = engine(name)
    flow = checkpoint(name).flow
    x, z, context = rows(name)
    condition = None if context is None else context[:2]
    for operation, given in (("encode", x[:2]), ("decode", z[:2])):
        call = SolveCall()
        with torch.inference_mode():
            arguments = (torch.from_numpy(given), condition)
            tensors = [None if one is None else torch.as_tensor(one) for one in arguments]
            value, log_det = getattr(flow, operation)(*tensors, call=call)
        report = join_reports(call.reports)
        assert report is not None
        got, log_dets, stats = getattr(graphs, operation)(given, condition)
        np.testing.assert_allclose(got, value.numpy(), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(log_dets, log_det.numpy(), rtol=0, atol=1e-4)
        assert stats.status.tolist() == [SolveStatus.SOLVED] * 2
        assert stats.evaluations.tolist() == report.evaluations.tolist()
        assert stats.status.dtype == stats.evaluations.dtype == np.int64
    found, zeros, _ = graphs.generate(z[:2], condition)
    np.testing.assert_allclose(found, x[:2], rtol=1e-4, atol=1e-4)
    assert zeros.tolist() == [0, 0]


def batch(runtime: FakeRuntime, size: int = 4) -> SolvedBatch:
    flow = checkpoint("ffjord_stack").flow
    return SolvedBatch(flow.encode, RowShapes((3,), (3,), None, torch.float32), size, runtime)


def solve(one: CapturedBatch, x: Array) -> list[Array]:
    one.buffers.write(x, None)
    one.buffers.poison_outputs()
    one.replay().synchronize()
    value, log_det, stats = one.buffers.read(len(x))
    return [value, log_det, *stats]


def test_a_row_keeps_its_bits_beside_padding_nan_and_others() -> None:
    one = batch(FakeRuntime())
    x, _, _ = rows("ffjord_stack")
    alone = solve(one, x[:1])
    beside = [x[:1], 3 * x[1:2], np.full_like(x[:1], np.nan)]
    for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        got = solve(one, np.concatenate([beside[index] for index in order]))
        for a, b in zip(alone, got, strict=True):
            assert a[0].tobytes() == b[order.index(0)].tobytes()
    assert got[2].tolist() == [SolveStatus.NON_FINITE, SolveStatus.SOLVED, SolveStatus.SOLVED]


def test_the_next_steps_are_launched_before_the_last_count_is_read() -> None:
    runtime = FakeRuntime()
    one = batch(runtime)
    x, _, _ = rows("ffjord_stack")
    one.buffers.write(x, None)
    event = one.replay()
    assert not event.query()
    assert len(runtime.launched) == 2  # all before the first solve, and its first steps
    most = 0
    compute = runtime.compute

    def watch(until: int) -> None:
        nonlocal most
        most = max(most, len(runtime.launched))
        compute(until)

    runtime.compute = watch
    event.synchronize()
    assert event.query()
    # A step too many of the first solve, all up to the second, its first steps and the next.
    assert most == 4
    first = runtime.computed
    event.synchronize()
    assert runtime.computed == first


def test_two_batches_may_be_pending() -> None:
    graphs = engine("ffjord_stack")
    x, _, _ = rows("ffjord_stack")
    wanted = [graphs.encode(x[:2], None), graphs.encode(x[2:4], None)]
    pending = [graphs.start("encode", part.copy(), None) for part in (x[:2], x[2:4])]
    for one, expected in zip(pending, wanted, strict=True):
        for a, b in zip(one.finish()[:2], expected[:2], strict=True):
            np.testing.assert_array_equal(a, b)


def test_fixed_point_iterations_are_captured_by_their_steps() -> None:
    name = "maf_jacobi_context"
    config = EngineConfig(flows.checkpoint(name), threads=1, max_rows=2)
    plain = flows.folded(name)
    selection = capture_flow(plain, config, "graphs", FakeRuntime(), time_replay=lambda one: 1.0)
    facts = selection.comparison["graphs"]
    assert facts == {"encode": {"batch_sizes": [2]}, "decode": {"batch_sizes": [2]}}
    x, z, context = flows.golden_rows(name)
    condition = None if context is None else context[:2]
    eager = TorchEngine(plain)
    for operation, given in (("encode", x[:2]), ("decode", z[:2])):
        value, log_det, stats = getattr(selection.engine, operation)(given, condition)
        wanted, wanted_log_det, counted = getattr(eager, operation)(given, condition)
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(log_det, wanted_log_det, rtol=1e-5, atol=1e-5)
        assert stats.evaluations.tolist() == counted.evaluations.tolist()
        assert stats.status.tolist() == [SolveStatus.SOLVED] * 2
