"""What every test shares: one thread, a fixed seed, and the GPU switch. Imports no torch itself."""

import gc
import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path

# Before torch is imported: the suite runs one process a core, each on one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from models.onnx.runtime import load_runtime

# A shell starts what runs in the background with Ctrl-C ignored; tests interrupt themselves.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        default="cpu",
        help="where tests that take the `device` fixture run: cpu (default), cuda or cuda:N",
    )


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for garbage once: what is collected stays, and each look at it takes long."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


# What runs last, where several processes run the tests: short ones, so that none waits for another.
_SHORT = ("models", "pushforward", "service", "contract")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    """Where a test's folder comes among those that run last; what starts processes runs first."""
    folder = item.path.relative_to(Path(__file__).parent).parts[0]
    return _SHORT.index(folder) if folder in _SHORT else -1


def pytest_runtest_setup(item: pytest.Item) -> None:
    marker = item.get_closest_marker("gpu")
    if marker is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device on this machine")
        provider = marker.kwargs.get("provider")
        if provider is not None and provider not in load_runtime().get_available_providers():
            pytest.skip(f"the onnxruntime of this machine has no {provider}")


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """The device chosen on the command line; `cuda` for a test marked gpu."""
    chosen: str = request.config.getoption("--device")
    is_gpu_test = request.node.get_closest_marker("gpu") is not None
    return "cuda" if is_gpu_test and chosen == "cpu" else chosen


@pytest.fixture(autouse=True)
def _seed_torch() -> None:
    # Tests that never touched torch stay fast: nothing is imported for them.
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
