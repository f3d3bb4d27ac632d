"""From a model folder to what computes: by its certified graphs alone, or with torch.

certified graphs, on a CPU ──> onnxruntime and numpy          they give the golden answers again
         └── none, refused, another engine or device ──> torch   the flow is rebuilt and proved
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.checkpoints.errors import CheckpointError
from models.checkpoints.facts import ModelFacts, facts_of
from models.extras import install_command
from models.onnx.certified import has_certified_facts
from models.onnx.load import has_export
from service.engines.cpu import share_cpu
from service.engines.device_errors import device_fault, release_frames
from service.engines.engine import EngineLost, EngineOutOfMemory
from service.engines.places import prove_places
from service.engines.probe import PROBES
from service.engines.registry import AUTO, FLOAT32
from service.engines.selection import EngineConfig, EngineSelection, EngineUnavailable
from service.engines.tf32 import Tf32Error, forbid_tf32
from service.engines.torch_library import import_torch, release_memory
from service.launch.exits import StartupError
from service.repository.dedicated_thread import run_in_dedicated_thread
from service.repository.folders import ModelLocation
from service.repository.overrides import ModelOverrides

ONNX = "onnx"
# What `auto` says of an engine that was taken without being compared.
_NOT_COMPARED: dict[str, Any] = {"seconds_a_call": {}, "refused": {}}

_log = logging.getLogger(__name__)


async def load_engine(
    location: ModelLocation, overrides: ModelOverrides, max_rows: Callable[[ModelFacts], int]
) -> tuple[ModelFacts, EngineSelection]:
    """Read a model folder, prove it, and make its engine.

    Args:
        location: of the model.
        overrides: its settings.
        max_rows: gives the rows of its largest batch.

    Raises:
        StartupError: the folder or the engine cannot be had.
    """
    refusal = f"engine {overrides.settings.engine} on {overrides.device}"
    if takes_graphs(overrides):
        try:
            return await run_in_dedicated_thread(lambda: _open_certified(location, overrides))
        except EngineUnavailable as error:
            refusal = str(error)
            if has_export(location.folder):
                _log.warning("%s: its graphs do not serve alone: %s", location.name, refusal)
    try:
        return await run_in_dedicated_thread(
            lambda: _open_with_torch(location, overrides, max_rows)
        )
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "torchdiffeq"):
            raise
        raise StartupError(
            f"{location.folder}: {refusal}: torch would serve it, and is not installed: "
            f"{install_command('cpu')}"
        ) from None
    except CheckpointError as error:
        raise StartupError(str(error)) from None
    except EngineUnavailable as error:
        raise StartupError(f"{location.folder}: {error}") from None
    except Tf32Error as error:
        raise StartupError(f"{location.folder}: {overrides.device}: {error}") from None
    except EngineOutOfMemory as error:
        raise StartupError(
            f"{location.folder}: {overrides.device} has too little memory for it: "
            f"{_first_line(error)}"
        ) from None
    except EngineLost as error:
        raise StartupError(f"{location.folder}: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def takes_graphs(overrides: ModelOverrides) -> bool:
    """Whether certified graphs in the folder would be served alone."""
    settings = overrides.settings
    is_plain = settings.engine in (AUTO, ONNX) and settings.precision == FLOAT32
    return is_plain and overrides.device == "cpu"


def needs_torch(folder: Path, overrides: ModelOverrides) -> bool:
    """Whether torch will be imported for a model, as far as a look at its folder tells."""
    return not (takes_graphs(overrides) and has_certified_facts(folder))


def _open_certified(
    location: ModelLocation, overrides: ModelOverrides
) -> tuple[ModelFacts, EngineSelection]:
    from service.engines.certified import open_certified

    settings = overrides.settings
    threads = share_cpu(settings.instances, settings.num_threads, settings.workers).threads
    facts, selection = open_certified(location.folder, overrides.dtype, threads)
    if settings.engine == AUTO:
        selection = replace(selection, comparison=dict(_NOT_COMPARED))
    return facts, selection


def _open_with_torch(
    location: ModelLocation, overrides: ModelOverrides, max_rows: Callable[[ModelFacts], int]
) -> tuple[ModelFacts, EngineSelection]:
    """Read the folder and select an engine, where the device computes.

    Raises:
        EngineOutOfMemory, EngineLost: it does not; whatever was there of the model is gone.
    """
    settings, device = overrides.settings, overrides.device
    threads = share_cpu(settings.instances, settings.num_threads, settings.workers).threads
    import_torch(threads)
    probe = PROBES.of(device)
    if probe is not None:
        if reason := probe.ask():
            raise EngineLost(reason)
        tf32 = forbid_tf32()
        _log.info("%s: float32 on %s without TF32: %s", location.name, device, tf32)
    try:
        return _read_and_select(location, overrides, threads, max_rows)
    except EngineUnavailable:
        raise
    except (RuntimeError, MemoryError) as error:
        fault = device_fault(error, probe)
        if fault is None:
            raise
        release_frames(error)
    release_memory(device)
    raise fault


def _read_and_select(
    location: ModelLocation,
    overrides: ModelOverrides,
    threads: int,
    max_rows: Callable[[ModelFacts], int],
) -> tuple[ModelFacts, EngineSelection]:
    """Read the folder, once, and select an engine; the float64 copy for that ends with it."""
    from models.checkpoints.loading import DTYPES, load_checkpoint
    from service.engines.autotune import select_engine

    dtype = None if overrides.dtype is None else DTYPES[overrides.dtype]
    checkpoint = load_checkpoint(location.folder, dtype=dtype, device=overrides.device)
    facts = facts_of(checkpoint.flow)
    settings = overrides.settings
    rows = max_rows(facts)
    config = EngineConfig(checkpoint, threads, rows, precision=settings.precision)
    selection = select_engine(settings.engine, config)
    if settings.batching == "invariant":
        record = {name: tensor.numpy() for name, tensor in checkpoint.record.items()}
        # Where the device has memory for fewer, batches are of as many.
        rows = min(rows, max(selection.batch_sizes, default=rows))
        selection = prove_places(selection, record, rows, location.name)
    return facts, selection
