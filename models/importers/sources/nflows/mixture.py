"""nflows' MADEMoG: a mixture of Gaussians for every feature given those before it, as a base.

p(x) = prod_i sum_k w_k N(x_i; m_k, s_k^2), with s = softplus(u) + 1e-2 and (logit, m, u) side by
side a component, feature by feature, as outputs of a MADE. It adds the context to the first layer
in front of the activation, other than the MADE of the library's transforms.
"""

from models.importers.layouts import chain_layers
from models.importers.layouts.chain_layers import Part
from models.importers.layouts.networks import parameter_rows
from models.importers.layouts.nsf_parts import MADE, made
from models.importers.report import ImportRefused
from models.importers.weights import Weights

NET = "_distribution._made"
_STYLE = MADE(enters_active=False, gates=False, enters_straight=True)
_OFFSET = 1e-2
_EACH = 3


def is_base(weights: Weights) -> bool:
    """Whether the base is such a mixture."""
    return f"{NET}.initial_layer.weight" in weights


def inputs(weights: Weights) -> int:
    """How many inputs the network has beside the context."""
    return weights.shape(f"{NET}.initial_layer.weight")[1]


def context(weights: Weights) -> int:
    """Length of the context that the network takes."""
    key = f"{NET}.context_layer.weight"
    return weights.shape(key)[1] if key in weights else 0


def components(weights: Weights) -> int:
    """How many Gaussians every feature has.

    Raises:
        ImportRefused: if the outputs are no such parameters.
    """
    outputs = weights.shape(f"{NET}.final_layer.weight")[0]
    found, rest = divmod(outputs, _EACH * inputs(weights))
    if rest or not found:
        raise ImportRefused(
            f"{NET}.final_layer: expected a multiple of {_EACH * inputs(weights)} outputs, a "
            f"logit, a mean and a deviation for every component and feature, got {outputs}"
        )
    return found


def convert(weights: Weights, features: int, activation: str) -> Part:
    """Turn the base into a layer.

    Args:
        weights: of the source.
        features: D; inputs of the network in front of these are zero, as sbi has one.
        activation: of the network.
    """
    count = components(weights)
    zero_inputs = inputs(weights) - features
    places = [_EACH * k + parameter for parameter in range(_EACH) for k in range(count)]
    rows = parameter_rows(features, places)
    rows = [zero_inputs * _EACH * count + row for row in rows]
    net = made(weights, NET, activation, _STYLE, rows=rows, zero_inputs=zero_inputs)
    elementwise = {
        "kind": "normal_mixture",
        "components": count,
        "deviation": "softplus",
        "offset": _OFFSET,
    }
    return chain_layers.autoregressive(features, elementwise, net)
