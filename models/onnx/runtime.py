"""onnxruntime: which build is installed, and sessions as flows want them.

The only module that may import onnxruntime (a test looks for others): builds of it report their
use to their makers unless they are told not to before they are imported.
"""

import os
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from models.extras import install_command

_BUILDS = ("onnxruntime", "onnxruntime-gpu")
# Read while the library is loaded: its own `disable_telemetry_events` comes too late, threads,
# look-ups and files in the user's home are there by then.
_NO_TELEMETRY = ("ORT_DISABLE_TELEMETRY", "1")
# Of the ways in which an arena grows.
_AS_ASKED = 1


class RuntimeMissing(RuntimeError):
    """onnxruntime cannot be used as it is installed."""


class SessionError(RuntimeError):
    """onnxruntime cannot run a graph."""


@cache
def load_runtime() -> ModuleType:
    """Import onnxruntime without telemetry; the first call takes time: it looks what is installed.

    Raises:
        RuntimeMissing: if neither build is installed, or both are in one folder: they overwrite
            each other's files, and the one that wins may have no CUDA. Of two folders the first on
            the path counts.
    """
    found = [folder for name in _BUILDS if (folder := _folder_of(name)) is not None]
    if len(set(found)) < len(found):
        raise RuntimeMissing(
            f"onnxruntime and onnxruntime-gpu are both installed in {found[0]} and overwrite each "
            "other; run pip uninstall onnxruntime onnxruntime-gpu, then install one of the extras "
            "cpu, gpu"
        )
    os.environ.update([_NO_TELEMETRY])  # processes that this one starts inherit it
    try:
        runtime = import_module("onnxruntime")
    except ImportError as error:
        raise RuntimeMissing(
            f"onnxruntime cannot be imported ({error}): it needs the extra cpu or gpu: "
            f"{install_command('cpu')}"
        ) from None
    _share_memory(runtime)
    return runtime


def _share_memory(runtime: ModuleType) -> None:
    """Let all sessions of the process compute in one arena on the CPU.

    Each would keep what its largest batch took, for ever. It grows by what is asked for: twice
    that, onnxruntime's own way, took another eighth. Calls are as fast.
    """
    kind, memory = runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, runtime.OrtMemType.DEFAULT
    arena = runtime.OrtArenaCfg({"arena_extend_strategy": _AS_ASKED})
    runtime.create_and_register_allocator(runtime.OrtMemoryInfo("Cpu", kind, 0, memory), arena)


def open_session(
    model: bytes | str,
    *,
    threads: int = 1,
    providers: Sequence[str | tuple[str, dict[str, Any]]] = ("CPUExecutionProvider",),
    entries: Mapping[str, str] | None = None,
) -> Any:
    """Open an `onnxruntime.InferenceSession`.

    With one thread every row has the same bits in every batch (see `models.onnx.operators`). No
    thread spins while it waits: beside other busy processes that costs more than it saves.

    Args:
        model: a serialised graph, or the path of one.
        threads: for the operators of one call.
        providers: in order of preference.
        entries: of the session's configuration, by their names in onnxruntime.

    Raises:
        SessionError: if the graph is broken, or has operators that the providers have not.
    """
    runtime = load_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    for name, value in (entries or {}).items():
        options.add_session_config_entry(name, value)
    try:
        return runtime.InferenceSession(model, options, providers=list(providers))
    except Exception as error:  # onnxruntime's own have no common base but this
        raise SessionError(f"onnxruntime refuses the graph: {error}") from error


def _folder_of(name: str) -> Path | None:
    """Where a distribution lies, the first of that name on the path."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    return Path(str(found.locate_file(""))).resolve()
