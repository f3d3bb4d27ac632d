"""The fused engine: what it refuses, and in Triton's interpreter what it computes."""

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from service.engines.cuda import fused
from service.engines.cuda.graphs import capture_flow
from service.engines.engine import EngineOutOfMemory
from service.engines.precision import PrecisionRefused
from service.engines.selection import EngineConfig, EngineUnavailable

from .fakes import FakeRuntime
from .flows import checkpoint, golden_rows

pytestmark = [
    pytest.mark.xdist_group("folded"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning"),
]


def config(name: str, precision: str = "float32") -> EngineConfig:
    return EngineConfig(checkpoint(name), threads=1, max_rows=2, precision=precision)


@pytest.fixture
def interpreter() -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("TRITON_INTERPRET=1 is not set")


def test_on_a_cpu_it_says_what_to_choose() -> None:
    with pytest.raises(EngineUnavailable, match=r"kernels are for CUDA devices, and .* on cpu"):
        fused.make_engine(config("realnvp"))


def test_without_triton_it_says_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "find_spec", lambda name: None)
    on_cuda: Any = SimpleNamespace(flow=SimpleNamespace(device=torch.device("cuda:0")))
    with pytest.raises(EngineUnavailable, match="torch's builds for CUDA bring it"):
        fused.make_engine(cast(EngineConfig, on_cuda))


def test_captured_kernels_give_the_numbers_of_the_model(interpreter: None) -> None:
    one = config("realnvp")
    flow, facts = fused.fuse_flow(one)
    assert facts == {}
    engine = capture_flow(flow, one, "fused", FakeRuntime(), time_replay=lambda batch: 1.0).engine
    assert engine.name == "fused"
    x, _, _ = golden_rows("realnvp")
    z, log_det = engine.encode(x[:2], None)[:2]
    wanted = one.checkpoint.exact.encode(torch.from_numpy(x[:2]).double())
    np.testing.assert_allclose(z, wanted[0].detach().numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(log_det, wanted[1].detach().numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "precision", "reason"),
    [
        ("maf", "float32", "no kernel: it has neither couplings over vectors nor dense"),
        ("realnvp", "bf16", "precision bf16: kernels compute in float32, tf32, tf32x3"),
    ],
)
def test_what_has_no_kernel_is_told(
    name: str, precision: str, reason: str, interpreter: None
) -> None:
    with pytest.raises((EngineUnavailable, PrecisionRefused), match=reason):
        fused.fuse_flow(config(name, precision))


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (
            RuntimeError("Failed to find C compiler"),
            EngineUnavailable,
            "cannot be compiled: Failed to find C compiler",
        ),
        (
            subprocess.CalledProcessError(1, "gcc"),
            EngineUnavailable,
            "cannot be compiled: Command 'gcc' returned",
        ),
        (AssertionError(), EngineUnavailable, "cannot be compiled: AssertionError"),
        (PrecisionRefused("off by 3 nats"), PrecisionRefused, "^off by 3 nats$"),
        (RuntimeError("CUDA out of memory"), EngineOutOfMemory, "^CUDA out of memory$"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_kernels_that_cannot_be_compiled_are_no_engine(
    error: Exception, kind: type[Exception], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    module = SimpleNamespace(fuse=lambda flow, precision: flow)
    monkeypatch.setitem(sys.modules, "models.kernels.fuse", module)
    monkeypatch.setattr(fused, "certify", fail)
    with pytest.raises(kind, match=reason):
        fused.fuse_flow(config("realnvp"))
