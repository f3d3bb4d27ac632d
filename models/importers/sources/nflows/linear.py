"""The linear transforms of nflows, y = W x + b.

They keep their own parameters; W is multiplied out of inverses, and of what is trained as it
stands.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from models.importers.layouts import chain_layers
from models.importers.layouts.chain_layers import Part
from models.importers.layouts.glow import check_invertible
from models.importers.layouts.nsf_parts import lu_linear
from models.importers.weights import Weights
from models.transforms.linear import householder_product

_MIN_DIAGONAL = 1e-3


def convert(weights: Weights, kind: str, name: str, size: int, *, inverted: bool) -> Part:
    """Turn a linear transform into a layer; the matrix is computed in float64.

    Args:
        kind: a key of `MATRICES`, or "householder".
        name: the prefix of its keys.
        size: D.
        inverted: whether data go through it backwards, x = W^-1 (y - b).
    """
    if kind == "householder":
        return _householder(weights, name, inverted=inverted)
    if not inverted and kind in _LAYERS:
        return _LAYERS[kind](weights, name, size)
    matrix = MATRICES[kind](weights, name, size)
    bias = weights.take(f"{name}bias", size)
    if not inverted:
        return chain_layers.linear(matrix, bias)
    inverse: Tensor = torch.linalg.inv(matrix)
    return chain_layers.linear(inverse, -(inverse @ bias))


def _householder(weights: Weights, name: str, *, inverted: bool) -> Part:
    reflections = _vectors(weights, name, inverted=inverted)
    layer = {
        "kind": "linear",
        "matrix": "householder",
        "num_reflections": len(reflections),
        "bias": False,
    }
    return Part(layer, {"reflections": reflections})


def _qr_layer(weights: Weights, name: str, size: int) -> Part:
    reflections = _vectors(weights, f"{name}orthogonal.")
    upper, log_diagonal = _triangle(weights, name, size)
    state = {
        "reflections": reflections,
        "upper": upper,
        "log_diagonal": log_diagonal,
        "bias": weights.take(f"{name}bias", size),
    }
    return Part({"kind": "linear", "matrix": "qr", "num_reflections": len(reflections)}, state)


def _svd_layer(weights: Weights, name: str, size: int) -> Part:
    reflections = _vectors(weights, f"{name}orthogonal_1.")
    state = {
        "reflections": reflections,
        "right_reflections": _vectors(weights, f"{name}orthogonal_2."),
        "raw_diagonal": weights.take(f"{name}unconstrained_diagonal", size),
        "bias": weights.take(f"{name}bias", size),
    }
    return Part({"kind": "linear", "matrix": "svd", "num_reflections": len(reflections)}, state)


def _vectors(weights: Weights, name: str, *, inverted: bool = False) -> Tensor:
    """The vectors of a HouseholderSequence, whose first acts first, as those of a product."""
    vectors = weights.take(f"{name}q_vectors", *weights.shape(f"{name}q_vectors"))
    return vectors if inverted else vectors.flip(0)


def _triangle(weights: Weights, name: str, size: int) -> tuple[Tensor, Tensor]:
    """The strict upper triangle of R, and the logarithms of its diagonal."""
    entries = weights.take(f"{name}upper_entries", size * (size - 1) // 2)
    upper = torch.zeros(size, size, dtype=torch.float64)
    rows, columns = torch.triu_indices(size, size, 1)
    upper[rows, columns] = entries
    return upper, weights.take(f"{name}log_upper_diag", size)


def _lu(weights: Weights, name: str, size: int) -> Tensor:
    state = lu_linear(weights, name).state
    diagonal = F.softplus(state["raw_diagonal"]) + _MIN_DIAGONAL
    unit = state["lower"] + torch.eye(size, dtype=torch.float64)
    return unit @ (state["upper"] + diagonal.diag())


def _naive(weights: Weights, name: str, size: int) -> Tensor:
    matrix = weights.take(f"{name}_weight", size, size)
    check_invertible(weights, f"{name}_weight", matrix)
    return matrix


def _qr(weights: Weights, name: str, size: int) -> Tensor:
    upper, log_diagonal = _triangle(weights, name, size)
    orthogonal = householder_product(_vectors(weights, f"{name}orthogonal."))
    return orthogonal @ (upper + log_diagonal.exp().diag())


def _svd(weights: Weights, name: str, size: int) -> Tensor:
    raw = weights.take(f"{name}unconstrained_diagonal", size)
    left = householder_product(_vectors(weights, f"{name}orthogonal_1."))
    right = householder_product(_vectors(weights, f"{name}orthogonal_2."))
    return left @ (F.softplus(raw) + _MIN_DIAGONAL).diag() @ right


MATRICES: dict[str, Callable[[Weights, str, int], Tensor]] = {
    "lu": _lu,
    "naive": _naive,
    "qr": _qr,
    "svd": _svd,
}
# Those that have layers of our own.
_LAYERS: dict[str, Callable[[Weights, str, int], Part]] = {
    "lu": lambda weights, name, size: lu_linear(weights, name),
    "qr": _qr_layer,
    "svd": _svd_layer,
}
