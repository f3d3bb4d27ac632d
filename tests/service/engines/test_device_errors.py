"""What the texts of devices mean: less memory, a lost device, or a fault of these rows."""

import gc
import threading
import weakref
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from models.flow import Flow
from models.transforms.transform import Transform
from service.contracts import Array, EngineOutput
from service.engines.device_errors import device_fault, release_frames
from service.engines.engine import EngineLost, EngineOutOfMemory
from service.engines.judged import judged_call, judged_start
from service.engines.probe import DeviceProbe, ProbeTable, TinyAddition
from service.engines.torch import TorchEngine


def sound() -> None:
    """Answer, as a device that computes."""


def dead() -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with ...")


MEMORY = [
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
    "CUDA driver error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUDA failure 2: out of memory ; GPU=0 ; hostname=a ; expr=cudaMalloc((void**)&p, size);",
    "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; expr=cublasCreate(&handle);",
    "Failed to allocate memory for requested buffer of size 1099511627776",
    "BFCArena::AllocateRawInternal Available memory of 512 is smaller than requested bytes of 1024",
    "Triton Error [CUDA]: out of memory",
    "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried",
    "DefaultCPUAllocator: not enough memory: you tried to allocate 8796093022208 bytes.",
    "std::bad_alloc",
    "HIP out of memory. Tried to allocate 20.00 MiB",
]
DEVICE = [
    "CUDA error: device-side assert triggered",
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: unspecified launch failure",
    "CUDA driver error: unknown error",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb)`",
    "CUDA failure 700: an illegal memory access was encountered ; GPU=0",
    "CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED ; GPU=0 ; hostname=a",
    "CUDNN failure 8: CUDNN_STATUS_EXECUTION_FAILED ; GPU=0",
    "cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR",
    "Triton Error [CUDA]: an illegal memory access was encountered",
]
ORDINARY = [
    "shapes do not match",
    "Gather: index out of bounds",
    "mat1 and mat2 must have one size",
]


@pytest.mark.parametrize("text", MEMORY)
def test_memory_comes_first_and_no_device_is_asked(text: str) -> None:
    asked: list[int] = []
    probe = DeviceProbe("cuda:0", lambda: asked.append(1))
    assert isinstance(device_fault(RuntimeError(text), probe), EngineOutOfMemory)
    assert asked == []


def test_what_python_itself_says_of_memory_is_known() -> None:
    assert isinstance(device_fault(MemoryError()), EngineOutOfMemory)


@pytest.mark.parametrize("text", DEVICE)
def test_of_what_a_device_says_the_device_is_asked(text: str) -> None:
    lost = device_fault(RuntimeError(text), DeviceProbe("cuda:0", dead))
    assert isinstance(lost, EngineLost)
    assert str(lost) == "cuda:0 is lost: CUDA error: an illegal memory access was encountered"
    assert device_fault(RuntimeError(text), DeviceProbe("cuda:0", sound)) is None
    assert isinstance(device_fault(RuntimeError(text)), EngineLost)  # nobody can be asked


@pytest.mark.parametrize("text", ORDINARY)
def test_other_errors_are_ordinary(text: str) -> None:
    assert device_fault(RuntimeError(text), DeviceProbe("cuda:0", dead)) is None


def test_a_library_that_cannot_begin_lacks_memory_unless_the_device_is_lost() -> None:
    error = RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate`")
    assert isinstance(device_fault(error, DeviceProbe("cuda:0", sound)), EngineOutOfMemory)
    assert isinstance(device_fault(error, DeviceProbe("cuda:0", dead)), EngineLost)


def test_a_device_that_never_answers_is_lost() -> None:
    hangs = threading.Event()

    def hang() -> None:
        hangs.wait()

    probe = DeviceProbe("cuda:1", hang, limit_seconds=0.01)
    try:
        assert probe.ask() == "cuda:1 is lost: a tiny operation was not done within 0.01 s"
        lost = device_fault(RuntimeError("CUDA error: unknown error"), probe)
        assert isinstance(lost, EngineLost)
    finally:
        hangs.set()


def test_a_lost_device_is_asked_no_more() -> None:
    asked: list[int] = []

    def once_dead() -> None:
        asked.append(1)
        dead()

    probe = DeviceProbe("cuda:0", once_dead)
    assert probe.reason == ""
    assert probe.ask() == probe.ask() == probe.reason != ""
    assert asked == [1]


def test_each_device_has_one_probe_and_a_cpu_none() -> None:
    operations = {"cuda:0": sound, "cuda:1": dead}
    probes = ProbeTable(operations.__getitem__)
    assert probes.of("cpu") is None
    first, second = probes.of("cuda:0"), probes.of("cuda:1")
    assert first is not None
    assert second is not None
    assert probes.of("cuda:0") is first
    assert first.ask() == probes.lost() == ""
    second.ask()
    assert probes.lost() == second.reason


class Keeping(Transform):
    """Keeps a tensor in its frame, and has no memory for more than `fitting` rows."""

    def __init__(self, fitting: int, error: type[Exception] = RuntimeError) -> None:
        super().__init__()
        self.fitting = fitting
        self.error = error
        self.kept: list[weakref.ref[Tensor]] = []
        self.alive: list[int] = []

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.alive.append(sum(reference() is not None for reference in self.kept))
        made = x.new_zeros(len(x), 3)
        self.kept.append(weakref.ref(made))
        if len(x) > self.fitting:
            raise self.error("CUDA out of memory. Tried to allocate 2.00 GiB")
        return 2 * x + made, x.sum(1)

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError, MemoryError])
def test_a_call_that_had_no_memory_keeps_none(kind: type[Exception]) -> None:
    transform = Keeping(2, kind)
    engine = TorchEngine(Flow([transform], (3,)))
    gc.disable()  # references alone decide
    try:
        with pytest.raises(EngineOutOfMemory) as caught:
            engine.encode(np.ones((4, 3), np.float32), None)
        assert caught.value.__cause__ is caught.value.__context__ is None
        assert [reference() for reference in transform.kept] == [None]
    finally:
        gc.enable()


def test_frames_that_an_error_came_through_let_go() -> None:
    class Held:
        pass

    kept: list[weakref.ref[Held]] = []

    def hold(cause: Exception | None) -> None:
        held = Held()
        kept.append(weakref.ref(held))
        raise RuntimeError("broken") from cause

    def fail() -> None:
        try:
            hold(None)
        except RuntimeError as error:
            hold(error)

    try:
        fail()
    except RuntimeError as error:
        assert all(reference() is not None for reference in kept)
        release_frames(error)
        assert [reference() for reference in kept] == [None, None]


class Pending:
    """A batch on a fake device that fails once it is waited for."""

    def __init__(self, text: str, held: Tensor) -> None:
        self._text, self._held = text, held

    def finish(self) -> EngineOutput:
        raise RuntimeError(self._text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [(MEMORY[0], EngineOutOfMemory), (DEVICE[0], EngineLost), (ORDINARY[0], RuntimeError)],
)
def test_whatever_computes_on_a_device_is_judged(text: str, kind: type[Exception]) -> None:
    probes = ProbeTable(lambda _: dead)
    held: list[weakref.ref[Tensor]] = []

    def fail(rows: Array, context: Array | None) -> EngineOutput:
        raise RuntimeError(text)

    def begin(rows: Array, context: Array | None) -> Pending:
        made = torch.zeros(3)
        held.append(weakref.ref(made))
        return Pending(text, made)

    rows = np.zeros((1, 3), np.float32)
    call = judged_call(fail, "cuda:0", probes)
    start = judged_start(begin, "cuda:0", probes)
    begin_to_fail = judged_start(fail, "cuda:0", probes)  # type: ignore[arg-type]
    assert start is not None
    assert begin_to_fail is not None
    pending = start(rows, None)
    for step in (lambda: call(rows, None), lambda: begin_to_fail(rows, None), pending.finish):
        with pytest.raises(RuntimeError) as caught:
            step()
        assert type(caught.value) is kind
    if kind is not RuntimeError:
        assert held[0]() is None
    assert judged_call(fail, "cpu", probes) is fail
    assert judged_start(None, "cuda:0", probes) is None


def test_a_device_is_asked_on_a_stream_that_nothing_is_captured_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[tuple[str, int]] = []

    def stream(device: str, priority: int = 0) -> SimpleNamespace:
        made.append((device, priority))
        return SimpleNamespace(synchronize=lambda: None)

    monkeypatch.setattr(torch.cuda, "Stream", stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    TinyAddition("cpu")()
    assert made == [("cpu", -1)]
