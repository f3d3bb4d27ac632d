"""Constants that stay in float64 in a flow of any dtype."""

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn


class ExactConstants(nn.Module):
    """Plain numbers as float64 buffers, on the device of the flow whatever its dtype.

    They are not saved: whoever has them made them.
    """

    def __init__(self, **values: Sequence[float]) -> None:
        super().__init__()
        self._values = {name: tuple(numbers) for name, numbers in values.items()}
        for name, numbers in self._values.items():
            made = torch.tensor(numbers, dtype=torch.float64)
            self.register_buffer(name, made, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # What was rounded on the way is made again.
        for name, numbers in self._values.items():
            device = self.get_buffer(name).device
            setattr(self, name, torch.tensor(numbers, dtype=torch.float64, device=device))
        return self
