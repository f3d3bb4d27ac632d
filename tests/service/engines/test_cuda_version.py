"""onnxruntime and torch compute on one CUDA, or it is said which and what to install."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from service.engines.cuda_version import require_same_cuda
from service.engines.onnx import make_engine
from service.engines.selection import EngineConfig, EngineUnavailable


@pytest.mark.parametrize(
    ("torch_cuda", "runtime_cuda"),
    [("13.0", "13.0"), ("13.0", "13.2"), ("12.8", "12.1"), (None, "12.8"), ("13.0", "")],
)
def test_one_major_version_will_do(torch_cuda: str | None, runtime_cuda: str) -> None:
    require_same_cuda(torch_cuda, runtime_cuda)


@pytest.mark.parametrize(("torch_cuda", "runtime_cuda"), [("13.0", "12.8"), ("12.8", "13.0")])
def test_two_major_versions_are_refused(torch_cuda: str, runtime_cuda: str) -> None:
    wanted = torch_cuda.partition(".")[0]
    with pytest.raises(EngineUnavailable, match=f"install the onnxruntime-gpu .* CUDA {wanted}"):
        require_same_cuda(torch_cuda, runtime_cuda)


def test_the_engine_looks_before_it_makes_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime: Any = SimpleNamespace(cuda_version="12.8")
    monkeypatch.setattr("service.engines.onnx.load_runtime", lambda: runtime)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    flow = SimpleNamespace(device=torch.device("cuda:0"))
    with pytest.raises(EngineUnavailable, match=r"CUDA 13, that of torch \(13\.0\), got one for"):
        make_engine(cast(EngineConfig, SimpleNamespace(flow=flow)))
