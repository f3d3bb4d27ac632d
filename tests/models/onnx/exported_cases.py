"""The exports of cases, each made once a process: they take longer to make than to try."""

from functools import cache

from models.onnx.export import Export, export
from tests.cases import make_flow

# Of the tests that share them, so that they run on one process.
GROUP = "graphs"


@cache
def exported(name: str, precision: str = "fp32") -> Export:
    """Export a case."""
    return export(make_flow(name), precision=precision)
