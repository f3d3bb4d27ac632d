"""zuko's monotone maps that are inverted by search: NAF, UNAF, SOSPF, BPF and GF.

Between two transforms of NAF, UNAF and SOSPF stands a SoftclipTransform of bound 11, which has no
tensors: a hole in the numbers of the transforms.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from models.conditioners.activations import Activation
from models.importers.layouts import chain_layers
from models.importers.layouts.chain_layers import Part
from models.importers.layouts.networks import ActivationName, Net
from models.importers.report import ImportRefused
from models.importers.source import numbered, prefixed
from models.importers.sources.zuko.layers import Layer
from models.importers.weights import Weights

SOFTCLIP = 11.0
# What GaussianizationTransform takes off probabilities, half of it at either end.
_MARGIN = 1e-6
NETWORKS = {"network": "NAF", "integral": "UNAF"}
_WIDTHS = "hidden_features"
# Of the features' own networks of UNAF, and what they have unless told otherwise.
_OWN_ACTIVATION, _DEFAULT = "activation", "ELU"
_ACTIVATION: TypeAdapter[Activation] = TypeAdapter(ActivationName)


def softclip() -> Part:
    """What stands between two transforms."""
    return Part({"kind": "soft_clip", "bound": SOFTCLIP}, {})


def widths(weights: Weights, layer: Layer) -> list[int]:
    """Hidden widths of a feature's own network."""
    return [weights.shape(f"{name}.weight")[1] for name in _stacked(weights, layer)[:-1]]


def neural(weights: Weights, layer: Layer, net: Net, network: Mapping[str, Any] | None) -> Part:
    """An autoregressive map by networks of the features' own.

    Args:
        weights: of the source.
        layer: which transform.
        net: the masked network that gives the signals.
        network: arguments of the features' networks, as the constructor takes them.

    Raises:
        ImportRefused: if these are other networks.
    """
    elementwise: dict[str, Any] = {
        "kind": f"monotone_{layer.kind}",
        "signal": layer.params - (layer.kind == "integral"),
        "widths": widths(weights, layer),
    }
    given = dict(network or {})
    if given.pop(_WIDTHS, elementwise["widths"]) != elementwise["widths"]:
        raise ImportRefused(
            f"network: {dict(network or {})} was given, but the weights say {_WIDTHS} "
            f"{elementwise['widths']}; leave it out or correct it"
        )
    if layer.kind == "integral":
        elementwise["activation"] = _activation(given.pop(_OWN_ACTIVATION, _DEFAULT))
    if given:
        raise ImportRefused(
            f"network: {', '.join(given)}: of the features' networks {_WIDTHS} can be given, and "
            "for UNAF the activation"
        )
    part = chain_layers.autoregressive(layer.features, elementwise, net)
    stacked = numbered(_state(weights, name) for name in _stacked(weights, layer))
    return Part(part.layer, {**part.state, **prefixed("elementwise.layers.", stacked)})


def warn_of_activation(weights: Weights, network: Mapping[str, Any] | None) -> None:
    """Say which activation of UNAF's own networks was taken on trust, where none was given."""
    if _OWN_ACTIVATION not in (network or {}):
        weights.report.warning(
            "network",
            f"activation {_DEFAULT} was taken, the library's default for the features' own "
            "networks: it is in no weight, and with another one the numbers are wrong; give "
            f'network={{"{_OWN_ACTIVATION}": ...}}',
        )


def sum_of_squares(params: int, degree: int, polynomials: int, slope: float) -> dict[str, Any]:
    """The map of SOSPF, if its counts fit.

    Raises:
        ImportRefused: if they do not.
    """
    if polynomials * (degree + 1) + 1 != params:
        raise ImportRefused(
            f"degree {degree}, polynomials {polynomials}: these have "
            f"{polynomials * (degree + 1) + 1} parameters a feature, but the weights {params}: "
            f"{splits(params)}"
        )
    return {
        "kind": "sum_of_squares",
        "degree": degree,
        "polynomials": polynomials,
        "min_slope": slope,
    }


def splits(params: int) -> str:
    """Which degrees and numbers of polynomials have so many parameters a feature."""
    pairs = [
        f"degree {(params - 1) // count - 1} with polynomials {count}"
        for count in range(1, params)
        if (params - 1) % count == 0 and (params - 1) // count > 1
    ]
    return " or ".join(pairs) or "no degree and number of polynomials"


def bernstein(params: int, degree: int | None, bound: float) -> dict[str, Any]:
    """The map of BPF.

    Raises:
        ImportRefused: if the degree is another one.
    """
    if degree not in (None, params - 1):
        raise ImportRefused(
            f"degree: {degree} was given, but the weights say {params - 1} ({params} parameters a "
            "feature); leave it out or correct it"
        )
    return {"kind": "bernstein", "degree": params - 1, "bound": bound}


def gaussianization(params: int) -> dict[str, Any]:
    """The map of GF.

    Raises:
        ImportRefused: if its shifts are not as many as its log scales.
    """
    if params % 2:
        raise ImportRefused(
            f"{params} parameters a feature: expected as many shifts as log scales for GF"
        )
    return {"kind": "gaussianization", "components": params // 2, "margin": _MARGIN}


def _activation(given: Any) -> str:
    try:
        return _ACTIVATION.validate_python(given)
    except ValidationError:
        raise ImportRefused(f"network: activation {given!r} is not known") from None


def _stacked(weights: Weights, layer: Layer) -> list[str]:
    own = "integrand" if layer.kind == "integral" else "network"
    name = f"{layer.name}univariate.{own}"
    places = weights.indices(rf"{re.escape(name)}\.(\d+)\.weight")
    return [f"{name}.{place}" for place in places]


def _state(weights: Weights, name: str) -> dict[str, Tensor]:
    shape: Sequence[int] = weights.shape(f"{name}.weight")
    return {
        "weight": weights.take(f"{name}.weight", *shape),
        "bias": weights.take(f"{name}.bias", *shape[:2]),
    }
