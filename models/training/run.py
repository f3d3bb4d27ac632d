"""One training run: the flow, its optimiser and EMA, how far it is, and its best weights."""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.datasets import Dataset, Split
from models.flow import Flow
from models.ode.call import SolveCall
from models.training.ema import EMA
from models.training.evaluate import as_tensors, is_dequantised, log_probs
from models.training.flow_matching import FlowMatching
from models.training.initialisation import initialise_actnorm
from models.training.options import TrainingError, TrainingOptions, learning_rate_factor
from models.training.pixel_noise import check_levels, redraw
from models.training.report import Epoch
from models.training.state import State, check_recipe, optimiser_tensors, restore_optimiser

# Rows actnorm layers take their statistics from: more than a batch, for smaller batches.
ACTNORM_ROWS = 512
MAX_SKIPPED_IN_A_ROW = 20


class Run:
    """The state of a run and the two things it does: train an epoch, validate it.

    Everything random is drawn from torch's global generator, whose state is part of the run's.

    Args:
        flow: freshly built.
        options: how to train.
        recipe: plain JSON that a resumed run must share with the interrupted one.
    """

    def __init__(self, flow: Flow, options: TrainingOptions, recipe: Mapping[str, Any]) -> None:
        self.flow = flow
        self.options = options
        self.recipe = dict(recipe)
        self.optimiser = torch.optim.AdamW(
            flow.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        self._matching = FlowMatching(flow) if options.objective == "flow_matching" else None
        self.ema: EMA | None = None
        self.history: list[Epoch] = []
        self.step = 0
        self.skipped_in_a_row = 0
        self.seconds = 0.0
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0
        # Of the epoch under way: in which order rows are taken, the loss of each step that was
        # made, and how many were skipped.
        self._order = torch.zeros(0, dtype=torch.int64)
        self._losses: list[float] = []
        self._skipped = 0

    @property
    def is_best(self) -> bool:
        """Whether the last epoch is the best one."""
        return self.best_epoch == len(self.history)

    @property
    def is_out_of_patience(self) -> bool:
        """Whether the best epoch is `patience` epochs ago."""
        return len(self.history) - self.best_epoch >= self.options.patience

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done or patience is out."""
        return len(self.history) >= self.options.epochs or self.is_out_of_patience

    def steps_per_epoch(self, train: Dataset) -> int:
        """Full batches and the remainder; a remainder of one row is left out."""
        full, rest = divmod(len(train), self.options.batch_rows)
        return full + (rest > 1)

    def initialise(self, train: Dataset) -> None:
        """Set actnorm layers from the first rows, with dequantization noise.

        Raises:
            TrainingError: if coarse pixels are asked for and the data are not 8-bit pixels.
        """
        if self.options.coarse_bits is not None:
            check_levels(train.num_levels)
        rows = torch.randperm(len(train))[:ACTNORM_ROWS].numpy()
        x, context = self._batch(train, rows)
        self.flow.train()
        initialise_actnorm(self.flow, x, context)
        self._start_ema()

    def run_epoch(
        self,
        parts: Split,
        on_step: Callable[[float], None],
        hold: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Train on every row once, then validate the weights.

        An epoch that was interrupted goes on where it stopped.

        Args:
            parts: the rows.
            on_step: is called with the loss of every step.
            hold: what is done in this context must not be interrupted; anything else may be.

        Raises:
            TrainingError: if loss or gradient stay not finite.
        """
        self.flow.train()
        if not len(self._order):
            with hold():
                self._order = torch.randperm(len(parts.train))
        steps = self.steps_per_epoch(parts.train)
        for index in range(len(self._losses) + self._skipped, steps):
            start = index * self.options.batch_rows
            rows = self._order[start : start + self.options.batch_rows].numpy()
            with hold():
                self._set_rate(self.options.epochs * steps)
                nats = self.update(*self._batch(parts.train, rows))
                if nats is None:
                    self._skipped += 1
                else:
                    self._losses.append(nats)
            if nats is not None:
                on_step(nats)
        random = torch.get_rng_state()
        try:
            validation = self.validate(parts.validation)
        except BaseException:
            torch.set_rng_state(random)  # it will be validated again
            raise
        with hold():
            self._end_epoch(validation)

    def _end_epoch(self, validation: float) -> None:
        train_nats = float(np.mean(self._losses)) if self._losses else math.inf
        rate = self.optimiser.param_groups[0]["lr"]
        self.history.append(Epoch(train_nats, validation, rate, self._skipped))
        best = self.history[self.best_epoch - 1].validation_nats if self.best_epoch else math.inf
        if validation < best:
            self.best_epoch = len(self.history)
            self.best = {key: value.clone() for key, value in self._evaluated.state_dict().items()}
        self._order, self._losses, self._skipped = self._order[:0], [], 0

    def best_flow(self) -> Flow:
        """The flow with its best weights, in evaluation mode.

        Raises:
            TrainingError: if no epoch had a finite validation likelihood.
        """
        if not self.best:
            raise TrainingError(
                "no epoch had a finite validation likelihood; lower --learning-rate, or look for "
                "outliers in the data"
            )
        self.flow.load_state_dict(self.best)
        return self.flow.eval()

    def state(self) -> State:
        """Everything `restore` needs."""
        groups: dict[str, Mapping[str, Tensor]] = {
            "flow": self.flow.state_dict(),
            "best": self.best,
            "optimiser": optimiser_tensors(self.optimiser),
            "random": {"torch": torch.get_rng_state()},
            "epoch": {"order": self._order},
        }
        if self.ema is not None:
            groups["average"] = self.ema.flow.state_dict()
        facts = {
            "recipe": self.recipe,
            "step": self.step,
            "seconds": self.seconds,
            "best_epoch": self.best_epoch,
            "epoch": {
                "losses": self._losses,
                "skipped": self._skipped,
                "in_a_row": self.skipped_in_a_row,
                "rate": self.optimiser.param_groups[0]["lr"],
            },
            "history": [
                [e.train_nats, e.validation_nats, e.learning_rate, e.skipped_steps]
                for e in self.history
            ],
        }
        return State(groups, facts)

    def restore(self, state: State) -> None:
        """Go back to where `state` was taken.

        Raises:
            TrainingError: if the state belongs to another recipe.
        """
        check_recipe(state, self.recipe)
        self.flow.load_state_dict(state.tensors["flow"])
        self._start_ema()
        if self.ema is not None:
            self.ema.flow.load_state_dict(state.tensors["average"])
        restore_optimiser(self.optimiser, state.tensors["optimiser"])
        self.best = dict(state.tensors.get("best", {}))
        self.best_epoch = state.facts["best_epoch"]
        self.step, self.seconds = state.facts["step"], state.facts["seconds"]
        self.history = [Epoch(*values) for values in state.facts["history"]]
        self._order = state.tensors.get("epoch", {}).get("order", self._order)
        # States of older versions are of whole epochs.
        epoch = state.facts.get("epoch")
        if epoch is not None:
            self._losses, self._skipped = list(epoch["losses"]), epoch["skipped"]
            self.skipped_in_a_row = epoch["in_a_row"]
            for group in self.optimiser.param_groups:
                group["lr"] = epoch["rate"]
        torch.set_rng_state(state.tensors["random"]["torch"])

    @property
    def _evaluated(self) -> Flow:
        """The flow whose weights count: their EMA where there is one."""
        return self.flow if self.ema is None else self.ema.flow

    def _start_ema(self) -> None:
        if self.options.ema_decay is not None:
            self.ema = EMA(self.flow, self.options.ema_decay)

    def _batch(self, train: Dataset, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor | None]:
        x, context = as_tensors(self.flow, train, rows)
        bits = self.options.coarse_bits
        return (x if bits is None else redraw(x, bits)), context

    def _set_rate(self, total_steps: int) -> None:
        factor = learning_rate_factor(self.step, total_steps, self.options)
        rate = self.options.learning_rate * factor
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def update(self, x: Tensor, context: Tensor | None) -> float | None:
        """Take one step; the loss of the batch (nats a row), None where the step was skipped."""
        self.optimiser.zero_grad()
        if self._matching is None:
            call = SolveCall()
            nats = -self.flow.log_prob(x, context, call=call).mean()
            loss = sum((cost.mean() for cost in call.costs), nats)
            # Nats a dimension: one clipping threshold then fits tables and images.
            (loss / self.flow.features).backward()
        else:
            nats = self._matching.loss(x, context)
            nats.backward()
        limit = self.options.clip_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.flow.parameters(), limit)
        self.step += 1
        if not (torch.isfinite(nats) and torch.isfinite(norm)):
            self._count_skipped()
            return None
        self.skipped_in_a_row = 0
        self.optimiser.step()
        if self.ema is not None:
            self.ema.update(self.flow, self.step - 1)
        return float(nats.detach())

    def _count_skipped(self) -> None:
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise TrainingError(
                f"loss or gradient were not finite {MAX_SKIPPED_IN_A_ROW} steps in a row (step "
                f"{self.step}); lower --learning-rate or --clip-norm, or look for outliers in "
                "the data"
            )

    def validate(self, validation: Dataset) -> float:
        """Mean of -log_prob in nats a row; the same noise at every epoch, so they compare."""
        flow, seed, bits = self._evaluated, self.options.seed, self.options.coarse_bits
        if bits is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                x = redraw(torch.from_numpy(validation.x), bits).numpy()
            validation = replace(validation, x=x)
        noise_seed = seed if is_dequantised(flow) else None
        scores = log_probs(flow, validation, noise_seed=noise_seed)
        return float(-scores.mean())
