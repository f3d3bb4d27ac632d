"""Fixed-point decoding in a graph: a row's bits alone, in a batch, and pass by pass."""

from typing import Any

import numpy as np
import pytest
import torch

from models.flow import Flow
from models.fold import fold
from models.noise import base_noise
from models.onnx.export import export
from models.onnx.graphs import build_graphs
from models.onnx.runtime import open_session
from models.registry import build
from tests.cases import CASES, make_flow, perturb

FEATURES, LAYERS = 6, 2
# More than are worked on together, so that rows take the places of others that are done.
ROWS = 150


def flow(decoding: str) -> Flow:
    torch.manual_seed(0)
    config = {"event_shape": [FEATURES], "num_layers": LAYERS, "decoding": decoding}
    config |= {"scale": "tanh", "conditioner": {"kind": "mlp", "widths": [12]}}
    return perturb(build("maf", config).double(), 0.2).eval().float()


def decode(session: Any, z: np.ndarray) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"z": z}), strict=True))


def test_graphs_of_jacobi_and_of_passes_give_the_same_bits() -> None:
    z = base_noise(ROWS, FEATURES, seed=0).astype(np.float32)
    z[3] *= 1e30
    z[4, 1] = np.nan
    sessions, found = {}, {}
    for decoding in ("passes", "jacobi"):
        graph = build_graphs(fold(flow(decoding)), torch.float32).decode
        sessions[decoding] = open_session(graph.SerializeToString())
        found[decoding] = decode(sessions[decoding], z)
    passes, jacobi = found["passes"], found["jacobi"]
    assert jacobi["x"][0].any()
    for name in ("x", "log_det", "status"):
        np.testing.assert_array_equal(passes[name], jacobi[name])
    assert (passes["evaluations"] == LAYERS * FEATURES).all()
    ordinary = np.delete(jacobi["evaluations"], [3, 4])
    assert ordinary.max() <= LAYERS * FEATURES
    assert ordinary.mean() < LAYERS * FEATURES
    for row in (0, 3, 4, 149):
        alone = decode(sessions["jacobi"], z[row : row + 1])
        for name, values in alone.items():
            np.testing.assert_array_equal(values[0], jacobi[name][row], err_msg=name)


def transformer(decoding: str, dtype: torch.dtype) -> Flow:
    torch.manual_seed(0)
    config = {"event_shape": [1, 8, 6], "patch_size": 2, "num_blocks": 2, "decoding": decoding}
    config |= {"channels": 8, "layers_per_block": 1, "head_dim": 4, "num_classes": 3}
    return perturb(build("tarflow", config).double(), 0.1).eval().to(dtype)


@pytest.mark.parametrize("decoding", ["sequential", "jacobi"])
def test_a_transformer_whose_image_is_one_patch_decodes(decoding: str) -> None:
    config = {"event_shape": [1, 2, 2], "patch_size": 2, "num_blocks": 2, "decoding": decoding}
    config |= {"channels": 4, "layers_per_block": 1, "head_dim": 4}
    flow = perturb(build("tarflow", config).double(), 0.1).eval()
    z = base_noise(3, 4, seed=0)
    x = flow.decode(torch.from_numpy(z))[0].detach().numpy()
    folded = fold(flow)
    assert_equal_nearly(folded.decode(torch.from_numpy(z))[0].detach().numpy(), x)
    session = open_session(build_graphs(folded, torch.float64).decode.SerializeToString())
    assert_equal_nearly(decode(session, z)["x"], x)


def assert_equal_nearly(found: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_graph_decodes_tokens_one_by_one_with_the_bits_of_whole_passes(
    dtype: torch.dtype,
) -> None:
    inputs = {"z": base_noise(3, 48, seed=0), "context": np.eye(3)}
    inputs["z"][1] *= 30
    rows = {key: torch.from_numpy(value).to(dtype).numpy() for key, value in inputs.items()}
    graphs, found = {}, {}
    for decoding in ("sequential", "passes", "jacobi"):
        graphs[decoding] = build_graphs(fold(transformer(decoding, dtype)), dtype).decode
        session = open_session(graphs[decoding].SerializeToString())
        found[decoding] = session.run(["x", "log_det"], rows)
        for row in range(3):
            one = {key: value[row : row + 1] for key, value in rows.items()}
            for alone, beside in zip(
                session.run(["x", "log_det"], one), found[decoding], strict=True
            ):
                np.testing.assert_array_equal(alone[0], beside[row])
    assert np.isfinite(found["sequential"][0][[0, 2]]).all()
    for decoding in ("passes", "jacobi"):
        for got, wanted in zip(found[decoding], found["sequential"], strict=True):
            np.testing.assert_array_equal(got, wanted)
    # A turn is there once, and not once a token.
    loops = [node for node in graphs["sequential"].graph.node if node.op_type == "Loop"]
    assert len(loops) == 2
    assert all(node.op_type != "MatMul" for node in graphs["sequential"].graph.node)


@pytest.mark.parametrize("name", ["iaf_jacobi", "maf_jacobi_context"])
def test_exports_are_certified_with_bits_that_do_not_depend_on_the_batch(name: str) -> None:
    assert CASES[name].config["decoding"] == "jacobi"
    made = export(make_flow(name), precision="fp32", random_rows=8)
    assert made.certificate.is_batch_invariant
    assert made.graphs.generate is None
    for graph in (made.graphs.encode, made.graphs.decode):
        assert {"status", "evaluations"} <= {output.name for output in graph.graph.output}
