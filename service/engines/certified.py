"""The onnx engine of a model folder that its certified graphs serve alone, without torch."""

from dataclasses import replace
from pathlib import Path

from models.checkpoints.facts import ModelFacts
from models.onnx.certified import CertifiedModel, read_certified
from models.onnx.replay import ReplayRows, accuracy_of, replay
from service.engines.onnx import OnnxEngine
from service.engines.replay import find_misfit
from service.engines.selection import EngineSelection, EngineUnavailable


def open_certified(
    folder: Path, dtype: str | None, threads: int
) -> tuple[ModelFacts, EngineSelection]:
    """Serve a model folder by its graphs, which give the golden answers again, on a CPU.

    Args:
        folder: the model's.
        dtype: what to compute in; left out, what the model says.
        threads: of one call.

    Returns:
        The facts of the model, with the accuracy of what serves, and the engine.

    Raises:
        EngineUnavailable: the graphs cannot serve it; torch may.
    """
    try:
        model = read_certified(folder, dtype)
        engine = OnnxEngine(model.graphs, "cpu", threads)
        facts = _replay(model, engine)
    except (OSError, ValueError, RuntimeError) as error:
        raise EngineUnavailable(str(error)) from error
    is_same = bool(model.graphs.certificate["is_batch_invariant"]) and threads == 1
    return facts, EngineSelection(engine, model.graphs.certificate, is_batch_invariant=is_same)


def _replay(model: CertifiedModel, engine: OnnxEngine) -> ModelFacts:
    """Replay the golden rows.

    Returns:
        The facts, with the larger of the errors then and here.

    Raises:
        EngineUnavailable: they do not come out.
    """
    facts, certificate = model.facts, model.graphs.certificate
    rows = ReplayRows.of(model.record, engine.dtype)
    got = replay(engine, rows)
    misfit = find_misfit(engine, got, model.wanted, certificate, is_continuous=facts.is_continuous)
    if not misfit.is_allowed:
        raise EngineUnavailable(misfit.describe())
    # To decode once more takes a continuous flow another solve.
    is_measured = not facts.is_continuous
    here = accuracy_of(engine, model.record, rows, got, is_round_trip_measured=is_measured)
    then = facts.accuracy
    larger = {name: max(error, then.get(name, 0.0)) for name, error in here.items()}
    return replace(facts, accuracy={**then, **larger})
