"""What building a flow may cost: no more than the numbers its files hold can be worth.

A configuration of a few bytes can ask for any size. The files beside it say in their headers how
many numbers they hold, and those are there, on the disk; a flow needs about as many.
"""

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# A tensor that is made while a flow is built, in numbers of the files: masks and matrices that are
# squared are larger than what they become.
_PER_NUMBER = 8
_FREE_NUMBERS = 2**20
# All that are made, since some live on.
_ALL_PER_NUMBER = 16
_ALL_FREE_NUMBERS = 2**22
# Calls of torch. To make and initialise one tensor takes eleven at most in any family.
_PER_TENSOR = 64
_FREE_CALLS = 2000
# A whole number in a configuration that is no size, such as how many evaluations a solver may take,
# and lists that are made of them in Python.
_FREE_INTEGERS = 2**20

_COUNTS_UP_TO = {"arange", "eye", "randperm", "linspace", "logspace", "tril_indices"}


class BudgetExceeded(ValueError):
    """A configuration asks for more than its files hold."""


class Budget(TorchDispatchMode):
    """Refuses, before it is allocated, what no flow with these files needs.

    Args:
        shapes: of all tensors in the files.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing is compiled here; True would import the compiler first: seconds, and a folder.
        return False

    def __init__(self, shapes: Iterable[Sequence[int]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        sizes = [math.prod(shape) for shape in shapes]
        self.numbers = sum(sizes)
        self._most = _PER_NUMBER * self.numbers + _FREE_NUMBERS
        self._left = _ALL_PER_NUMBER * self.numbers + _ALL_FREE_NUMBERS
        self._calls_left = _PER_TENSOR * len(sizes) + _FREE_CALLS

    def check(self, config: Any, path: str = "config") -> None:
        """Refuse a configuration with a whole number beyond what the files hold.

        Raises:
            BudgetExceeded: naming the field.
        """
        if isinstance(config, int) and abs(config) > max(self.numbers, _FREE_INTEGERS):
            raise BudgetExceeded(
                f"{path}: {config:.6g} is more than the {self.numbers} numbers of the model's files"
                if abs(config) < 2**1000
                else f"{path}: far more than the {self.numbers} numbers of the model's files"
            )
        if isinstance(config, Mapping):
            for name, value in config.items():
                self.check(value, f"{path}.{name}")
        elif isinstance(config, list):
            for index, value in enumerate(config):
                self.check(value, f"{path}.{index}")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self._calls_left -= 1
        asked = _numbers(func.overloadpacket.__name__, args)
        if not any(isinstance(argument, Tensor) for argument in args):
            self._left -= asked
        if asked > self._most or self._left < 0 or self._calls_left < 0:
            raise BudgetExceeded(
                f"it asks for far more than the {self.numbers} numbers of the model's files: the "
                "config is that of another model, or not of a model"
            )
        return func(*args, **(kwargs or {}))


def _numbers(name: str, args: Sequence[Any]) -> int:
    """How many numbers a call of torch will make, as far as its arguments say."""
    if name == "eye" and len(args) == 1:
        args = (*args, *args)
    if name in _COUNTS_UP_TO:
        return math.prod(max(1, int(one)) for one in args if isinstance(one, int | float))
    shapes = [one for one in args if isinstance(one, list | tuple | torch.Size)]
    sizes = [
        math.prod(shape) for shape in shapes if shape and all(isinstance(n, int) for n in shape)
    ]
    tensors = [one.shape for one in args if isinstance(one, Tensor)]
    if len(tensors) > 1:
        with contextlib.suppress(RuntimeError):  # not of the kind that is spread
            sizes.append(math.prod(torch.broadcast_shapes(*tensors)))
    return max(sizes, default=1)
