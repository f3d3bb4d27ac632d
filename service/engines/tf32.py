"""TF32 off: on a CUDA device the factors of float32 products keep their 24 bits, not 11.

torch leaves it off for products of matrices and on for convolutions. No accuracy that is stated of
a model, and no certificate, holds with it.
"""

import os
import warnings
from collections.abc import Mapping
from typing import Any

# By which NVIDIA's containers turn it on for all that does not turn it off, as this module does.
OVERRIDES = ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "NVIDIA_TF32_OVERRIDE")
# What the newer of torch's two interfaces calls harmless, for what inherits from it.
_EXACT = ("none", "ieee")


class Tf32Error(RuntimeError):
    """TF32 stays on; the message says where."""


def forbid_tf32(backends: Any = None, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Turn TF32 off in this process, for all devices, and read back that it is.

    Through torch's older interface: all versions have it, and keep the newer one consistent with
    it. The other way round, whoever reads the older one gets an error.

    Args:
        backends: `torch.backends`.
        environ: where overrides are looked for.

    Returns:
        What was read back: "matmul", "cudnn", and the overrides that are set.

    Raises:
        Tf32Error: it is on nevertheless.
    """
    if backends is None:
        import torch

        backends = torch.backends
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions advise the newer interface
        if getattr(backends, "fp32_precision", "none") not in _EXACT:
            backends.fp32_precision = "ieee"
        backends.cuda.matmul.allow_tf32 = False
        backends.cudnn.allow_tf32 = False
        found = tf32_facts(backends, environ)
    still = [name for name in ("matmul", "cudnn") if found[name]]
    if still:
        raise Tf32Error(
            f"TF32 cannot be turned off for {' and '.join(still)}: float32 would keep 11 bits of "
            f"every factor; overrides that are set: {found['overrides'] or 'none'}"
        )
    return found


def tf32_facts(backends: Any = None, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Read whether TF32 is on.

    Returns:
        "matmul" and "cudnn", whether it is on for them; "overrides", the variables that are set.
    """
    if backends is None:
        import torch

        backends = torch.backends
    return {
        "matmul": _is_on(backends.cuda.matmul),
        "cudnn": _is_on(backends.cudnn),
        "overrides": {name: environ[name] for name in OVERRIDES if name in environ},
    }


def _is_on(backend: Any) -> bool:
    try:
        return bool(backend.allow_tf32)
    except RuntimeError:  # set through both interfaces, to different values
        return True
