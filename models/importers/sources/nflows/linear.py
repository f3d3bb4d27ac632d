"""The linear transforms of nflows, y = W x + b; all but LU are multiplied out."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from models.importers.layouts import chain_layers
from models.importers.layouts.chain_layers import Part
from models.importers.layouts.glow import check_invertible
from models.importers.layouts.nsf_parts import lu_linear
from models.importers.weights import Weights

_MIN_DIAGONAL = 1e-3


def convert(weights: Weights, kind: str, name: str, size: int, *, inverted: bool) -> Part:
    """Turn a linear transform into a layer; the matrix is computed in float64.

    Args:
        kind: a key of `MATRICES`, or "lu".
        name: the prefix of its keys.
        size: D.
        inverted: whether data go through it backwards, x = W^-1 (y - b).
    """
    if kind == "lu" and not inverted:
        return lu_linear(weights, name)
    matrix = (_lu if kind == "lu" else MATRICES[kind])(weights, name, size)
    if kind == "householder":
        return chain_layers.linear(matrix.T if inverted else matrix)
    bias = weights.take(f"{name}bias", size)
    if not inverted:
        return chain_layers.linear(matrix, bias)
    inverse: Tensor = torch.linalg.inv(matrix)
    return chain_layers.linear(inverse, -(inverse @ bias))


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
    entries = weights.take(f"{name}upper_entries", size * (size - 1) // 2)
    upper = weights.take(f"{name}log_upper_diag", size).exp().diag()
    rows, columns = torch.triu_indices(size, size, 1)
    upper[rows, columns] = entries
    return _reflections(weights, f"{name}orthogonal.", size) @ upper


def _svd(weights: Weights, name: str, size: int) -> Tensor:
    raw = weights.take(f"{name}unconstrained_diagonal", size)
    left = _reflections(weights, f"{name}orthogonal_1.", size)
    right = _reflections(weights, f"{name}orthogonal_2.", size)
    return left @ (F.softplus(raw) + _MIN_DIAGONAL).diag() @ right


def _reflections(weights: Weights, name: str, size: int) -> Tensor:
    """The matrix of a HouseholderSequence, whose first vector acts first."""
    matrix = torch.eye(size, dtype=torch.float64)
    for vector in weights.take(f"{name}q_vectors", *weights.shape(f"{name}q_vectors")):
        matrix = matrix - torch.outer(2 / vector.square().sum() * vector, vector @ matrix)
    return matrix


MATRICES: dict[str, Callable[[Weights, str, int], Tensor]] = {
    "householder": _reflections,
    "naive": _naive,
    "qr": _qr,
    "svd": _svd,
}
