"""Where kernels can run: on a CUDA device, or in Triton's interpreter."""

import os

import numpy as np
import pytest
import torch

# Before Triton is imported by anybody.
HAS_INTERPRETER = os.environ.get("TRITON_INTERPRET") == "1"
# What Triton 3.6's interpreter makes of scalars, numpy refuses from here on.
_NUMPY_BOUND = (2, 4)


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where kernels run; skips where they do not."""
    pytest.importorskip("triton", reason="Triton is not installed")
    if not HAS_INTERPRETER:
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device, and TRITON_INTERPRET=1 is not set")
        return torch.device("cuda")
    if tuple(map(int, np.__version__.split(".")[:2])) >= _NUMPY_BOUND:
        pytest.skip(f"Triton's interpreter needs numpy < 2.4, and this is {np.__version__}")
    return torch.device("cpu")
