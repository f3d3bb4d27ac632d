"""The exports of cases, each made once a process: they take longer to make than to try."""

from functools import cache

from models.onnx.export import Export, export
from tests.cases import make_flow

# Of the tests that share them, so that they run on one process.
GROUP = "graphs"


def exported(name: str, precision: str = "fp32") -> Export:
    """Export a case, or give the export that was made before."""
    # A cache tells a default that is left out from one that is given.
    return _export(name, precision)


@cache
def _export(name: str, precision: str) -> Export:
    return export(make_flow(name), precision=precision)
