"""The graphs engine on a runtime of the CPU: the flow's own numbers, or no graph and the reason."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.flow import Flow
from service.engines.cuda.buffers import BatchBuffers, RowShapes
from service.engines.cuda.graphed import GraphedBatch, GraphedFunction
from service.engines.cuda.graphs import best_seconds, capture_flow, make_engine
from service.engines.cuda.proof import prove
from service.engines.engine import EngineLost, EngineOutOfMemory, PipelinedEngine
from service.engines.probe import DeviceProbe
from service.engines.selection import EngineConfig, EngineSelection, EngineUnavailable
from service.engines.torch import TorchEngine

from .fakes import FakeEvent, FakeRuntime
from .flows import DISCRETE, RowByRow, checkpoint, folded, golden_rows, row_by_row

pytestmark = pytest.mark.xdist_group("folded")

MAX_ROWS = 6


def config(name: str = "realnvp", **changes: Any) -> EngineConfig:
    return EngineConfig(checkpoint(name), **({"threads": 1, "max_rows": MAX_ROWS} | changes))


def square(batch: GraphedBatch) -> float:
    """Two rows cost as much as one, and each more something: the sizes are 2, 4 and 6."""
    return float(max(2, batch.buffers.size) ** 2)


def captured(
    one: EngineConfig, runtime: FakeRuntime | None = None, flow: Flow | None = None
) -> EngineSelection:
    flow = flow or row_by_row(one.checkpoint.folder.name)
    return capture_flow(flow, one, "graphs", runtime or FakeRuntime(), time_replay=square)


def assert_same(got: Sequence[Any], wanted: Sequence[Any]) -> None:
    for found, expected in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["realnvp", "maf_mlp_classes"])
def test_graphs_give_the_numbers_of_the_flow(name: str) -> None:
    selection, eager = captured(config(name)), TorchEngine(row_by_row(name))
    assert selection.comparison["graphs"] == {
        "encode": {"batch_sizes": [2, 4, 6]},
        "decode": {"batch_sizes": [2, 4, 6]},
    }
    assert selection.batch_sizes == (2, 4, 6)
    engine = selection.engine
    assert (engine.name, engine.device, engine.dtype) == ("graphs", "cpu", "float32")
    x, z, context = golden_rows(name)
    assert_same(engine.encode(x, context), eager.encode(x, context))
    assert_same(engine.decode(z, context), eager.decode(z, context))


def test_a_row_has_the_same_bits_with_any_neighbours() -> None:
    selection = captured(config())
    engine = selection.engine
    assert selection.batch_sizes == (2, 4, 6)
    x, _, _ = golden_rows("realnvp")
    wanted = engine.encode(x[:3], None)
    for others in (x[3:4], 100 * x[3:4]):
        got = engine.encode(np.concatenate([others, x[:3]]), None)
        assert_same([part[1:] for part in got], wanted)


def test_two_batches_are_pending_and_each_gets_its_own() -> None:
    selection = captured(config())
    engine = selection.engine
    assert selection.batch_sizes == (2, 4, 6)
    assert isinstance(engine, PipelinedEngine)
    x, _, _ = golden_rows("realnvp")
    given = x[:2].copy()
    first = engine.start("encode", given, None)
    given[:] = x[2:4]
    second = engine.start("encode", given, None)
    given[:] = np.nan
    results = [first.finish(), second.finish()]
    kept = [[part.copy() for part in result] for result in results]
    for _ in range(2):  # what was given is never touched again
        engine.encode(x[1:3], None)
    for result, copies in zip(results, kept, strict=True):
        assert_same(result, copies)
    for copies, rows in zip(kept, (x[:2], x[2:4]), strict=True):
        assert_same(copies, engine.encode(rows, None))


def test_a_batch_is_filled_up_with_copies_of_its_first_row() -> None:
    buffers = BatchBuffers(4, RowShapes((2,), (2,), (1,), torch.float32), FakeRuntime())
    buffers.write(np.array([[1, 2], [3, 4]], np.float32), np.array([[5], [6]], np.float32))
    assert buffers.rows.tolist() == [[1, 2], [3, 4], [1, 2], [1, 2]]
    assert buffers.context is not None
    assert buffers.context.tolist() == [[5], [6], [5], [5]]


def test_more_rows_than_were_captured_are_to_be_halved() -> None:
    engine = captured(config()).engine
    with pytest.raises(EngineOutOfMemory, match="7 rows: the device has memory for 6 rows"):
        engine.encode(np.zeros((7, 2), np.float32), None)


def test_sizes_that_the_device_has_no_memory_for_are_left_out() -> None:
    class Small(FakeRuntime):
        def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            if shape[0] > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().pinned(shape, dtype)

    assert captured(config(), Small()).batch_sizes == (2,)

    class OnlyOnce(FakeRuntime):
        """Has memory for one batch of six rows of each direction."""

        def record(self, step: Any) -> Any:
            rows = len(self.buffers[-1])
            made = sum(len(buffer) == rows for buffer in self.buffers) // 3
            if rows == MAX_ROWS and made % 2 == 0:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().record(step)

    assert captured(config(), OnlyOnce()).batch_sizes == (2, 4)

    class OnlyEncode(FakeRuntime):
        """Has memory for two batches of six rows."""

        def record(self, step: Any) -> Any:
            if len(self.buffers[-1]) == MAX_ROWS and self.recorded > MAX_ROWS:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().record(step)

    selection = captured(config(), OnlyEncode())
    assert selection.comparison["graphs"]["encode"]["batch_sizes"][-1] == MAX_ROWS
    assert selection.batch_sizes == (2, 4)


def stale_rows(before: list[Tensor], after: list[Tensor]) -> None:
    """The first row of every buffer stays as it was."""
    for was, now in zip(before, after, strict=True):
        now[0] = was[0]


def forgotten_rows(before: list[Tensor], after: list[Tensor]) -> None:
    """The last row of every buffer is not written."""
    for was, now in zip(before, after, strict=True):
        now[-1] = was[-1]


def neighbours(before: list[Tensor], after: list[Tensor]) -> None:
    """What is written depends on the rows beside."""
    for was, now in zip(before, after, strict=True):
        if not torch.equal(was.nan_to_num(7.0), now.nan_to_num(7.0)):
            now += 1e-6 * now[0].nan_to_num(0.0).abs().max()


class Late:
    """What is written is what the replay before should have written."""

    def __init__(self) -> None:
        self._last: dict[int, Tensor] = {}

    def __call__(self, before: list[Tensor], after: list[Tensor]) -> None:
        for was, now in zip(before, after, strict=True):
            if not torch.equal(was.nan_to_num(7.0), now.nan_to_num(7.0)):
                found = now.clone()
                now.copy_(self._last.get(id(now), found))
                self._last[id(now)] = found


@pytest.mark.parametrize(
    ("runtime", "reason"),
    [
        (FakeRuntime(stale_rows), "row 0 of"),
        (FakeRuntime(forgotten_rows), "row 5 of 6"),
        (FakeRuntime(neighbours), "other bits"),
        (FakeRuntime(Late()), "is not what the same kernels give"),
    ],
    ids=["stale-rows", "forgotten-rows", "neighbours", "late"],
)
def test_graphs_at_fault_are_not_used_and_the_reason_is_shown(
    runtime: FakeRuntime, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    selection = captured(config(), runtime)
    for operation in ("encode", "decode"):
        assert reason in selection.comparison["graphs"][operation]["uncaptured"]
        assert f"realnvp: {operation} is not captured" in caplog.text
    assert selection.batch_sizes == ()
    x, z, _ = golden_rows("realnvp")
    eager = TorchEngine(row_by_row("realnvp"))
    assert_same(selection.engine.encode(x, None), eager.encode(x, None))
    assert_same(selection.engine.decode(z, None), eager.decode(z, None))


def test_graphs_at_fault_are_no_candidate_where_engines_are_compared() -> None:
    one = replace(config(), row_seconds=1.0)
    with pytest.raises(EngineUnavailable, match=r"encode: value: row 0 of 6 .*; decode: "):
        captured(one, FakeRuntime(stale_rows))


def test_a_direction_that_cannot_be_captured_is_computed_without_graphs() -> None:
    class Waits(RowByRow):
        def decode(self, *given: Any, **named: Any) -> tuple[Tensor, Tensor]:
            if decoded and not uses_eager:
                raise RuntimeError("operation not permitted when stream is capturing")
            decoded.append(1)
            return super().decode(*given, **named)

    decoded: list[int] = []
    uses_eager: list[int] = []
    plain = row_by_row("realnvp")
    flow = Waits(plain.chain, plain.event_shape)
    selection = captured(config(), flow=flow)
    uses_eager.append(1)
    facts = selection.comparison["graphs"]
    assert facts["encode"] == {"batch_sizes": [2, 4, 6]}
    assert "not permitted" in facts["decode"]["uncaptured"]
    assert not selection.is_neighbour_invariant
    assert captured(config()).is_neighbour_invariant
    _, z, _ = golden_rows("realnvp")
    assert isinstance(selection.engine, PipelinedEngine)
    got = selection.engine.start("decode", z, None).finish()
    assert_same(got, TorchEngine(plain).decode(z, None))


@pytest.mark.parametrize("name", DISCRETE)
def test_rows_of_nan_disturb_no_flow(name: str) -> None:
    # An index that is made of NaN would end a CUDA process: here it raises.
    flow, (x, z, context) = folded(name), golden_rows(name)
    for function, rows in ((flow.encode, x), (flow.decode, z)):
        gives = x.shape[1:] if rows is z else z.shape[1:]
        shapes = RowShapes(rows.shape[1:], gives, flow.context_shape, flow.dtype)
        batch = GraphedBatch(function, shapes, 1, FakeRuntime())
        prove(batch, rows, context)
        batch = GraphedBatch(function, shapes, 3, FakeRuntime())
        batch.buffers.isolate(rows[0], None if context is None else context[0], 1)
        batch.replay().synchronize()
        value, log_det = batch.buffers.read(3)
        assert np.isfinite(value[1]).all()
        assert np.isfinite(log_det[1])


@pytest.mark.parametrize("fails_at", ["launch", "wait"])
def test_what_fails_on_the_device_is_told_as_of_any_engine(fails_at: str) -> None:
    class Failing(FakeRuntime):
        text = ""

        def mark(self) -> FakeEvent:
            if self.text and fails_at == "launch":
                raise RuntimeError(self.text)
            return super().mark()

        def compute(self, until: int) -> None:
            super().compute(until)
            if self.text:
                raise RuntimeError(self.text)

    def lose() -> None:
        raise RuntimeError("the device fell off the bus")

    runtime, probe = Failing(), DeviceProbe("cuda:0", lose)
    shapes = RowShapes((2,), (2,), None, torch.float32)
    batch = GraphedBatch(lambda rows, context: (rows, rows.sum(1)), shapes, 2, runtime)
    function, given = GraphedFunction([batch], probe), np.ones((2, 2), np.float32)
    runtime.text = "CUDA error: out of memory"
    with pytest.raises(EngineOutOfMemory):
        function.start(given, None).finish()
    runtime.text = "expected another shape"
    with pytest.raises(RuntimeError, match="expected another shape"):
        function.start(given, None).finish()
    runtime.text = ""
    assert_same(function.start(given, None).finish(), (given, given.sum(1)))
    runtime.text = "CUDA error: an illegal memory access was encountered"
    with pytest.raises(EngineLost, match="fell off the bus"):
        function.start(given, None).finish()


def test_a_replay_is_timed_when_it_is_computed() -> None:
    runtime = FakeRuntime()
    shapes = RowShapes((2,), (2,), None, torch.float32)
    batch = GraphedBatch(lambda rows, context: (rows, rows.sum(1)), shapes, 2, runtime)
    assert 0.0 < best_seconds(batch) < 10.0
    assert not runtime.launched


def test_a_cpu_has_no_graphs() -> None:
    with pytest.raises(EngineUnavailable, match="the model is on cpu: choose device cuda, or"):
        make_engine(config())


def test_rows_are_computed_uncaptured_while_others_launch() -> None:
    runtime, held = FakeRuntime(), []

    def function(rows: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        held.append(runtime.lock.locked())
        return rows, rows.sum(1)

    shapes = RowShapes((2,), (2,), None, torch.float32)
    batch = GraphedBatch(function, shapes, 2, runtime)
    held.clear()
    batch.compute_uncaptured()
    assert held == [False]
    assert not runtime.lock.locked()
