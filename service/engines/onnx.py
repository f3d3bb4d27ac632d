"""The onnx engine: certified graphs in onnxruntime behind arrays."""

import logging
import threading
from collections import Counter, OrderedDict
from typing import Any

import numpy as np
import onnx

from models.extras import install_command
from models.onnx.load import SerialisedExport
from models.onnx.runtime import load_runtime, open_session
from service.contracts import Array, EngineOutput, SolverStats
from service.engines.cuda_version import require_same_cuda
from service.engines.device_errors import device_fault
from service.engines.onnx_cuda import (
    CUDA,
    CUDA_OPSET,
    RECORDS_PLACEMENT,
    DeviceBuffers,
    ProviderMissing,
    for_cuda,
    free_bytes_of,
    imported_torch,
    load_libraries,
    provider_options,
    row_nodes,
    rows_on_cpu,
)
from service.engines.probe import PROBES
from service.engines.replay import worst_misfit
from service.engines.selection import (
    EngineConfig,
    EngineSelection,
    EngineUnavailable,
    dtype_name,
)

# Calls on few numbers spend a tenth of their time on finding buffers: these are kept. Larger ones
# would rather not be copied.
_MAX_KEPT_VALUES = 2**16
KEPT_SIZES = 32
# On a device all are kept: memory takes longer to get there. It is beside what the arena may take.
_DEVICE_SIZES = 8

_NUMPY = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}

_CPU = "CPUExecutionProvider"

_log = logging.getLogger(__name__)


def make_engine(config: EngineConfig) -> EngineSelection:
    """Serve graphs that reproduce the golden rows; see `service.engines.selection.MakeEngine`."""
    from service.engines.onnx_graphs import find_graphs  # torch makes them where there are none

    if config.flow.device.type == "cuda":
        import torch

        require_same_cuda(torch.version.cuda, load_runtime().cuda_version)
    graphs = find_graphs(config)
    precision, dtype = graphs.certificate["precision"], dtype_name(config.flow.dtype)
    if precision != dtype:
        raise EngineUnavailable(
            f"the graphs are in {precision} and the model is served in "
            f"{dtype}: export it again with the other --precision"
        )
    engine = OnnxEngine(graphs, str(config.flow.device), config.threads)
    checkpoint = config.checkpoint
    if engine.rows_on_cpu:
        _log.warning(
            "%s: onnxruntime computes these of its rows on the CPU, and copies them there and back "
            "in each call: %s",
            checkpoint.folder.name,
            ", ".join(f"{count} {name}" for name, count in engine.rows_on_cpu.items()),
        )
    misfit = worst_misfit(engine, checkpoint.exact, checkpoint.record, graphs.certificate)
    if not misfit.is_allowed:
        raise EngineUnavailable(misfit.describe())
    is_same = bool(graphs.certificate["is_batch_invariant"])
    is_same = is_same and engine.device == "cpu" and config.threads == 1
    certificate, comparison = graphs.certificate, {}
    if engine.device != "cpu":
        certificate = {**certificate, "opset": min(certificate["opset"], CUDA_OPSET)}
        comparison = {"rows_on_cpu": engine.rows_on_cpu}
    return EngineSelection(engine, certificate, comparison, is_batch_invariant=is_same)


class OnnxEngine:
    """An engine over the graphs of an export.

    Args:
        export: what to run; it was checked (`models.onnx.load`) or just made.
        device: "cpu" or "cuda:N".
        threads: of one call. With one thread on a CPU a row's bits are the same in every batch.

    Raises:
        ProviderMissing: if the device is not what onnxruntime would really use.
        SessionError: if onnxruntime refuses the graphs.
    """

    name = "onnx"

    def __init__(self, export: SerialisedExport, device: str, threads: int) -> None:
        self._device = device
        self._dtype = str(export.certificate["precision"])
        self._encode = _Graph(export.encode, "z", device, threads)
        self._decode = _Graph(export.decode, "x", device, threads)
        self._generate = None
        if export.generate is not None:
            self._generate = _Graph(export.generate, "x", device, threads)

    @property
    def rows_on_cpu(self) -> dict[str, int]:
        """On a device, the operators that onnxruntime computes on the CPU, and how many of each."""
        graphs = (self._encode, self._decode, self._generate)
        return dict(sum((one.rows_on_cpu for one in graphs if one is not None), Counter()))

    @property
    def device(self) -> str:
        return self._device

    @property
    def dtype(self) -> str:
        return self._dtype

    def encode(self, x: Array, context: Array | None) -> EngineOutput:
        return self._encode.run(x, context)

    def decode(self, z: Array, context: Array | None) -> EngineOutput:
        return self._decode.run(z, context)

    def generate(self, z: Array, context: Array | None) -> EngineOutput:
        if self._generate is None:
            raise RuntimeError("generate: expected a continuous flow, others decode as fast")
        return self._generate.run(z, context)


class _Graph:
    """A graph in an onnxruntime session; threads that call it at once have each their buffers."""

    def __init__(self, model: bytes, value: str, device: str, threads: int) -> None:
        wanted = providers(device)
        lean, entries = _lean(model), None
        if device != "cpu":
            lean, entries = for_cuda(lean), RECORDS_PLACEMENT
        content = lean.SerializeToString()
        options: dict[str, Any] = {"threads": threads, "providers": wanted, "entries": entries}
        self._session = open_session(content, **options)
        _require_provider(self._session.get_providers(), wanted)
        self.rows_on_cpu: Counter[str] = Counter()
        if device != "cpu":
            self.rows_on_cpu.update(rows_on_cpu(self._session, row_nodes(lean)))
        self._device = device
        self._value = value
        self._inputs = [given.name for given in self._session.get_inputs()]
        known = {output.name: output for output in self._session.get_outputs()}
        wanted_outputs = (value, "log_det", "status", "evaluations")
        self._outputs = {name: known[name] for name in wanted_outputs if name in known}
        self._most_sizes = KEPT_SIZES if device == "cpu" else _DEVICE_SIZES
        self._kept: OrderedDict[int, list[_Buffers | DeviceBuffers]] = OrderedDict()
        self._kept_lock = threading.Lock()

    def run(self, rows: Array, context: Array | None) -> EngineOutput:
        given = [np.ascontiguousarray(a) for a in ((rows,) if context is None else (rows, context))]
        try:
            found = dict(zip(self._outputs, self._run(given), strict=True))
        except Exception as error:  # onnxruntime's own have no common base but this
            fault = device_fault(error, PROBES.of(self._device))
            if fault is None:
                raise RuntimeError(str(error)) from error
            raise fault from None
        value = found[self._value]
        log_det = found.get("log_det")
        if log_det is None:
            log_det = np.zeros(len(value), value.dtype)
        if "status" not in found:
            return value, log_det
        return (
            value,
            log_det,
            SolverStats(found["status"], found["evaluations"], np.zeros_like(log_det)),
        )

    def _run(self, given: list[Array]) -> list[Array]:
        if given[0].size <= _MAX_KEPT_VALUES or self._device != "cpu":
            buffers = self._borrow(given)
            try:
                return buffers.run(given)
            finally:
                self._give_back(len(given[0]), buffers)
        feed = dict(zip(self._inputs, given, strict=True))
        found: list[Array] = self._session.run(list(self._outputs), feed)
        return found

    def _borrow(self, given: list[Array]) -> "_Buffers | DeviceBuffers":
        with self._kept_lock:
            kept = self._kept.get(len(given[0]))
            if kept:
                return kept.pop()
        inputs = dict(zip(self._inputs, given, strict=True))
        if self._device == "cpu":
            return _Buffers(self._session, inputs, self._outputs)
        values = load_runtime().OrtValue
        return DeviceBuffers(self._session, inputs, self._outputs, self._device, values)

    def _give_back(self, rows: int, buffers: "_Buffers | DeviceBuffers") -> None:
        with self._kept_lock:
            self._kept.setdefault(rows, []).append(buffers)
            self._kept.move_to_end(rows)
            if len(self._kept) > self._most_sizes:
                self._kept.popitem(last=False)


class _Buffers:
    """Inputs and outputs of one batch size, bound to a session once.

    Args:
        session: of onnxruntime.
        inputs: name -> an array as will come.
        outputs: name -> the session's description of it.
    """

    def __init__(self, session: Any, inputs: dict[str, Array], outputs: dict[str, Any]) -> None:
        value_of = load_runtime().OrtValue.ortvalue_from_numpy
        rows = len(next(iter(inputs.values())))
        self._session = session
        self._binding = session.io_binding()
        self._inputs = [np.empty_like(array) for array in inputs.values()]
        self._outputs = [
            np.empty((rows, *output.shape[1:]), _NUMPY[output.type]) for output in outputs.values()
        ]
        for name, array in zip(inputs, self._inputs, strict=True):
            self._binding.bind_ortvalue_input(name, value_of(array))
        for name, array in zip(outputs, self._outputs, strict=True):
            self._binding.bind_ortvalue_output(name, value_of(array))

    def run(self, given: list[Array]) -> list[Array]:
        """Copy in, compute, copy out: what is returned is never touched again."""
        for kept, array in zip(self._inputs, given, strict=True):
            np.copyto(kept, array)
        self._session.run_with_iobinding(self._binding)
        return [array.copy() for array in self._outputs]


def _lean(model: bytes) -> onnx.ModelProto:
    """Drop the log_prob: the service adds the base density itself, to log_det."""
    parsed: onnx.ModelProto = onnx.ModelProto.FromString(model)
    kept = [output for output in parsed.graph.output if output.name != "log_prob"]
    del parsed.graph.output[:]
    parsed.graph.output.extend(kept)
    return parsed


def providers(device: str) -> list[str | tuple[str, dict[str, Any]]]:
    """What onnxruntime should compute with on a device, in order of preference.

    Raises:
        ProviderMissing: if the installed onnxruntime has no provider for the device.
    """
    if device == "cpu":
        return [_CPU]
    runtime = load_runtime()
    available = runtime.get_available_providers()
    if CUDA not in available:
        raise ProviderMissing(
            f"{device}: the installed onnxruntime has {', '.join(available)} alone; choose engine "
            "torch or device cpu, or install the extra gpu in the place of cpu: pip uninstall "
            f"onnxruntime, then {install_command('gpu')}"
        )
    torch = imported_torch()
    load_libraries(runtime, torch)
    return [(CUDA, provider_options(device, free_bytes_of(torch))), _CPU]


def _require_provider(used: list[str], wanted: list[str | tuple[str, dict[str, Any]]]) -> None:
    first = wanted[0] if isinstance(wanted[0], str) else wanted[0][0]
    if used[:1] != [first]:
        raise ProviderMissing(
            f"onnxruntime was asked for {first} and took {', '.join(used)}: its libraries for the "
            "device cannot be loaded; mend the installation, or choose engine torch or device cpu"
        )
