"""Lines 30 to 32: files that lie; the suite makes them, and nothing they hold may run."""

from tests.reliability.registry import suite

suite(
    30,
    "malicious .pt, .pkl and .ckpt files, archives that climb, sparse tensors",
    "tests/models/importers/test_reading.py",
)
suite(
    31,
    "safetensors with lying heads and offsets, NaN weights, singular convolutions",
    "tests/models/checkpoints/test_folder.py",
    "tests/models/importers/test_refusals.py",
)
suite(
    32,
    "graphs with external data, links, custom operators, 2 GB, endless loops",
    "tests/models/onnx/test_validate.py",
)
