"""The onnx engine: the flow's numbers, the same bits in every batch, arrays nobody shares."""

import threading
from typing import Any

import numpy as np
import pytest
import torch

from models.flow import Flow
from models.onnx.load import SerialisedExport
from models.onnx.runtime import SessionError, load_runtime, open_session
from service.contracts import Array, EngineOutput
from service.engines.engine import EngineLost, EngineOutOfMemory
from service.engines.onnx import KEPT_SIZES, OnnxEngine, ProviderMissing, providers
from service.engines.torch import TorchEngine
from tests.cases import DISCRETE, make_flow, make_inputs
from tests.models.onnx.exported_cases import GROUP, exported

# One process for all: what they share takes longer to make than they take.
pytestmark = pytest.mark.xdist_group(GROUP)


def serialised(name: str, precision: str = "fp32") -> SerialisedExport:
    made = exported(name, precision)
    return SerialisedExport.of(made.graphs, made.certificate.describe())


def engine(name: str, precision: str = "fp32") -> OnnxEngine:
    return OnnxEngine(serialised(name, precision), "cpu", threads=1)


def arrays(name: str, flow: Flow, rows: int, dtype: Any = np.float32) -> tuple[Any, Any]:
    given = make_inputs(name, flow, rows)
    x = given.x.numpy().astype(dtype)
    return x, None if given.context is None else given.context.numpy().astype(dtype)


@pytest.mark.parametrize("name", ["glow", "realnvp_classes_linear", "maf_resnet_added_context"])
@pytest.mark.parametrize("rows", [1, 7, 70])
def test_it_answers_as_torch_does(name: str, rows: int) -> None:
    flow = make_flow(name)
    x, context = arrays(name, flow, rows)
    fast, slow = engine(name), TorchEngine(flow.float())
    assert (fast.name, fast.device, fast.dtype) == ("onnx", "cpu", "float32")
    for got, wanted in zip(fast.encode(x, context), slow.encode(x, context), strict=True):
        assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
    z = slow.encode(x, context)[0]
    for got, wanted in zip(fast.decode(z, context), slow.decode(z, context), strict=True):
        assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-3)


def columns(found: EngineOutput) -> tuple[Array, ...]:
    """Everything that an engine says of its rows."""
    value, log_det, *stats = found
    return (value, log_det, *(column for each in stats for column in each))


@pytest.mark.parametrize("name", sorted(DISCRETE))
def test_a_row_keeps_its_bits_beside_any_others(name: str) -> None:
    served, flow = engine(name), make_flow(name)
    x, context = arrays(name, flow, rows=80)
    whole = served.encode(x, context)
    order = np.random.default_rng(0).permutation(80)
    for taken in (order[:1], order[:2], order[:7], order[:64], order):
        part = served.encode(x[taken], None if context is None else context[taken])
        for got, wanted in zip(columns(part), columns(whole), strict=True):
            np.testing.assert_array_equal(got, wanted[taken])


def test_it_keeps_float64() -> None:
    flow = make_flow("maf")
    x, _ = arrays("maf", flow, 5, np.float64)
    served = engine("maf", "fp64")
    assert served.dtype == "float64"
    z, log_det = served.encode(x, None)
    wanted, wanted_log_det = flow.encode(torch.from_numpy(x))
    np.testing.assert_allclose(z, wanted.detach(), rtol=1e-12)
    np.testing.assert_allclose(log_det, wanted_log_det.detach(), rtol=1e-12)


@pytest.mark.parametrize("rows", [3, 30_000], ids=["kept-buffers", "no-buffers"])
def test_it_neither_keeps_nor_changes_the_arrays_of_others(rows: int) -> None:
    served = engine("maf")
    x, _ = arrays("maf", make_flow("maf"), rows)
    before = x.copy()
    first = served.encode(x, None)
    np.testing.assert_array_equal(x, before)
    kept = [array.copy() for array in first]
    x += 1
    served.encode(x, None)
    for array, same in zip(first, kept, strict=True):
        np.testing.assert_array_equal(array, same)
        array += 1  # a caller may


def test_arrays_of_any_layout_are_taken() -> None:
    served = engine("glow")
    x, _ = arrays("glow", make_flow("glow"), 6)
    wanted = served.encode(x, None)[0]
    turned = np.asfortranarray(x)
    np.testing.assert_array_equal(served.encode(turned, None)[0], wanted)
    np.testing.assert_array_equal(served.encode(x[::2], None)[0], wanted[::2])


def test_buffers_of_old_batch_sizes_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    served = engine("maf")
    x, _ = arrays("maf", make_flow("maf"), 100)
    bound: list[int] = []

    class CountingRuntime:
        class OrtValue:
            @staticmethod
            def ortvalue_from_numpy(array: Any) -> Any:
                bound.append(len(array))
                return runtime.OrtValue.ortvalue_from_numpy(array)

    runtime = load_runtime()
    monkeypatch.setattr("service.engines.onnx.load_runtime", lambda: CountingRuntime)
    for rows in range(1, 101):
        served.encode(x[:rows], None)
    assert set(bound) == set(range(1, 101))
    bound.clear()
    for rows in range(101 - KEPT_SIZES, 101):
        served.encode(x[:rows], None)
    assert bound == []
    served.encode(x[: 100 - KEPT_SIZES], None)
    assert set(bound) == {100 - KEPT_SIZES}


def test_both_operations_may_run_at_once() -> None:
    served = engine("glow")
    x, _ = arrays("glow", make_flow("glow"), 20)
    z = served.encode(x, None)[0]
    wanted = served.encode(x, None)[0], served.decode(z, None)[0]
    found: list[Any] = []

    def encode() -> None:
        found.extend(np.array_equal(served.encode(x, None)[0], wanted[0]) for _ in range(20))

    def decode() -> None:
        found.extend(np.array_equal(served.decode(z, None)[0], wanted[1]) for _ in range(20))

    threads = [threading.Thread(target=work) for work in (encode, decode)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 40


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Failed to allocate memory for requested buffer of size 1099511627776", EngineOutOfMemory),
        ("BFCArena: out of memory", EngineOutOfMemory),
        ("CUDA failure 700: an illegal memory access was encountered", EngineLost),
        ("Gather: index out of bounds", RuntimeError),
    ],
)
def test_failures_are_distinguished(
    text: str, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    class FailingSession:
        """A session whose every run fails."""

        def __init__(self, session: Any) -> None:
            self._session = session

        def __getattr__(self, name: str) -> Any:
            return getattr(self._session, name)

        def run(self, *_: Any) -> None:
            raise ValueError(text)

        run_with_iobinding = run

    monkeypatch.setattr(
        "service.engines.onnx.open_session",
        lambda *model, **options: FailingSession(open_session(*model, **options)),
    )
    served = engine("maf")
    with pytest.raises(kind, match=text[:20]) as caught:
        served.encode(*arrays("maf", make_flow("maf"), 1))
    assert type(caught.value) is kind


def test_a_broken_graph_is_refused() -> None:
    good = serialised("maf")
    with pytest.raises(SessionError, match="onnxruntime refuses the graph"):
        OnnxEngine(SerialisedExport(good.encode, b"", None, good.certificate), "cpu", 1)


def test_a_device_without_provider_is_an_error() -> None:
    if "CUDAExecutionProvider" in load_runtime().get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(ProviderMissing, match=r"cuda:0: .* the extra gpu"):
        providers("cuda:0")


def test_a_silent_fallback_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [("CUDAExecutionProvider", {"device_id": "0"}), "CPUExecutionProvider"]
    monkeypatch.setattr("service.engines.onnx.providers", lambda _: wanted)
    # onnxruntime warns, leaves out the provider it has not, and goes on: on the CPU.
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(ProviderMissing, match="asked for CUDAExecutionProvider and took CPU"),
    ):
        OnnxEngine(serialised("maf"), "cuda:0", 1)


def test_tf32_is_off_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        load_runtime(), "get_available_providers", lambda: ["CUDAExecutionProvider"]
    )
    (name, options), fallback = providers("cuda:1")
    assert (name, fallback) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert (options["device_id"], options["use_tf32"]) == ("1", "0")


@pytest.mark.gpu(provider="CUDAExecutionProvider")
def test_cuda_answers_as_float64_does() -> None:
    name = "glow"
    flow = make_flow(name)
    x, _ = arrays(name, flow, 20)
    served = OnnxEngine(serialised(name), "cuda:0", 1)
    assert served.device == "cuda:0"
    z, log_det = served.encode(x, None)
    with torch.no_grad():
        wanted, wanted_log_det = flow.encode(torch.from_numpy(x).double())
    np.testing.assert_allclose(z, wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(log_det, wanted_log_det, rtol=1e-5, atol=1e-4)
