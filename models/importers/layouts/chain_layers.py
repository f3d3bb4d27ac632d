"""Flows over vectors: layers of the `chain` family with their weights beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.importers.layouts.networks import Net
from models.importers.report import ImportRefused
from models.importers.source import Fragment, prefixed
from models.importers.weights import Weights


@dataclass(frozen=True, slots=True)
class Part:
    """A layer of the `chain` family and its state dict."""

    layer: Mapping[str, Any]
    state: Fragment


def coupling(kept: Sequence[int], features: int, elementwise: Mapping[str, Any], net: Net) -> Part:
    """A coupling that keeps the features named."""
    mask = [int(feature in kept) for feature in range(features)]
    layer = {
        "kind": "coupling",
        "mask": mask,
        "elementwise": elementwise,
        "conditioner": net.config,
    }
    return Part(layer, prefixed("conditioner.", net.state))


def autoregressive(
    features: int, elementwise: Mapping[str, Any], net: Net, one_pass: str = "encode"
) -> Part:
    """An autoregressive map, whose order is read off the masks of its network.

    Raises:
        ImportRefused: if no order fits the masks.
    """
    layer = {
        "kind": "autoregressive",
        "order": order_of(net.reach, features),
        "one_pass": one_pass,
        "elementwise": elementwise,
        "conditioner": net.config,
    }
    wrapper = "" if one_pass == "encode" else "transform."
    return Part(layer, prefixed(f"{wrapper}conditioner.", net.state))


def permute(indices: Sequence[int]) -> Part:
    """y_i = x_{indices[i]}."""
    return Part(
        {"kind": "permute", "indices": list(indices)},
        {"indices": torch.tensor(list(indices), dtype=torch.int64)},
    )


def linear(weight: Tensor, bias: Tensor | None = None) -> Part:
    """y = W x + b with the matrix as it stands."""
    state = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    return Part({"kind": "linear", "matrix": "plain", "bias": bias is not None}, state)


def exp_batch_norm(weights: Weights, name: str, features: int, eps: float) -> Part:
    """A batch norm whose scale is exp(log_gamma), with the running statistics it was saved with."""
    state = {
        "weight": weights.take(f"{name}.log_gamma", features),
        "bias": weights.take(f"{name}.beta", features),
        "running_mean": weights.take(f"{name}.running_mean", features),
        "running_var": weights.take(f"{name}.running_var", features),
    }
    return Part({"kind": "batch_norm", "scale": "exp", "eps": eps}, state)


def gaussian(
    mean: Tensor, log_std: Tensor, of_context: tuple[Tensor, Tensor] | None = None
) -> Part:
    """A Gaussian base, N(mean, exp(log_std)^2).

    Args:
        mean: (D,).
        log_std: (D,).
        of_context: what a context adds to either, (context, D) both.
    """
    state = {"mean": mean, "log_std": log_std}
    if of_context is not None:
        state |= {"mean_context": of_context[0], "log_std_context": of_context[1]}
    return Part({"kind": "gaussian", "conditional": of_context is not None}, state)


def uniform(chosen: Sequence[int], low: Tensor, high: Tensor) -> Part:
    """A uniform base for the chosen features; one end of an interval each."""
    ends = {"low": low.tolist(), "high": high.tolist()}
    return Part({"kind": "uniform", "chosen": list(chosen), **ends}, {})


def spline_bins(num_parameters: int) -> int | None:
    """K of a rational-quadratic spline with linear tails, which has 3 K - 1 parameters a feature.

    Returns:
        K, or None where no spline has so many parameters.
    """
    bins, rest = divmod(num_parameters + 1, 3)
    return None if rest or bins < 2 else bins


def is_standard(mean: Tensor, log_std: Tensor) -> bool:
    """Whether N(mean, exp(log_std)^2) is N(0, I), so that no layer is needed for it."""
    return not (mean.any() or log_std.any())


def chain(
    parts: Sequence[Part],
    features: int,
    *,
    context_features: int = 0,
    num_classes: int | None = None,
    embedding: Sequence[Mapping[str, Any]] = (),
) -> tuple[dict[str, Any], list[Fragment]]:
    """Describe a flow of the `chain` family.

    Returns:
        Its configuration and the state dicts of its layers.
    """
    config: dict[str, Any] = {"event_shape": [features], "layers": [part.layer for part in parts]}
    if num_classes:
        config["num_classes"] = num_classes
    elif context_features:
        config["context_features"] = context_features
    if embedding:
        config["context_embedding"] = list(embedding)
    return config, [part.state for part in parts]


def order_of(reach: Tensor, features: int) -> list[int]:
    """In which order features can be decoded: 0 for those that see no other, and so on.

    Args:
        reach: which inputs reach which outputs, (blocks * features, features [+ context]).
        features: D.

    Returns:
        The place of every feature; features with the same place are decoded together.

    Raises:
        ImportRefused: if a feature depends on itself.
    """
    depends = reach[:, :features].view(-1, features, features).any(0)
    order = torch.zeros(features, dtype=torch.int64)
    for _ in range(features + 1):
        later = torch.where(depends, order + 1, 0).amax(1)
        if torch.equal(later, order):
            return [int(place) for place in order]
        order = later
    raise ImportRefused(
        "the masks of an autoregressive network let a feature depend on itself, so the source's "
        "log_prob is no density and its samples do not invert; nothing can be imported"
    )
