"""The engines that can compute a flow here, and why the others cannot."""

from collections.abc import Iterator

from benchmarks.gpu.results import Results
from models.checkpoints.loading import Checkpoint
from models.onnx.load import has_export
from service.engines.autotune import select_engine
from service.engines.registry import ENGINES
from service.engines.selection import EngineConfig, EngineSelection, EngineUnavailable

# Makes graphs where a folder has none, which takes seconds for a flow.
_GRAPHS = "onnx"


def engines_of(
    results: Results, part: str, checkpoint: Checkpoint, max_rows: int
) -> Iterator[tuple[str, EngineSelection]]:
    """Make every engine of the table in turn; what there is none of is listed as not run."""
    name = checkpoint.folder.name
    for engine in ENGINES:
        subject = f"{name}, {engine}"
        if engine == _GRAPHS and not has_export(checkpoint.folder):
            results.skip(part, subject, "no graphs in a folder: the zoo's are checked")
            continue
        try:
            selection = select_engine(engine, EngineConfig(checkpoint, 1, max_rows))
        except EngineUnavailable as reason:
            results.skip(part, subject, str(reason))
            continue
        yield engine, selection
