"""Rules of folding that hold for some layers and must not be used for others."""

import torch

from models.conditioners.dense import ResNet
from models.conditioners.masked import Masked, MaskedLinear
from models.flow import Flow
from models.fold import fold
from models.fold.constant import Dense, Monomial, compose
from models.registry import build
from models.transforms.autoregressive import MaskedAutoregressive
from models.transforms.elementwise import Affine
from models.transforms.linear import LULinear
from models.transforms.split import GaussianPrior
from models.transforms.squeeze import Flatten
from tests.cases import perturb
from tests.random_flows.compare import relative

SAME = 1e-12


@torch.no_grad()
def assert_same(flow: Flow, context: torch.Tensor | None = None) -> None:
    folded = fold(flow)
    rows = 4
    x = torch.randn(rows, *flow.event_shape, dtype=torch.float64)
    z = torch.randn(rows, flow.features, dtype=torch.float64)
    for got, expected in (
        (folded.encode(x, context), flow.encode(x, context)),
        (folded.decode(z, context), flow.decode(z, context)),
    ):
        assert max(map(relative, got, expected)) <= SAME


def test_context_layers_are_rescaled_with_the_layer_that_a_norm_goes_into() -> None:
    net = {"kind": "resnet", "widths": [6, 6], "batch_norm": True, "context_mode": "add"}
    config = {"event_shape": [3], "context_features": 2, "num_layers": 2, "conditioner": net}
    flow = perturb(build("maf", config).double(), 0.2).eval()
    assert_same(flow, torch.randn(4, 2, dtype=torch.float64))


def test_a_map_of_elements_does_not_go_into_a_convolution() -> None:
    shape = (2, 3, 3)
    elements = Monomial(None, torch.rand(shape).double() + 0.5, torch.randn(shape).double())
    matrix = torch.tensor([[2.0, 1.0], [0.0, 1.0]], dtype=torch.float64)[..., None, None]
    dense = Dense(matrix, matrix, torch.zeros(2).double(), log_abs_det=0.0)
    assert compose(elements, dense) is None
    assert compose(dense, elements) is None
    flow = Flow([GaussianPrior(shape), LULinear(2), GaussianPrior(shape), Flatten(shape)], shape)
    assert_same(perturb(flow.double(), 0.5).eval())


def test_residual_units_of_other_degrees_are_not_cut_into_turns() -> None:
    """A checkpoint brings its masks: a block may add units that see less than what they add to."""
    net = ResNet(Masked([0, 1, 2], 2), [6, 6])
    layer = net.blocks[0].second
    assert isinstance(layer, MaskedLinear)
    units = net.entry.mask.sum(1)
    seen = layer.mask & ~((units[:, None] == 2) & (units == 2))
    assert not torch.equal(seen, layer.mask)
    layer.mask.copy_(seen)
    flow = Flow([MaskedAutoregressive([0, 1, 2], net, Affine())], [3]).double()
    assert_same(perturb(flow, 0.5).eval())
