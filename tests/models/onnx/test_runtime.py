"""Sessions of onnxruntime compute in one arena: the second takes no memory of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

# Two sessions of a graph whose values in between take 64 MiB, called one after the other.
SCRIPT = """
import os
import numpy as np
from onnx import TensorProto, helper
from models.onnx.runtime import open_session

given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
found = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
nodes = [
    helper.make_node("Exp", ["x"], ["a"]),
    helper.make_node("ReduceSum", ["a"], ["y"], keepdims=0),
]
graph = helper.make_graph(nodes, "g", [given], [found])
opset = helper.make_opsetid("", 20)
model = helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()
x = np.zeros(2**24, np.float32)

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

sessions = [open_session(model) for _ in range(2)]
for session in sessions:
    before = resident()
    session.run(None, {"x": x})
    print(round(resident() - before))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_two_sessions_share_their_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True
    )
    first, second = map(int, done.stdout.split())
    assert first >= 60
    assert second <= 8
