"""The machine of a run: card, driver, and the versions of what computes."""

import os
import shutil
import subprocess
from typing import Any

import torch

from benchmarks import harness
from models.onnx.runtime import load_runtime
from pushforward.version import package_version

_QUERY = (
    "name",
    "driver_version",
    "memory.total",
    "compute_cap",
    "clocks.max.sm",
    "utilization.gpu",
)
_LIBRARIES = ("triton", "numpy", "scipy", "onnx", "safetensors", "torchdiffeq", "httpx", "fastapi")
# What changes float32 from outside of this process.
_TF32_OVERRIDE = "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"


def describe(device: str) -> dict[str, Any]:
    """All of it, as JSON can hold it."""
    runtime = load_runtime()
    facts: dict[str, Any] = {
        **harness.machine(),
        "device": device,
        "pushforward": package_version(),
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "onnxruntime": runtime.__version__,
        "onnxruntime_providers": runtime.get_available_providers(),
        "libraries": _versions(),
        "gpus": _gpus(),
        "tf32_override": os.environ.get(_TF32_OVERRIDE, ""),
    }
    if device != "cpu":
        properties = torch.cuda.get_device_properties(device)
        facts["card"] = properties.name
        facts["card_memory_bytes"] = properties.total_memory
        facts["multiprocessors"] = properties.multi_processor_count
    return facts


def require_float32() -> None:
    """Have products and convolutions on a GPU computed in float32: torch's default is TF32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = str(__import__(name).__version__)
        except (ImportError, AttributeError):
            continue
    return found


def _gpus() -> list[dict[str, str]]:
    """What nvidia-smi says, where it is."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    asked = subprocess.run(
        [program, f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    lines = [line.split(", ") for line in asked.stdout.splitlines()]
    return [dict(zip(_QUERY, line, strict=False)) for line in lines]
