"""onnxruntime on CUDA: its libraries, its memory, and where it computes the nodes of a graph."""

import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import onnx

from models.onnx.opsets import in_opset
from service.contracts import Array

CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
# In opset 20 ReduceMax takes truth values besides, and CUDA has no kernel of that form: every step
# of a continuous flow would copy its rows to the CPU and back.
CUDA_OPSET = 19
# Has a session say which provider computes which node.
RECORDS_PLACEMENT = {"session.record_ep_graph_assignment_info": "1"}
# Of what is free on a device when a session is opened, the part that its arena may take.
_FREE_PART = 0.5
# These read how many rows there are, on the CPU wherever the rows lie.
_READ_SHAPES = {"Shape", "Size"}
_NUMPY = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}

_log = logging.getLogger(__name__)


class ProviderMissing(RuntimeError):
    """onnxruntime has no provider for the device, or fell back to another in silence."""


def load_libraries(runtime: ModuleType, torch: ModuleType | None) -> None:
    """Have onnxruntime find the libraries of CUDA where torch has not loaded its own.

    Args:
        runtime: onnxruntime with its provider for CUDA.
        torch: where it is imported.
    """
    if torch is None:
        runtime.preload_dlls()


def imported_torch() -> ModuleType | None:
    """The module, if this process has imported it."""
    return sys.modules.get("torch")


def provider_options(device: str, free_bytes: Callable[[int], int] | None) -> dict[str, Any]:
    """What onnxruntime is told of a device.

    TF32 keeps 10 bits of every factor: that is no float32, and no certificate holds with it. A
    search for the fastest convolution may choose another one, with other bits, next time. Its
    memory grows by what is asked for, and an error of one model leaves the others some.

    Args:
        device: "cuda:N".
        free_bytes: how much memory of device N is free; None where nobody knows.
    """
    index = int(device.partition(":")[2] or 0)
    options = {
        "device_id": str(index),
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
    }
    if free_bytes is not None:
        options["gpu_mem_limit"] = str(int(free_bytes(index) * _FREE_PART))
    return options


def free_bytes_of(torch: ModuleType | None) -> Callable[[int], int] | None:
    """What tells how much of a device is free: torch, where it is imported and has CUDA."""
    if torch is None or not torch.cuda.is_available():
        return None
    memory = torch.cuda.mem_get_info
    return lambda index: int(memory(index)[0])


def for_cuda(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph in the opset that CUDA has kernels of; each node is called as what it gives.

    Raises:
        ValueError: it cannot be said in that opset.
    """
    lowered = in_opset(model, CUDA_OPSET)
    for node, _ in _nodes(lowered.graph, {}):
        node.name = node.output[0]
    return lowered


def row_nodes(model: onnx.ModelProto) -> dict[str, str]:
    """Nodes that compute rows, and not only how many there are: name -> operator."""
    inferred = onnx.shape_inference.infer_shapes(model)
    return {
        node.name: node.op_type
        for node, shapes in _nodes(inferred.graph, {})
        if node.op_type not in _READ_SHAPES
        and any(shapes.get(name, False) for name in (*node.input, *node.output))
    }


def _nodes(
    graph: onnx.GraphProto, around: Mapping[str, bool]
) -> Iterator[tuple[onnx.NodeProto, Mapping[str, bool]]]:
    """The nodes of a graph and those inside it, each with: value -> has an axis of any length."""
    known = dict(around)
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        fixed = (dim.HasField("dim_value") for dim in kind.shape.dim)
        # Of what a loop gives nobody knows the shape: that is rows.
        known[value.name] = not kind.HasField("shape") or not all(fixed)
    for node in graph.node:
        yield node, known
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g, known)


def rows_on_cpu(session: Any, names: Mapping[str, str]) -> dict[str, int]:
    """Which operators on rows a session that is on CUDA computes on the CPU: operator -> how many.

    That changes no number, and costs two copies a node and call. What onnxruntime says of lengths
    is rightly there.

    Args:
        session: opened with `RECORDS_PLACEMENT`.
        names: from `row_nodes`.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        _log.warning("this onnxruntime does not say where it computes what: expected 1.24 or newer")
        return {}
    return dict(
        Counter(
            names.get(node.name, node.op_type)
            for part in session.get_provider_graph_assignment_info()
            if part.ep_name == _CPU
            for node in part.get_nodes()
            if node.name in names
        )
    )


class DeviceBuffers:
    """Inputs and outputs of one batch size on a device, bound to a session once.

    Args:
        session: of onnxruntime.
        inputs: name -> an array as will come.
        outputs: name -> the session's description of it.
        device: "cuda:N".
        values: makes values on a device: `onnxruntime.OrtValue`.
    """

    def __init__(
        self,
        session: Any,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Any],
        device: str,
        values: Any,
    ) -> None:
        kind, _, index = device.partition(":")
        place = (kind, int(index or 0))
        rows = len(next(iter(inputs.values())))
        self._session = session
        self._binding = session.io_binding()
        self._inputs = [values.ortvalue_from_numpy(array, *place) for array in inputs.values()]
        self._outputs = [
            values.ortvalue_from_shape_and_type(
                [rows, *output.shape[1:]], _NUMPY[output.type], *place
            )
            for output in outputs.values()
        ]
        for name, value in zip(inputs, self._inputs, strict=True):
            self._binding.bind_ortvalue_input(name, value)
        for name, value in zip(outputs, self._outputs, strict=True):
            self._binding.bind_ortvalue_output(name, value)

    def run(self, given: list[Array]) -> list[Array]:
        """Copy to the device, compute, copy back: what is returned is never touched again."""
        for value, array in zip(self._inputs, given, strict=True):
            value.update_inplace(array)
        self._binding.synchronize_inputs()
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        return [value.numpy() for value in self._outputs]
