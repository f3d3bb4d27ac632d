"""The project's own tools count what they say they count."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.edits import count_lines, find_edits

ROOT = Path(__file__).resolve().parent.parent
NAME = re.compile(r'"/?sample"|Sample|def [Ss]ample')


pytestmark = pytest.mark.xdist_group("tools")


@pytest.fixture(scope="module")
def counted() -> Any:
    command = [sys.executable, "-m", "tools.follow_request", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_every_transport_is_followed(counted: Any) -> None:
    assert list(counted["transports"]) == ["fast path", "asgi", "v2"]
    for way in counted["transports"].values():
        assert {"service.batcher.batcher", "service.engines.torch"} <= set(way["files"])
        assert any("QueueEntry" in name for name in way["re_wrappings"])
        assert "service.telemetry.metrics" in set(way["files"]) - set(way["carriers"])
        assert {"service.batcher.executor", "service.codec.tensors"} <= set(way["carriers"])
        assert way["hand_overs"]
        assert all(" -> service." in pair for pair in way["hand_overs"])


def test_transports_are_told_apart(counted: Any) -> None:
    """Each request took the way that it is counted for."""
    ways = {name: set(way["files"]) for name, way in counted["transports"].items()}
    assert "service.app" not in ways["fast path"]
    assert "service.app" in ways["asgi"] & ways["v2"]
    assert "service.codec.v2" in ways["v2"] - ways["asgi"] - ways["fast path"]


SPEC = """from service.operations.sample import Sample

OPERATIONS = (Sample, Sample)


class Client:
    '''Draws a sample.'''

    path = "/sample"

    def sample(self):
        sample = 1
        return "/sample"

    def others(self):
        return "sample of others"
"""


def test_one_row_is_wrapped_no_more_than_seven_times(counted: Any) -> None:
    """On the fast path; 13 times by hand, 11 by this count, before operations were specs."""
    assert len(counted["transports"]["fast path"]["re_wrappings"]) <= 7


def test_edits_are_statements_that_name_it(tmp_path: Path) -> None:
    folder = tmp_path / "service" / "operations"
    folder.mkdir(parents=True)
    (folder / "sample.py").write_text('class Sample:\n    name = "sample"\n    path = "/sample"\n')
    (folder / "spec.py").write_text(SPEC)
    edits = find_edits(tmp_path, NAME)
    assert edits == {"service/operations/sample.py": 1, "service/operations/spec.py": 4}
    assert count_lines(tmp_path, "service") == 3 + SPEC.count("\n")
    assert count_lines(tmp_path, "pushforward") == 0
