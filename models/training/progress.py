"""What is seen of a run while it runs."""

import math
from typing import Protocol

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from models.training.options import Objective
from models.training.report import Epoch


class Listener(Protocol):
    """Is called at every step and every epoch."""

    def on_start(self, total_steps: int, done_steps: int, bits_scale: float | None) -> None:
        """Training starts or goes on; nats * bits_scale = bits/dim where that has a meaning."""

    def on_step(self, nats: float) -> None:
        """A step was made; nats a row of its batch."""

    def on_epoch(self, number: int, epoch: Epoch, *, is_best: bool) -> None:
        """An epoch, counted from 1, has ended."""

    def on_end(self) -> None:
        """Training has ended, also by an error."""


class Silence:
    """Shows nothing."""

    def on_start(self, total_steps: int, done_steps: int, bits_scale: float | None) -> None:
        """Do nothing."""

    def on_step(self, nats: float) -> None:
        """Do nothing."""

    def on_epoch(self, number: int, epoch: Epoch, *, is_best: bool) -> None:
        """Do nothing."""

    def on_end(self) -> None:
        """Do nothing."""


class ProgressBar:
    """A bar with time, the loss of the last batch, and one line an epoch above it.

    Args:
        objective: what is trained; the loss of flow matching is a mean square, no likelihood.
    """

    def __init__(self, objective: Objective = "likelihood") -> None:
        self._objective = objective
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._bits_scale: float | None = None

    def on_start(self, total_steps: int, done_steps: int, bits_scale: float | None) -> None:
        """Draw the bar."""
        self._bits_scale = bits_scale
        self._task = self._bar.add_task("training", total=total_steps, completed=done_steps)
        self._bar.start()

    def on_step(self, nats: float) -> None:
        """Move the bar."""
        self._bar.update(self._task, advance=1, description=self._loss(nats))

    def on_epoch(self, number: int, epoch: Epoch, *, is_best: bool) -> None:
        """Print a line."""
        self._bar.console.print(
            f"epoch {number:4d}   train {self._loss(epoch.train_nats)}   "
            f"validation {self._figure(epoch.validation_nats)}{'  best' if is_best else ''}"
        )

    def on_end(self) -> None:
        """Take the bar away."""
        self._bar.stop()

    def _loss(self, loss: float) -> str:
        is_matching = self._objective == "flow_matching"
        return f"{loss:.4f} mean square" if is_matching else self._figure(loss)

    def _figure(self, nats: float) -> str:
        bits = self._bits_scale
        return f"{nats:.4f} nats" + (f" {nats * bits:.4f} bits/dim" if bits else "")


def bits_scale(features: int, num_levels: int | None) -> float | None:
    """1 / (D ln 2) for pixels, None for other data."""
    return None if num_levels is None else 1 / (features * math.log(2))
