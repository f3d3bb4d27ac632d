"""The folded engine: torch on the flow whose constant parts are joined."""

from models.ode.transform import is_continuous
from service.engines.precision import fold_in_precision
from service.engines.probe import PROBES
from service.engines.registry import FLOAT32
from service.engines.selection import EngineConfig, EngineSelection, EngineUnavailable
from service.engines.torch import TorchEngine


def make_engine(config: EngineConfig) -> EngineSelection:
    """Fold the flow; see `service.engines.selection.MakeEngine`."""
    if is_continuous(config.flow) and config.precision == FLOAT32:
        raise EngineUnavailable("continuous flows fold for onnx alone")
    flow, precision = fold_in_precision(config)
    probe = PROBES.of(str(config.flow.device))
    return EngineSelection(
        TorchEngine(flow, name="folded", probe=probe),
        is_neighbour_invariant=config.flow.device.type == "cpu",  # as for the torch engine
        precision=precision,
    )
