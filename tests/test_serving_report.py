"""What `bench_serving` prints: pairs of one round are compared, and the best of our settings."""

from pathlib import Path

import pytest

from benchmarks.ceiling import multiplications
from benchmarks.peers.load import Window
from benchmarks.servers import OURS
from benchmarks.serving_report import best_setting, ratios, verdict
from benchmarks.workloads import TWO_WORKERS, Workload

TAKEN = {
    OURS: [Window(rate, 1.0, 2.0, 0) for rate in (10.0, 30.0, 20.0)],
    TWO_WORKERS: [Window(rate, 1.0, 2.0, 0) for rate in (20.0, 30.0, 25.0)],
    "peer": [Window(rate, 1.0, 2.0, 0) for rate in (5.0, 10.0, 100.0)],
    "none": [Window(0.0, 0.0, 0.0, 9)] * 3,
}


def test_ratios_are_of_one_round() -> None:
    assert ratios(TAKEN, OURS) == {OURS: 1.0, TWO_WORKERS: 0.8, "peer": 2.0, "none": float("inf")}


def test_the_best_setting_is_one_of_ours() -> None:
    assert best_setting(TAKEN) == TWO_WORKERS


@pytest.mark.parametrize(
    ("ratio", "target", "measured", "text"),
    [
        (1.2, None, True, ""),
        (1.3, 1.3, True, " (target 1.3: met)"),
        (1.2, 1.3, True, " (target 1.3: MISSED)"),
        (float("inf"), 1.3, False, " (target 1.3: no answer to compare)"),
    ],
)
def test_a_target_has_a_verdict(
    ratio: float, target: float | None, measured: bool, text: str
) -> None:
    assert verdict(ratio, target, measured=measured) == text


def test_products_are_counted_a_row(tmp_path: Path) -> None:
    """Two products of 8x16 and 16x3, and a bias that is none; two rows a request."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    shapes = {"a": (8, 16), "b": (16, 3), "bias": (3,)}
    weights = [numpy_helper.from_array(np.ones(s, np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "b", "bias"], ["log_prob"]),
    ]
    x, out = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("x", 8), ("log_prob", 3))
    )
    onnx.save(
        helper.make_model(helper.make_graph(nodes, "g", [x], [out], weights)),
        tmp_path / "encode.onnx",
    )
    work = Workload("", "A", 2, "npy", (1,))
    assert multiplications(tmp_path, work) == pytest.approx(2 * 2e-9 * (8 * 16 + 16 * 3))
