"""The GPUs that a process sees, by a driver that is made up."""

import pytest

from service.engines.device import resolve_device
from service.engines.gpu_memory import GpuMemory, memory_of, reading, taken_bytes
from service.engines.gpus import VISIBLE, Gpu, chosen_gpus, find_gpus

GIB = 2**30


class Driver:
    """A driver of GPUs with so much memory each."""

    def __init__(self, *sizes: int) -> None:
        self._sizes = sizes

    def memory(self) -> tuple[int, ...]:
        return self._sizes


GPUS = find_gpus(Driver(80 * GIB, 40 * GIB, 80 * GIB), {})


def test_without_a_variable_they_are_called_by_their_indices() -> None:
    assert GPUS[1] == Gpu(1, "1", 40 * GIB)
    assert [gpu.device for gpu in GPUS] == ["cuda:0", "cuda:1", "cuda:2"]


@pytest.mark.parametrize("variable", ["GPU-a, GPU-b", "GPU-a,GPU-b,-1"])
def test_they_are_called_as_the_variable_calls_them(variable: str) -> None:
    found = find_gpus(Driver(GIB, GIB), {VISIBLE: variable})
    assert [gpu.visible for gpu in found] == ["GPU-a", "GPU-b"]


def test_this_machine_can_be_asked() -> None:
    assert [gpu.index for gpu in find_gpus()] == list(range(len(find_gpus())))


@pytest.mark.parametrize(
    ("device", "indices"),
    [("cpu", []), ("auto", [0, 1, 2]), ("cuda", [0, 1, 2]), ("cuda:1", [1]), ("cuda:2,0", [2, 0])],
)
def test_the_setting_names_them(device: str, indices: list[int]) -> None:
    assert [gpu.index for gpu in chosen_gpus(device, GPUS)] == indices


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:0,3", "expected some of 3 CUDA devices, got cuda:0,3"),
        ("cuda:1,1", "expected each device once, got cuda:1,1"),
    ],
)
def test_what_is_not_there_or_twice_is_refused(device: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen_gpus(device, GPUS)


def test_in_a_process_the_first_of_several_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert resolve_device("cuda:2,0") == "cuda:2"
    with pytest.raises(ValueError, match="expected one of 3 CUDA devices, got cuda:0,3"):
        resolve_device("cuda:0,3")


def test_what_a_model_took_shows_in_the_card_or_in_the_allocator() -> None:
    before = GpuMemory(total=100, free=90, reserved=8, allocated=1)
    assert taken_bytes(before, GpuMemory(total=100, free=60, reserved=38, allocated=20)) == 30
    # Within what was reserved before.
    assert taken_bytes(before, GpuMemory(total=100, free=90, reserved=8, allocated=6)) == 5
    # Another process gave memory back meanwhile.
    assert taken_bytes(before, GpuMemory(total=100, free=99, reserved=8, allocated=1)) == 0


def test_a_cpu_has_no_memory_to_read() -> None:
    assert memory_of("cpu") is None


def test_a_lost_device_has_no_memory_to_read() -> None:
    class Lost:
        device = "cuda:0"
        card = "GPU-a"

        def read(self) -> GpuMemory:
            raise RuntimeError("CUDA error: unspecified launch failure")

    assert reading(Lost()) is None
    assert reading(None) is None
