"""Weights under torch's spectral norm, W / (u^T W v) outside training, made plain.

Two styles: hooks (`weight_orig`, `weight_u`, `weight_v`) and parametrizations
(`parametrizations.weight.original`, `parametrizations.weight.0._u`, `..._v`).
"""

import re

from torch import Tensor

from models.importers.report import ImportRefused, Report

_SPECTRAL = re.compile(r"(.+)\.(?:weight_orig|parametrizations\.weight\.original)")


def without_spectral_norm(state: dict[str, Tensor], name: str, report: Report) -> dict[str, Tensor]:
    """Divide weights by their spectral norm, as the modules do outside training: u^T W v.

    That of ffjord stays as it is: its weights are computed where its layers are known.
    """
    folded = dict(state)
    for key in state:
        match = _SPECTRAL.fullmatch(key)
        if match is None or ".odefunc." in key:
            continue
        owner, is_old = match[1], key.endswith("_orig")
        left, right = (
            f"{owner}.weight_{side}" if is_old else f"{owner}.parametrizations.weight.0._{side}"
            for side in "uv"
        )
        if left not in state or right not in state:
            continue
        folded[f"{owner}.weight"] = _normalised(state[key], state[left], state[right])
        for part in (key, left, right):
            del folded[part]
    if folded.keys() != state.keys():
        report.mended(name or "keys", "weights under spectral norm are divided by it: W / u^T W v")
    return folded


def _normalised(weight: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """W / (u^T W v) in float64; of a transposed convolution the outputs are axis 1."""
    shapes = tuple(left.shape), tuple(right.shape)
    refusal = ImportRefused(
        f"spectral norm: vectors of shapes {shapes[0]} and {shapes[1]} do not fit a weight of "
        f"shape {tuple(weight.shape)}"
    )
    if weight.dim() < 2 or [len(shape) for shape in shapes] != [1, 1]:
        raise refusal
    raw, outer = weight.double(), len(left) == weight.shape[0]
    matrix = (raw if outer else raw.transpose(0, 1)).flatten(1)
    if matrix.shape != (len(left), len(right)):
        raise refusal
    return raw / (left.double() @ matrix @ right.double())
