"""Dense and masked networks: their formulas, written out, and what may depend on what."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.conditioners.dense import MLP, Dense, Pair, ResNet, Wiring
from models.conditioners.masked import Masked

X = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(4, 3)
CONTEXT = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(4, 2)


def perturbed(net: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    net = net.double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.5 * torch.randn(
                parameter.shape, generator=generator, dtype=torch.float64
            )
    return net


def test_mlp_is_linear_layers_and_activations() -> None:
    net = perturbed(MLP(Dense(3, 5, 2), [7, 6], ["tanh", "leaky_relu"], negative_slope=0.2))
    first, second, last = net.layers
    hidden = torch.tanh(first(torch.cat((X, CONTEXT), 1)))
    hidden = F.leaky_relu(second(hidden), 0.2)
    assert torch.equal(net(X, CONTEXT), last(hidden))


def test_mlp_takes_an_activation_for_its_output() -> None:
    net = perturbed(MLP(Dense(3, 5), [7], ["relu", "tanh"]))
    first, last = net.layers
    assert torch.equal(net(X), torch.tanh(last(torch.relu(first(X)))))


def test_mlp_adds_the_context_as_nflows_does() -> None:
    net = perturbed(MLP(Dense(3, 5, 2), [7], "elu", context_mode="add"))
    first, last = net.layers
    hidden = F.elu(first(X) + F.elu(net.context_layer(CONTEXT)))
    assert torch.equal(net(X, CONTEXT), last(hidden))


def test_mlp_standardises_hidden_rows_as_zuko_does() -> None:
    net = perturbed(MLP(Dense(3, 5), [7], "relu", normalise=True))
    first, last = net.layers
    hidden = torch.relu(first(X))
    centred = hidden - hidden.mean(1, keepdim=True)
    spread = (centred.square().sum(1, keepdim=True) / 6 + 1e-5).sqrt()
    torch.testing.assert_close(net(X), last(centred / spread), rtol=1e-12, atol=1e-12)


def test_resnet_gates_its_blocks_with_the_context() -> None:
    net = perturbed(ResNet(Dense(3, 5, 2), [6, 6], "relu"))
    hidden = net.entry(torch.cat((X, CONTEXT), 1))
    for block in net.blocks:
        change = block.second(torch.relu(block.first(torch.relu(hidden))))
        hidden = hidden + F.glu(torch.cat((change, block.context_layer(CONTEXT)), 1), 1)
    torch.testing.assert_close(net(X, CONTEXT), net.exit(hidden), rtol=1e-13, atol=1e-13)


def test_resnet_adds_the_context_as_nflows_made_does() -> None:
    net = perturbed(ResNet(Dense(3, 5, 2), [6], "tanh", context_mode="add"))
    hidden = net.entry(X) + torch.tanh(net.context_layer(CONTEXT))
    block = net.blocks[0]
    inner = block.first(torch.tanh(hidden)) + block.context_layer(CONTEXT)
    expected = net.exit(hidden + block.second(torch.tanh(inner)))
    torch.testing.assert_close(net(X, CONTEXT), expected, rtol=1e-13, atol=1e-13)


def test_resnet_of_zuko_has_no_first_activation_and_bridges_widths() -> None:
    net = perturbed(
        ResNet(Dense(3, 5), [6, 4], "elu", pre_activation=False, context_mode="concatenate")
    )
    first, bridge, second = net.blocks
    hidden = net.entry(X)
    hidden = hidden + first.second(F.elu(first.first(hidden)))
    hidden = bridge.linear(hidden)
    hidden = hidden + second.second(F.elu(second.first(hidden)))
    torch.testing.assert_close(net(X), net.exit(hidden), rtol=1e-13, atol=1e-13)


def test_resnet_batch_norms_come_before_the_activations() -> None:
    net = perturbed(ResNet(Dense(3, 5), [6], "relu", batch_norm=True))
    block = net.blocks[0]
    for norm in block.norms:
        norm.running_mean += 0.3
        norm.running_var *= 1.7

    def norm(index: int, value: Tensor) -> Tensor:
        layer = block.norms[index]
        scaled = (value - layer.running_mean) / (layer.running_var + 1e-3).sqrt()
        return scaled * layer.weight + layer.bias

    hidden = net.entry(X)
    change = block.first(torch.relu(norm(0, hidden)))
    hidden = hidden + block.second(torch.relu(norm(1, change)))
    torch.testing.assert_close(net(X), net.exit(hidden), rtol=1e-12, atol=1e-12)


def test_pair_puts_the_shift_first() -> None:
    shift = perturbed(MLP(Dense(3, 2), [4], "relu"))
    scale = perturbed(MLP(Dense(3, 2), [4], "tanh"))
    raw = Pair(shift, scale)(X)
    assert torch.equal(raw, torch.cat((shift(X), scale(X)), 1))


@pytest.mark.parametrize("make", [MLP, ResNet])
def test_a_fresh_network_says_zero(make: Callable[..., nn.Module]) -> None:
    assert not make(Dense(3, 5), [4])(X.float()).any()


def test_unknown_activations_and_empty_networks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"activation: expected one of .*'swoosh'"):
        MLP(Dense(3, 5), [4], "swoosh")
    with pytest.raises(ValueError, match="activation: expected one, 1 or 2, got 3"):
        MLP(Dense(3, 5), [4], ["relu"] * 3)
    with pytest.raises(ValueError, match="at least one hidden layer"):
        MLP(Dense(3, 5), [])
    with pytest.raises(ValueError, match="at least one residual block"):
        ResNet(Dense(3, 5), [])


def _pair(order: list[int], context: int) -> nn.Module:
    return Pair(*(MLP(Masked(order, 1, context), [9, 5], "tanh") for _ in range(2)))


def _of(make: Callable[[Wiring], nn.Module]) -> Callable[[list[int], int], nn.Module]:
    return lambda order, context: make(Masked(order, 2, context))


MASKED = {
    "mlp": _of(lambda wiring: MLP(wiring, [9, 5], "tanh")),
    "mlp_added_context": _of(lambda wiring: MLP(wiring, [9], "tanh", context_mode="add")),
    "resnet": _of(lambda wiring: ResNet(wiring, [8, 8], "tanh")),
    "resnet_two_widths": _of(lambda wiring: ResNet(wiring, [8, 11], "tanh", pre_activation=False)),
    "resnet_added_context": _of(lambda wiring: ResNet(wiring, [8], "tanh", context_mode="add")),
    "resnet_batch_norm": _of(lambda wiring: ResNet(wiring, [8], "tanh", batch_norm=True)),
    "pair": _pair,
}


@pytest.mark.parametrize("context", [0, 2], ids=["alone", "context"])
@pytest.mark.parametrize(
    "order", [[0, 1, 2, 3], [3, 1, 0, 2], [1, 0, 1, 0]], ids=["ascending", "shuffled", "halves"]
)
@pytest.mark.parametrize("name", MASKED)
def test_masked_outputs_see_exactly_the_features_before_theirs(
    name: str, order: list[int], context: int
) -> None:
    net = perturbed(MASKED[name](order, context))
    x = torch.randn(1, 4, dtype=torch.float64)
    c = torch.randn(1, context, dtype=torch.float64) if context else None
    jacobian = torch.autograd.functional.jacobian(lambda v: net(v, c), x)[0, :, 0]
    earlier = torch.tensor(order)[:, None] > torch.tensor(order)
    assert torch.equal(jacobian.reshape(2, 4, 4) != 0, earlier.expand(2, 4, 4))


@pytest.mark.parametrize("name", MASKED)
def test_masked_outputs_all_see_the_context(name: str) -> None:
    net = perturbed(MASKED[name]([0, 1, 2, 3], 2))
    x, c = torch.randn(1, 4).double(), torch.randn(1, 2).double()
    jacobian = torch.autograd.functional.jacobian(lambda v: net(x, v), c)[0, :, 0]
    assert jacobian.all()


def test_narrow_masked_networks_still_reach_the_last_features() -> None:
    net = perturbed(MLP(Masked(range(9), 1), [4], "tanh"))
    jacobian = torch.autograd.functional.jacobian(net, torch.randn(1, 9).double())[0, :, 0]
    assert jacobian[-1].count_nonzero() >= 6
    assert not torch.triu(jacobian).any()
