"""Flows saved as pytrees of jax: nested tuples and lists of arrays, their structure beside them.

pzflow pickles the flow (or, until 3.0, its state alone). The arrays become a state dict whose keys
are paths, `params.1.0.2`, and the rest plain values. Functions that stand in it by name, such as
error models, are set aside: none is called.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.importers.inert import Array, Record, Symbol
from models.importers.report import ImportRefused, Report
from models.importers.state import State
from models.importers.state_dict import check_tensors

PARAMS = "params"
_STRUCTURE = ("bijector_info", "latent_info")
_ENSEMBLE = "ensemble"
_SET_ASIDE = {
    "data_error_model": "draws errors of the data for log_prob(err_samples=...)",
    "condition_error_model": "draws errors of the conditions for log_prob(err_samples=...)",
    "info": "a note of who made the flow",
}
_MAX_DEPTH = 64
_MAX_PARTS = 100_000
_MAX_NAMED = 4


def is_flow(content: Any) -> bool:
    """Whether this is a flow, or an ensemble of flows, with its structure beside its numbers."""
    tree = _state_of(content) or {}
    flows = tree.get(_ENSEMBLE)
    if isinstance(flows, Mapping) and tree.keys().isdisjoint(_STRUCTURE):
        return all(_is_alone(flow) for flow in flows.values())
    return _is_alone(content)


def _is_alone(content: Any) -> bool:
    """Whether this is a flow and no ensemble."""
    tree = _state_of(content)
    return tree is not None and all(name in tree for name in _STRUCTURE)


def extract(content: Any, report: Report, prefix: str | None) -> tuple[State, dict[str, Any]]:
    """The arrays of a flow as a state dict, and what else the file says of it.

    Args:
        content: for which `is_flow` holds.
        report: where what is set aside is noted.
        prefix: of an ensemble, the name of the flow.

    Returns:
        The state dict, and plain values by name; arrays among these are lists of numbers.

    Raises:
        ImportRefused: if it is an ensemble and no flow of it is named, or not of numbers.
    """
    tree = _state_of(content) or {}
    if _ENSEMBLE in tree:
        tree = _chosen(tree[_ENSEMBLE], prefix)
    elif prefix:
        raise ImportRefused(f"{prefix}: the file holds one flow and no other parts; leave it out")
    for name, use in _SET_ASIDE.items():
        if tree.get(name) is not None:
            value = tree[name]
            what = f"{value.name}: " if isinstance(value, Symbol) else ""
            report.ignored(name, f"{what}{use}; no part of the density")
    if tree.get("bijector_info") is None:
        raise ImportRefused(
            "bijector_info: none, so the flow has never been trained and has no weights; train it, "
            "and save it again"
        )
    beside = {name: tree[name] for name in tree if name not in (*_SET_ASIDE, PARAMS, "class")}
    for name, value in ((PARAMS, tree.get(PARAMS)), *beside.items()):
        _check_size(value, name)
    state = dict(_leaves(tree.get(PARAMS, ()), PARAMS))
    check_tensors(state, report)
    return state, {name: _plain(value, name) for name, value in beside.items()}


def _state_of(content: Any) -> Mapping[str, Any] | None:
    state = content.state if isinstance(content, Record) else content
    return state if isinstance(state, Mapping) else None


def _chosen(flows: Any, prefix: str | None) -> Mapping[str, Any]:
    """A flow of an ensemble.

    Raises:
        ImportRefused: if none is named.
    """
    names = list(flows) if isinstance(flows, Mapping) else []
    if prefix not in names:
        shown = ", ".join(map(str, names[:_MAX_NAMED])) + (", ..." if len(names) > 4 else "")
        raise ImportRefused(
            f"an ensemble of {len(names)} flows ({shown}), whose log_prob is the logarithm of the "
            "mean of their densities: that has no latents and is no flow. Each of them is one: "
            f"--prefix {str(names[0])!r}"
            if names
            else "an ensemble without flows"
        )
    return _state_of(flows[prefix]) or {}


def _check_size(tree: Any, path: str) -> None:
    """Count the parts of a tree, those of a shared one each time that it is met.

    Raises:
        ImportRefused: if there are more than flows have: tuples of twice the one before unfold
            to 2^n parts.
    """
    waiting, count = [tree], 0
    while waiting:
        part = waiting.pop()
        parts = part if isinstance(part, (tuple, list)) else ()
        count += len(parts)
        if count > _MAX_PARTS:
            raise ImportRefused(f"{path}: expected at most {_MAX_PARTS} parts, got more")
        waiting.extend(parts)


def _leaves(tree: Any, path: str, depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    if isinstance(tree, (tuple, list)) and depth < _MAX_DEPTH:
        for index, part in enumerate(tree):
            yield from _leaves(part, f"{path}.{index}", depth + 1)
        return
    value = tree.value if isinstance(tree, Array) else tree
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number or (isinstance(value, np.ndarray) and value.dtype.kind in "fiu"):
        yield path, torch.from_numpy(np.array(value))
        return
    raise ImportRefused(f"{path}: expected an array of numbers, got {_describe(tree)}")


def _plain(value: Any, path: str, depth: int = 0) -> Any:
    if isinstance(value, (tuple, list)) and depth < _MAX_DEPTH:
        return [_plain(part, f"{path}[{i}]", depth + 1) for i, part in enumerate(value)]
    if isinstance(value, Array) and value.value is not None and value.value.dtype.kind in "fiub":
        if not np.isfinite(value.value).all():
            raise ImportRefused(f"{path}: expected finite numbers, got {value.value.tolist()}")
        return value.value.tolist()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ImportRefused(f"{path}: expected numbers and text, got {_describe(value)}")


def _describe(value: Any) -> str:
    if isinstance(value, (Symbol, Record)):
        return value.name
    return f"a {type(value).__name__}"
