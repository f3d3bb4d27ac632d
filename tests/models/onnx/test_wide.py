"""Graphs in float64 have the digits of float64, whatever onnxruntime fuses."""

import numpy as np
import torch

from models.fold import fold
from models.onnx.graphs import build_graphs
from models.onnx.runtime import open_session
from models.registry import build
from tests.cases import perturb


@torch.no_grad()
def test_attention_keeps_its_digits() -> None:
    """A number that multiplies a product of matrices is rounded to float32 there."""
    config = {"event_shape": [1, 4, 4], "patch_size": 2, "coupling_layers": 2, "block_depth": 1}
    flow = perturb(build("jet", {**config, "block_width": 6, "num_heads": 2}).double(), 0.2).eval()
    graph = build_graphs(fold(flow), torch.float64).encode
    x = torch.randn(20, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    z, *_ = open_session(graph.SerializeToString()).run(["z"], {"x": x.numpy()})
    np.testing.assert_allclose(z, flow.encode(x)[0].numpy(), rtol=1e-12, atol=1e-12)
