"""The folded engine: torch on the flow whose constant parts are joined."""

from models.fold import fold
from models.ode.transform import is_continuous
from service.engines.probe import PROBES
from service.engines.selection import EngineConfig, EngineSelection, EngineUnavailable
from service.engines.torch import TorchEngine


def make_engine(config: EngineConfig) -> EngineSelection:
    """Fold the flow; see `service.engines.selection.MakeEngine`."""
    if is_continuous(config.flow):
        raise EngineUnavailable("continuous flows fold for onnx alone")
    probe = PROBES.of(str(config.flow.device))
    return EngineSelection(TorchEngine(fold(config.flow), name="folded", probe=probe))
