"""What can be chosen about a training run; flags of `pushforward train` have the same names."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class TrainingError(ValueError):
    """Training cannot start, go on or be resumed; the message says what to change."""


class TrainingKept(TrainingError):
    """Training is over, but its model is not where it was to go: it was kept in `path`."""

    def __init__(self, reason: str, path: Path) -> None:
        super().__init__(f"{reason}: {path}")
        self.path = path


Objective = Literal["likelihood", "flow_matching"]


class TrainingOptions(BaseModel):
    """How to train.

    Attributes:
        objective: `likelihood`, or `flow_matching` for continuous flows: their equation is then
            solved for validation only.
        epochs: passes over the training rows, at most.
        batch_rows: rows a step.
        learning_rate: peak rate of Adam.
        warmup_steps: steps of linear warm-up to it.
        schedule: `cosine` (down to zero over all epochs) or `constant`, after the warm-up.
        weight_decay: of AdamW; 0 is Adam.
        clip_norm: largest norm of the gradient of the loss in nats a dimension; 0 is no limit.
        patience: epochs without a better validation likelihood before training stops.
        ema_decay: where set, the stored weights are this exponential moving average.
        coarse_bits: where set, 8-bit pixels are redrawn within their n-bit bins at every step, see
            `redraw`; test figures are of the pixels as they are.
        validation_fraction: of the normal rows, for early stopping and golden rows.
        test_fraction: of the normal rows, for the figures of the card.
        seed: of the split, the weights, the order of rows and all noise.
        save_seconds: how often the state for `--resume` is written, at the end of an epoch.
        picture_temperature: of the samples in samples.png.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    objective: Objective = "likelihood"
    epochs: Count = 100
    batch_rows: Annotated[int, Field(ge=2)] = 256
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    clip_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    patience: Count = 20
    ema_decay: Fraction | None = None
    coarse_bits: Annotated[int, Field(ge=1, le=8)] | None = None
    validation_fraction: Fraction = 0.1
    test_fraction: Fraction = 0.1
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    save_seconds: Annotated[float, Field(ge=0)] = 30.0
    picture_temperature: Annotated[float, Field(ge=0, le=2)] = 1.0

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Self:
        """Build the options from plain values.

        Raises:
            TrainingError: naming the first option that is unknown or out of range.
        """
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(map(str, first["loc"]))
            raise TrainingError(f"{name}: {first['msg']}, got {first['input']!r}") from None


def learning_rate_factor(step: int, total_steps: int, options: TrainingOptions) -> float:
    """What the peak learning rate is multiplied with at `step` = 0 .. total_steps - 1.

    Linear warm-up, (step + 1) / warmup_steps, then 1 or (1 + cos(pi t)) / 2 with t the part of
    the remaining steps that is done.

    Reference: Loshchilov & Hutter 2017, eq. 5 without restarts (arXiv 1608.03983).
    """
    if step < options.warmup_steps:
        return (step + 1) / options.warmup_steps
    if options.schedule == "constant":
        return 1.0
    done = (step - options.warmup_steps) / max(1, total_steps - options.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
