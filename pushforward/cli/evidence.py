"""What statistics read of rows, computed by the engine that would serve the model."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.checkpoints.facts import ModelFacts
from models.checkpoints.manifest import digest
from models.scoring.statistics import Evidence
from service.codec.tensors import cast
from service.engines.engine import Engine
from service.launch.exits import StartupError
from service.operations.log_prob import log_density
from service.repository.engine_loading import takes_graphs
from service.repository.overrides import ModelOverrides, read_overrides
from service.settings import Settings

Array = NDArray[Any]

_VALUES_IN_BATCH = 2**17
_MIN_ROWS_IN_BATCH = 16
_MAX_ROWS_IN_BATCH = 512


class OpenedModel(NamedTuple):
    """A model folder, its facts, the engine that serves it here, and the digest of its weights."""

    folder: Path
    facts: ModelFacts
    engine: Engine
    weights: str


def open_model(folder: Path) -> OpenedModel:
    """Open a model as the server would on this machine: by certified graphs, else by torch.

    Raises:
        ValueError, ModuleNotFoundError: it cannot be served, or not without torch.
    """
    try:
        overrides = read_overrides(folder, Settings())
    except StartupError as error:
        raise ValueError(str(error)) from None
    opened = _by_graphs(folder, overrides) if takes_graphs(overrides) else None
    facts, engine = opened or _by_torch(folder, overrides)
    return OpenedModel(folder, facts, engine, digest(folder))


def _by_graphs(folder: Path, overrides: ModelOverrides) -> tuple[ModelFacts, Engine] | None:
    from service.engines.certified import open_certified
    from service.engines.selection import EngineUnavailable

    try:
        # On one thread: a row then has the same bits in every batch, here and in the server.
        facts, selection = open_certified(folder, overrides.dtype, 1)
    except EngineUnavailable:
        return None
    return facts, selection.engine


def _by_torch(folder: Path, overrides: ModelOverrides) -> tuple[ModelFacts, Engine]:
    from models.checkpoints.facts import facts_of
    from models.checkpoints.loading import DTYPES, load_checkpoint
    from service.engines.tf32 import forbid_tf32
    from service.engines.torch import TorchEngine

    if overrides.device != "cpu":
        forbid_tf32()
    dtype = None if overrides.dtype is None else DTYPES[overrides.dtype]
    flow = load_checkpoint(folder, dtype=dtype, device=overrides.device).flow
    return facts_of(flow), TorchEngine(flow)


def gather_evidence(
    model: OpenedModel,
    x: Array,
    context: Array | None = None,
    background: OpenedModel | None = None,
) -> Evidence:
    """Compute what statistics read of rows.

    Args:
        model: whose rows they are.
        x: (N, *event_shape), as a caller has them.
        context: (N, C), of a conditional model.
        background: the other model of a ratio; it takes no context.

    Returns:
        Of all N rows: x as the engine takes it, log_prob as a server answers it.
    """
    dtype = np.dtype(model.engine.dtype)
    rows = cast(x, dtype)
    given = None if context is None else cast(context, dtype)
    parts = [
        _encode(model.engine, rows[part], None if given is None else given[part])
        for part in _batches(model.facts, len(rows))
    ]
    z, log_prob = (np.concatenate(values) for values in zip(*parts, strict=True))
    return Evidence(
        x=rows,
        log_prob=log_prob,
        z=z,
        background=None if background is None else gather_evidence(background, x).log_prob,
        num_levels=model.facts.num_levels,
    )


def _batches(facts: ModelFacts, rows: int) -> list[slice]:
    fitting = _VALUES_IN_BATCH // facts.features
    size = min(max(fitting, _MIN_ROWS_IN_BATCH), _MAX_ROWS_IN_BATCH)
    return [slice(start, start + size) for start in range(0, rows, size)]


def _encode(engine: Engine, x: Array, context: Array | None) -> tuple[Array, Array]:
    z, log_det, *_ = engine.encode(x, context)
    return z, log_density(z, log_det).astype(np.float64)
