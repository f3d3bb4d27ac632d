"""What sources of continuous flows share: tolerances, nonlinearities, and the shape of a block."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from models.importers.likelihood import Term
from models.importers.report import ImportRefused
from models.importers.source import Fragment, numbered, prefixed

# Solved this exactly, log_prob in float64 is right to about 1e-6 nats where the field is smooth,
# far below what the scripts' own tolerances leave open. A folder is written with the tolerance that
# the promise takes, see `models.importers.store`.
SOLVER = {"rtol": 1e-8, "atol": 1e-8}

# Names of pointwise functions elsewhere, and what they are in our dynamics; swish has a factor.
_NONLINEARITIES = {"silu": "swish"}
NONLINEARITIES = ("tanh", "relu", "softplus", "elu", "selu", "silu", "identity")


def nonlinearity(activation: str) -> str:
    """The nonlinearity of our dynamics that an activation is.

    Raises:
        ImportRefused: if there is none.
    """
    if activation not in NONLINEARITIES:
        raise ImportRefused(
            f"activation: {activation} has no counterpart in continuous dynamics; expected one of "
            f"{', '.join(NONLINEARITIES)}"
        )
    return _NONLINEARITIES.get(activation, activation)


def block(
    end_time: Tensor,
    layers: Sequence[Fragment],
    *,
    activations: Sequence[Fragment] = (),
    dynamics: Fragment | None = None,
) -> Fragment:
    """The state dict of one `ContinuousTransform`.

    Args:
        end_time: T, a scalar.
        layers: of the dynamics.
        activations: parameters of the nonlinearities, where they have any.
        dynamics: further tensors of the dynamics.
    """
    inner = {
        **prefixed("layers.", numbered(layers)),
        **prefixed("activations.", numbered(activations)),
        **(dynamics or {}),
    }
    return {"sqrt_end_time": end_time.double().sqrt(), **prefixed("dynamics.", inner)}


def unit_swish(name: str, hidden: int) -> list[Fragment]:
    """The factors of SiLU, a swish whose factor is 1; none for other nonlinearities."""
    return [{"beta": torch.tensor(1.0).double()}] * hidden if name == "swish" else []


def tolerance_term(source: str) -> Term:
    """What cannot be put in one number: the error of the source's own solve."""
    return Term(
        "solver",
        0.0,
        f"{source}; ours solves every row to rtol {SOLVER['rtol']:g} and atol {SOLVER['atol']:g}, "
        "so the numbers differ by the error of the source's solve",
    )


def linear_state(weight: Tensor, bias: Tensor) -> dict[str, Any]:
    """A linear layer without gates, as the dynamics have it."""
    return {"linear.weight": weight, "linear.bias": bias}
