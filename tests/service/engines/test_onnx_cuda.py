"""onnxruntime on CUDA, as far as it goes without: its few calls are made up, or are those of a CPU.

A device called "cpu:0" takes the way of a device, with the CPU's provider.
"""

import logging
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
import torch

from models.checkpoints.folder import load_checkpoint
from models.flow import Flow
from models.onnx.load import SerialisedExport
from models.onnx.runtime import load_runtime, open_session
from service.engines.onnx import OnnxEngine, make_engine
from service.engines.onnx_cuda import (
    CUDA,
    RECORDS_PLACEMENT,
    DeviceBuffers,
    for_cuda,
    load_libraries,
    provider_options,
    row_nodes,
    rows_on_cpu,
)
from service.engines.selection import EngineConfig
from tests.cases import make_flow, make_inputs
from tests.models.onnx.exported_cases import GROUP, exported

ZOO = Path(__file__).resolve().parents[3] / "models" / "zoo"
MOONS = ZOO / "moons"
PINWHEEL = ZOO / "pinwheel" / "encode.onnx"
# One process for all: what they share takes longer to make than they take.
pytestmark = pytest.mark.xdist_group(GROUP)
needs_provider = pytest.mark.skipif(
    CUDA not in load_runtime().get_available_providers(),
    reason="this onnxruntime has no provider for CUDA",
)


def serialised(name: str) -> SerialisedExport:
    made = exported(name)
    return SerialisedExport.of(made.graphs, made.certificate.describe())


@cache
def pinwheel() -> onnx.ModelProto:
    return for_cuda(onnx.load(PINWHEEL))


@pytest.mark.parametrize(("torch", "expected"), [(None, ["preload_dlls"]), (object(), [])])
def test_libraries_are_loaded_before_where_torch_has_loaded_none(
    torch: Any, expected: list[str]
) -> None:
    called: list[str] = []
    runtime: Any = SimpleNamespace(preload_dlls=lambda: called.append("preload_dlls"))
    load_libraries(runtime, torch)
    assert called == expected


def test_memory_grows_by_what_is_asked_for_and_leaves_others_some() -> None:
    options = provider_options("cuda:1", {0: 1, 1: 10 * 2**30}.__getitem__)
    assert options["arena_extend_strategy"] == "kSameAsRequested"
    assert options["gpu_mem_limit"] == str(5 * 2**30)
    assert "gpu_mem_limit" not in provider_options("cuda:1", None)


def test_graphs_are_in_the_opset_that_cuda_has_kernels_of() -> None:
    shipped = onnx.load(PINWHEEL)
    assert shipped.opset_import[0].version == 20
    assert pinwheel().opset_import[0].version == 19
    assert [node.op_type for node in pinwheel().graph.node] == [
        node.op_type for node in shipped.graph.node
    ]


def test_nodes_on_rows_are_told_from_their_lengths() -> None:
    known = row_nodes(pinwheel())
    assert {"Gemm", "ReduceMax", "NonZero", "Loop"} <= set(known.values())
    assert not {"Shape", "Size"} & set(known.values())
    # What is computed behind the loops is on rows too.
    assert [known[node.name] for node in pinwheel().graph.node if "loop_60_6" in node.input]
    (lengths,) = (node for node in pinwheel().graph.node if node.op_type == "Shape")
    after = [node.name for node in pinwheel().graph.node if lengths.output[0] in node.input]
    assert after == ["concat_52"]
    assert "concat_52" not in known


class Placed:
    """A session that has placed nodes, as (provider, names) say."""

    def __init__(self, *parts: tuple[str, list[str]]) -> None:
        self._parts = parts

    def get_provider_graph_assignment_info(self) -> list[Any]:
        operators = row_nodes(pinwheel())
        return [
            SimpleNamespace(
                ep_name=provider,
                get_nodes=lambda names=names: [
                    SimpleNamespace(name=name, op_type=operators.get(name, "Shape"))
                    for name in names
                ],
            )
            for provider, names in self._parts
        ]


def test_rows_that_a_cpu_computes_are_named() -> None:
    known = row_nodes(pinwheel())
    slow = [name for name, operator in known.items() if operator == "ReduceMax"]
    fast = [name for name in known if name not in slow]
    session = Placed((CUDA, fast), ("CPUExecutionProvider", [*slow, "how_many_rows"]))
    assert rows_on_cpu(session, known) == {"ReduceMax": 7}
    assert rows_on_cpu(Placed((CUDA, [*fast, *slow])), known) == {}


def test_onnxruntime_says_where_it_computes_the_bodies_of_loops_too() -> None:
    model = pinwheel()
    session = open_session(model.SerializeToString(), entries=RECORDS_PLACEMENT)
    found = rows_on_cpu(session, row_nodes(model))
    assert found["ReduceMax"] == 7
    assert found["Loop"] == 2
    assert found["Gemm"] > 20


def test_an_onnxruntime_that_does_not_say_it_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert rows_on_cpu(object(), {"a": "Gemm"}) == {}
    assert "does not say where it computes" in caplog.text


class Value:
    """A made-up `OrtValue`: an array on a device."""

    made: ClassVar[list[tuple[str, int]]] = []

    def __init__(self, array: Any, kind: str, index: int) -> None:
        self.array = array
        self.made.append((kind, index))

    @classmethod
    def ortvalue_from_numpy(cls, array: Any, kind: str, index: int) -> "Value":
        return cls(array.copy(), kind, index)

    @classmethod
    def ortvalue_from_shape_and_type(
        cls, shape: list[int], dtype: Any, kind: str, index: int
    ) -> "Value":
        return cls(np.full(shape, np.nan, dtype), kind, index)

    def update_inplace(self, array: Any) -> None:
        self.array[...] = array

    def numpy(self) -> Any:
        return self.array.copy()


class Session:
    """A made-up session and its binding: z is twice x."""

    def __init__(self) -> None:
        self.bound: dict[str, Value] = {}
        self.steps: list[str] = []

    def io_binding(self) -> "Session":
        return self

    def bind_ortvalue_input(self, name: str, value: Value) -> None:
        self.bound[name] = value

    bind_ortvalue_output = bind_ortvalue_input

    def synchronize_inputs(self) -> None:
        self.steps.append("inputs")

    def synchronize_outputs(self) -> None:
        self.steps.append("outputs")

    def run_with_iobinding(self, binding: "Session") -> None:
        self.steps.append("run")
        binding.bound["z"].array[...] = 2 * binding.bound["x"].array


def test_buffers_of_a_device_are_bound_once_and_answers_never_touched_again() -> None:
    x = np.ones((3, 2), np.float32)
    session = Session()
    Value.made.clear()
    output = SimpleNamespace(shape=["n", 2], type="tensor(float)")
    buffers = DeviceBuffers(session, {"x": x}, {"z": output}, "cuda:1", Value)
    (first,) = buffers.run([x])
    (second,) = buffers.run([3 * x])
    assert (first == 2).all()
    assert (second == 6).all()
    assert Value.made == [("cuda", 1)] * 2
    assert session.steps == ["inputs", "run", "outputs"] * 2


@pytest.mark.parametrize("name", ["maf_resnet_added_context", "ffjord"])
def test_the_way_of_a_device_gives_the_bits_of_the_cpu(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = make_inputs(name, make_flow(name), 5)
    x = given.x.numpy().astype(np.float32)
    context = None if given.context is None else given.context.numpy().astype(np.float32)
    wanted = OnnxEngine(serialised(name), "cpu", 1).encode(x, context)
    monkeypatch.setattr("service.engines.onnx.providers", lambda _: ["CPUExecutionProvider"])
    engine = OnnxEngine(serialised(name), "cpu:0", 1)
    assert engine.rows_on_cpu
    for _ in range(2):
        got = engine.encode(x, context)
        np.testing.assert_array_equal(got[0], wanted[0])
        np.testing.assert_array_equal(got[1], wanted[1])


def test_graphs_of_the_zoo_are_served_in_the_older_opset_and_what_a_cpu_computes_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("service.engines.onnx.providers", lambda _: ["CPUExecutionProvider"])
    monkeypatch.setattr(Flow, "device", property(lambda _: torch.device("cpu:0")))
    with caplog.at_level(logging.WARNING):
        selection = make_engine(EngineConfig(load_checkpoint(MOONS), threads=1, max_rows=8))
    assert selection.certificate["opset"] == 19
    assert selection.comparison["rows_on_cpu"]["Gemm"] > 20
    assert not selection.is_batch_invariant
    assert "moons: onnxruntime computes these of its rows on the CPU" in caplog.text


@needs_provider
@pytest.mark.gpu
def test_a_continuous_flow_is_solved_on_cuda_alone() -> None:
    flow = make_flow("ffjord")
    x = make_inputs("ffjord", flow, 5).x
    engine = OnnxEngine(serialised("ffjord"), "cuda:0", 1)
    assert engine.rows_on_cpu == {}
    z, log_det = engine.encode(x.numpy().astype(np.float32), None)[:2]
    wanted, wanted_log_det = flow.encode(x.double())
    np.testing.assert_allclose(z, wanted.detach(), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(log_det, wanted_log_det.detach(), rtol=1e-4, atol=1e-4)
