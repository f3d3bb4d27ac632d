"""The import of torch by a process that has served without it."""

import ctypes
import importlib
import importlib.util
import os
from contextlib import suppress
from pathlib import Path

# The largest of its libraries.
_LIBRARY = "libtorch_cpu.so"


def import_torch(threads: int) -> None:
    """Import torch and what builds flows, in a thread; the loop goes on meanwhile.

    Args:
        threads: of one call of torch.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    _open_library()
    import torch

    importlib.import_module("models.checkpoints.folder")
    torch.set_num_threads(threads)


def release_memory(device: str) -> None:
    """Give a CUDA device the memory back that torch keeps: what is tried next is of other sizes."""
    if not device.startswith("cuda"):
        return
    import torch

    with suppress(RuntimeError):  # of a lost device
        torch.cuda.empty_cache()


def _open_library() -> None:
    """Open the library before Python does, which lets no other thread run while it is opened.

    A call through ctypes does: the longest pause of the loop falls from 0.6 s to 0.2 s.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations or os.name != "posix":
        return
    path = Path(spec.submodule_search_locations[0]) / "lib" / _LIBRARY
    with suppress(OSError, AttributeError):  # another build, another system
        opener = ctypes.CDLL(None).dlopen
        opener.argtypes = (ctypes.c_char_p, ctypes.c_int)
        opener.restype = ctypes.c_void_p
        opener(os.fsencode(path), os.RTLD_NOW)
