"""Tensors of a source, taken one by one: what is missing, left over or misshapen is known."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from models.importers.report import ImportRefused, Report

_MAX_NAMED = 6


class Weights:
    """A state dict that keeps account.

    `take` answers every key with a tensor of the shape asked for; a key that is missing or has
    another shape is noted and answered with zeros, so that `finish` can name all of them at once.

    Args:
        tensors: the state dict.
        report: where what is set aside or mended is noted.
        stored: plain values that the file holds beside them.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        report: Report | None = None,
        stored: Mapping[str, Any] | None = None,
    ) -> None:
        self._tensors = dict(tensors)
        self.stored: Mapping[str, Any] = stored or {}
        self._taken: set[str] = set()
        self._answers: dict[str, bool] = {}
        self._problems: list[str] = []
        self.report = report or Report()
        self._last = ""

    def __contains__(self, key: str) -> bool:
        return key in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def keys(self) -> Iterable[str]:
        """All keys, taken or not."""
        return self._tensors.keys()

    def has(self, pattern: str) -> bool:
        """Whether a key matches the whole of a regular expression."""
        if pattern not in self._answers:
            self._answers[pattern] = any(re.fullmatch(pattern, key) for key in self._tensors)
        return self._answers[pattern]

    def under(self, prefix: str) -> list[str]:
        """All keys that begin with a prefix, in the order of the file."""
        return [key for key in self._tensors if key.startswith(prefix)]

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of a tensor that a configuration is read off.

        Raises:
            ImportRefused: if the key is missing.
        """
        self._last = key
        if key not in self._tensors:
            raise ImportRefused(f"{key}: missing, and the configuration is read off its shape")
        return tuple(self._tensors[key].shape)

    def indices(self, pattern: str) -> list[int]:
        """The different numbers at the one group of a pattern, in order: which layers there are."""
        matches = (re.match(pattern, key) for key in self._tensors)
        return sorted({int(match.group(1)) for match in matches if match})

    def count(self, pattern: str) -> int:
        """How many layers there are, numbered 0, 1, ... at the one group of a pattern.

        Raises:
            ImportRefused: if the numbers have gaps.
        """
        found = self.indices(pattern)
        if found != list(range(len(found))):
            raise ImportRefused(
                f"{pattern}: expected layers numbered 0, 1, ... without gaps, got {found}; parts "
                "of the checkpoint are missing"
            )
        return len(found)

    def peek(self, key: str) -> Tensor:
        """A tensor in float64 without taking it, for inference.

        Raises:
            ImportRefused: if the key is missing.
        """
        self.shape(key)
        return self._tensors[key].detach().double()

    def take(self, key: str, *shape: int) -> Tensor:
        """A tensor of floating point numbers, in float64 (exact)."""
        return self._take(key, shape, floating=True).double()

    def take_integers(self, key: str, *shape: int) -> Tensor:
        """A tensor of integers or flags, in int64."""
        return self._take(key, shape, floating=False).long()

    def skip(self, pattern: str, reason: str) -> None:
        """Set aside all keys that match the whole of a pattern: no part of the density."""
        found = [key for key in self._tensors if re.fullmatch(pattern, key)]
        self._taken.update(found)
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            self.report.ignored(f"{found[0]}{more}", reason)

    def problem(self, key: str, text: str) -> None:
        """Note something that ends the import when `finish` is called."""
        self._problems.append(f"{key}: {text}")

    def suspects(self) -> str:
        """What was missing or misshapen until now; where nothing was, the key read last."""
        return _sentence(self._problems) or self._last or "its keys"

    def finish(self) -> None:
        """End the taking.

        Raises:
            ImportRefused: if keys were missing, misshapen or left over; names them.
        """
        left = [key for key in self._tensors if key not in self._taken]
        problems = [*self._problems, *(f"{key}: not part of this architecture" for key in left)]
        for problem in problems:
            key, _, text = problem.partition(": ")
            self.report.refused(key, text)
        if problems:
            raise ImportRefused(_sentence(problems))

    def _take(self, key: str, shape: tuple[int, ...], *, floating: bool) -> Tensor:
        self._taken.add(key)
        self._last = key
        wanted = torch.float64 if floating else torch.int64
        if key not in self._tensors:
            self.problem(key, f"missing; expected shape {shape}")
            return torch.zeros(shape, dtype=wanted)
        tensor = self._tensors[key].detach()
        if tuple(tensor.shape) != shape:
            self.problem(key, f"expected shape {shape}, got {tuple(tensor.shape)}")
            return torch.zeros(shape, dtype=wanted)
        if floating and not tensor.is_floating_point():
            self.problem(key, f"expected floating point numbers, got {tensor.dtype}")
        return tensor


def _sentence(problems: list[str]) -> str:
    more = f"; and {len(problems) - _MAX_NAMED} more" if len(problems) > _MAX_NAMED else ""
    return f"{'; '.join(problems[:_MAX_NAMED])}{more}"
