"""The graphs of an onnx engine: those in the model's folder, or others made on the spot."""

import logging

from models.checkpoints.folder import digest
from models.ode.fields import UNetDynamics
from models.ode.transform import is_continuous
from models.onnx.export import PRECISIONS, export
from models.onnx.load import SerialisedExport, has_export, read_export
from models.onnx.names import DEFAULT_OPSET
from service.engines.onnx_cuda import CUDA_OPSET
from service.engines.selection import EngineConfig, EngineUnavailable, dtype_name

# A graph that is not in the folder is made and certified on the spot, unless torch takes longer
# than this for a row: the certificate asks torch for a hundred rows in float64. Far above what a
# Glow of 32 x 32 pixels takes on a busy machine: how busy it is should not choose the engine.
SLOW_ROW_SECONDS = 0.1
# The same of a continuous flow, whose row alone takes torch nearly as long as a hundred. Those of a
# U-Net are never made so: its loops are hundreds of nodes a layer.
SLOW_SOLVE_SECONDS = 1.0
_RANDOM_ROWS = 8

_log = logging.getLogger(__name__)


def find_graphs(config: EngineConfig) -> SerialisedExport:
    """Read the graphs of a model, or make them.

    Raises:
        EngineUnavailable: they are made too slowly for an engine that nobody asked for.
        ValueError, RuntimeError: those of the folder cannot be used, or none can be made.
    """
    found = _read_graphs(config)
    if found is not None:
        return found
    bound = SLOW_SOLVE_SECONDS if is_continuous(config.flow) else SLOW_ROW_SECONDS
    is_unet = any(isinstance(module, UNetDynamics) for module in config.flow.modules())
    if config.row_seconds is not None and (is_unet or config.row_seconds > bound):
        raise EngineUnavailable(
            "its folder holds no graphs, and they take long to make: run pushforward export"
        )
    return _make_graphs(config)


def _read_graphs(config: EngineConfig) -> SerialisedExport | None:
    folder = config.checkpoint.folder
    if not has_export(folder):
        return None
    found = read_export(folder, config.flow, digest(folder))
    precision = found.certificate["precision"]
    if config.flow.needs_float64 and precision != dtype_name(config.flow.dtype):
        # Exported before such data were kept in float64: others are made.
        _log.info("%s: its graphs take float32, which its data need more than", folder.name)
        return None
    return found


def _make_graphs(config: EngineConfig) -> SerialisedExport:
    """Export in memory: the folder is the operator's, and the server does not write into it."""
    precision = next(name for name, dtype in PRECISIONS.items() if dtype == config.flow.dtype)
    made = export(
        config.checkpoint.exact,
        precision=precision,
        opset=DEFAULT_OPSET if config.flow.device.type == "cpu" else CUDA_OPSET,
        record=config.checkpoint.record,
        random_rows=_RANDOM_ROWS,
    )
    return SerialisedExport.of(made.graphs, made.certificate.describe())
