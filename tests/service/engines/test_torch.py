"""The torch engine: the flow's own numbers, arrays nobody shares, failures distinguished."""

import re
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

import models
from models.flow import Flow
from models.transforms.transform import Transform
from service.engines.device import count_devices, resolve_device, why_cpu
from service.engines.engine import EngineLost, EngineOutOfMemory
from service.engines.torch import TorchEngine


def perturbed(**config: object) -> Flow:
    torch.manual_seed(1)
    flow = models.build("realnvp", {"event_shape": [3], "num_layers": 2, **config})
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return flow


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_results_are_the_flows_own(dtype: torch.dtype) -> None:
    flow = perturbed().to(dtype)
    engine = TorchEngine(flow)
    rows = torch.randn(5, 3, dtype=dtype)
    for call, own in ((engine.encode, flow.encode), (engine.decode, flow.decode)):
        value, log_det = call(rows.numpy(), None)
        with torch.no_grad():
            expected = own(rows)
        assert value.dtype == log_det.dtype == np.dtype(engine.dtype)
        np.testing.assert_array_equal(value, expected[0].numpy())
        np.testing.assert_array_equal(log_det, expected[1].numpy())


def test_context_reaches_the_flow() -> None:
    flow = perturbed(context_features=2)
    rows, context = torch.randn(4, 3), torch.randn(4, 2)
    value, _ = TorchEngine(flow).encode(rows.numpy(), context.numpy())
    with torch.no_grad():
        np.testing.assert_array_equal(value, flow.encode(rows, context)[0].numpy())


def test_it_says_where_it_is() -> None:
    engine = TorchEngine(perturbed())
    assert (engine.name, engine.device, engine.dtype) == ("torch", "cpu", "float32")


def test_a_continuous_flow_runs_with_its_divergence() -> None:
    flow = models.build("ffjord", {"event_shape": [2]})
    rows = torch.randn(3, 2)
    value, log_det, _ = TorchEngine(flow).encode(rows.numpy(), None)
    assert value.shape == (3, 2)
    assert np.isfinite(log_det).all()


class Identity(Transform):
    """Gives back the very tensor it was given."""

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x, x.new_zeros(len(x))

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.encode(y)


def test_a_result_shares_no_memory_with_the_batch() -> None:
    rows = np.ones((2, 3), np.float32)
    value, _ = TorchEngine(Flow([Identity()], (3,))).encode(rows, None)
    rows[:] = 7
    assert (value == 1).all()


def test_a_result_lies_in_order() -> None:
    class Transposing(Identity):
        def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
            return (2 * x).T.contiguous().T, x.new_zeros(len(x))

    value, _ = TorchEngine(Flow([Transposing()], (3,))).encode(np.ones((2, 3), np.float32), None)
    assert value.flags.c_contiguous


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        pytest.param(
            torch.OutOfMemoryError("CUDA out of memory. Tried ..."), EngineOutOfMemory, id="cuda"
        ),
        pytest.param(
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."),
            EngineOutOfMemory,
            id="cpu",
        ),
        pytest.param(
            RuntimeError("CUDA error: device-side assert triggered"), EngineLost, id="lost"
        ),
        pytest.param(RuntimeError("shapes do not match"), RuntimeError, id="other"),
    ],
)
def test_failures_are_distinguished(raised: Exception, expected: type[Exception]) -> None:
    class Failing(Identity):
        def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
            raise raised

    with pytest.raises(RuntimeError) as caught:
        TorchEngine(Flow([Failing()], (3,))).encode(np.ones((2, 3), np.float32), None)
    assert type(caught.value) is expected


def test_the_device_is_chosen_or_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == "cpu"
    with pytest.raises(ValueError, match="0 CUDA devices"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("service.engines.device.has_gpu_driver", lambda: False)
    assert resolve_device("auto") == "cpu"  # nobody asked torch
    monkeypatch.setattr("service.engines.device.has_gpu_driver", lambda: True)
    assert resolve_device("auto") == resolve_device("cuda") == "cuda:0"
    assert resolve_device("cuda:1") == "cuda:1"
    with pytest.raises(ValueError, match="got cuda:2"):
        resolve_device("cuda:2")


class FakeTorch:
    """What is asked of torch: its devices, its build, and what it warns of."""

    def __init__(self, devices: int, *, cuda: str | None = "13.0", warning: str = "") -> None:
        self._devices, self._warning = devices, warning
        self.__version__ = "2.11.0"
        self.version = SimpleNamespace(cuda=cuda, hip=None)
        self.cuda = self

    def is_available(self) -> bool:
        if self._warning:
            warnings.warn(self._warning, stacklevel=1)
        return self._devices > 0

    def device_count(self) -> int:
        return self._devices


@pytest.mark.parametrize(
    ("fake", "environ", "expected"),
    [
        (FakeTorch(2), {}, (2, "")),
        (FakeTorch(0, cuda=None), {}, (0, "torch 2.11.0 is built without CUDA")),
        (
            FakeTorch(0, warning="The NVIDIA driver on your system is too old (found 11040).\nX"),
            {},
            (0, "The NVIDIA driver on your system is too old (found 11040)."),
        ),
        (FakeTorch(0), {}, (0, "torch finds no device")),
        (
            FakeTorch(0),
            {"CUDA_VISIBLE_DEVICES": ""},
            (0, "torch finds no device with CUDA_VISIBLE_DEVICES=''"),
        ),
    ],
)
def test_it_is_said_why_there_is_no_device(
    fake: FakeTorch, environ: dict[str, str], expected: tuple[int, str]
) -> None:
    assert count_devices(fake, environ) == expected


def test_auto_says_why_it_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engines.device.has_gpu_driver", lambda: False)
    assert why_cpu().startswith("no GPU driver is installed (")
    monkeypatch.setattr("service.engines.device.has_gpu_driver", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    reason = why_cpu()
    assert "torch" in reason
    with pytest.raises(ValueError, match=re.escape(f"got cuda ({reason}); cpu always works")):
        resolve_device("cuda")


@pytest.mark.gpu
def test_on_a_gpu_results_agree_with_the_cpu(device: str) -> None:
    flow = perturbed().double()
    rows = np.random.default_rng(0).standard_normal((64, 3))
    expected, expected_log_det = TorchEngine(flow).encode(rows, None)
    value, log_det = TorchEngine(flow.to(device)).encode(rows, None)
    np.testing.assert_allclose(value, expected, atol=1e-12)
    np.testing.assert_allclose(log_det, expected_log_det, atol=1e-12)
