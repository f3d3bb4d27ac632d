"""What a function does on a device, seen without one: its kernels, and what no graph can hold.

On the `meta` device shapes and devices are real, numbers are not. What would wait for the device,
copy from the host, or compute with a tensor that was left on the host is counted.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META, CPU = "meta", "cpu"
# Operations that wait for the device, since their result or its shape depends on values.
_WAITS = {
    "_linalg_check_errors",
    "_local_scalar_dense",
    "equal",
    "is_nonzero",
    "masked_select",
    "nonzero",
}
# Operations that launch nothing.
_FREE = {
    "_unsafe_view",
    "alias",
    "detach",
    "empty",
    "empty_like",
    "empty_strided",
    "lift_fresh",
    "new_empty",
    "view",
}
_COPIES = {"_to_copy", "copy_"}


@dataclass(slots=True)
class Scan:
    """kernels: launched, by operation. faults: what no graph can hold, by what it is."""

    kernels: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)


def scan(function: Callable[[], object]) -> Scan:
    """Call a function of tensors on the `meta` device and count what it does."""
    found = Scan()
    with torch.no_grad(), _Counting(found):
        try:
            function()
        except (NotImplementedError, RuntimeError):  # numbers are asked for, and there are none
            if not found.faults:
                raise
    return found


class _Counting(TorchDispatchMode):
    def __init__(self, found: Scan) -> None:
        super().__init__()
        self._found = found

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        given = _tensors((args, kwargs))
        name = func.name().split("::")[1].split(".")[0]
        before = {tensor.device.type for tensor in given}
        if META in before and (fault := _wait(name, given)):
            self._found.faults[fault] += 1
        result = func(*args, **(kwargs or {}))
        after = {tensor.device.type for tensor in _tensors(result)}
        if META not in before | after:
            return result
        if CPU in before and (fault := _fault(name, after)):
            self._found.faults[fault] += 1
        if not func.is_view and name not in _FREE:
            self._found.kernels[name] += 1
        return result


def _wait(name: str, given: list[Tensor]) -> str:
    if name in _WAITS:
        return f"waits: {name}"
    if name.startswith("index") and any(tensor.dtype == torch.bool for tensor in given[1:]):
        return f"waits: {name} by booleans"
    return ""


def _fault(name: str, after: set[str]) -> str:
    if name not in _COPIES:
        return f"a tensor of the host in {name}"
    return f"copies from the host: {name}" if META in after else ""


def _tensors(values: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
