"""The training loop: minimise the mean of -log_prob over the training rows."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.checkpoints import golden
from models.checkpoints.folder import CheckpointError, save
from models.checkpoints.reference import continuous_parts
from models.checkpoints.tolerance import ROWS, keep_promise, use_solver
from models.datasets import Dataset, DatasetError, Split, is_named, split
from models.datasets.rows import write_rows
from models.flow import Flow
from models.registry import build
from models.training.card import write_card
from models.training.defaults import fill_defaults
from models.training.evaluate import as_tensors, check_fits, evaluate, measure_on
from models.training.interrupt import Interruption, Signals, TrainingInterrupted
from models.training.keep import check_out, keep_model, keep_state, keep_weights
from models.training.options import TrainingOptions
from models.training.pictures import check_pictures, write_pictures
from models.training.progress import Listener, Silence, bits_scale
from models.training.provenance import describe_data, provenance, recipe
from models.training.report import DataFacts, TrainingReport
from models.training.resolution import check_resolved
from models.training.run import Run
from models.training.state import read_state, state_path, write_state

GOLDEN_ROWS = 8
# A model and the state of its run: weights, the best ones, their EMA, two moments each.
_SPACE = 6
# Card, report and pictures.
_SPACE_BESIDE = 2**19

_log = logging.getLogger(__name__)


def train(
    data: Dataset,
    family: str,
    config: Mapping[str, Any],
    out: Path,
    *,
    options: TrainingOptions | None = None,
    resume: bool = False,
    listener: Listener | None = None,
) -> TrainingReport:
    """Train a flow by maximum likelihood and write it as a model folder.

    The same data, configuration, options and seed give the same weights on one thread, also when
    the run was interrupted and resumed.

    Args:
        data: rows; anomalies and a seeded part of the others are held out.
        family: a name in `models.registry.FAMILIES`.
        config: its arguments; shapes and preprocessing are taken from the data where left out.
        out: the model folder to write, with training.json, loss.png, samples.png and README.md.
        options: how to train.
        resume: go on with the interrupted run that was to write `out`.
        listener: is called at every step and epoch.

    Raises:
        ValueError: if data, configuration and options do not go together.
        TrainingError: if `out` is taken, it cannot be written, a saved state would be lost, there
            is nothing to resume, or the loss is not finite. All but the last before the first
            epoch.
        TrainingKept: if the finished model could not be written to `out`; it lies elsewhere.
        TrainingInterrupted: after SIGINT or SIGTERM; the state is saved.
    """
    options = options or TrainingOptions()
    check_pictures()
    check_out(out, resume=resume)
    parts = split(
        data, validation=options.validation_fraction, test=options.test_fraction, seed=options.seed
    )
    devices = list(range(torch.cuda.device_count()))
    with Signals() as signals:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(options.seed)
            try:
                flow = _build(family, config, data, parts)
                facts = describe_data(data, parts, options, flow)
                check_out(out, resume=resume, num_bytes=_SPACE * _bytes(flow) + _SPACE_BESIDE)
                run = Run(flow, options, recipe(flow, options, facts))
            except Interruption as stop:
                raise _not_begun(out, stop.number) from None
            try:
                with signals.hold():
                    if resume:
                        _resume(run, data, out)
                    else:
                        run.initialise(parts.train)
                _fit(run, parts, out, listener or Silence(), signals)
            except Interruption as stop:
                raise _interrupted(run, out, stop.number) from None
        try:
            return _finish(run, parts, facts, config, out)
        except Interruption as stop:
            raise TrainingInterrupted(stop.number, _resumable(out)) from None


def _build(family: str, config: Mapping[str, Any], data: Dataset, parts: Split) -> Flow:
    flow = build(family, fill_defaults(family, config, parts.train))
    if data.discrete != flow.facts.discrete:
        raise DatasetError(
            f"{data.name}: discrete: the preprocessing that was given dequantises the columns "
            f"{list(flow.facts.discrete)}, the data mark {list(data.discrete)}; leave "
            "preprocessing out, or give the step dequantise_columns and mark the same columns"
        )
    check_fits(flow, parts.train)
    check_resolved(data, flow)
    return flow


def _fit(run: Run, parts: Split, out: Path, listener: Listener, signals: Signals) -> None:
    steps = run.steps_per_epoch(parts.train)
    scale = bits_scale(run.flow.features, run.flow.facts.num_levels)
    listener.on_start(run.options.epochs * steps, run.step, scale)
    saved = started = time.monotonic()
    try:
        while not run.is_finished:
            run.run_epoch(parts, listener.on_step, signals.hold)
            listener.on_epoch(len(run.history), run.history[-1], is_best=run.is_best)
            now = time.monotonic()
            run.seconds, started = run.seconds + now - started, now
            if now - saved >= run.options.save_seconds:
                with signals.hold():
                    _save_state(run, out)
                saved = now
        # What was trained must outlive what is done with it: judging it, writing it.
        with signals.hold():
            _save_state(run, out)
    finally:
        listener.on_end()


def _resume(run: Run, data: Dataset, out: Path) -> None:
    state = read_state(state_path(out))
    # States of before name generated data by their values.
    named = state.facts["recipe"]["data"]
    if is_named(data, named):
        run.recipe["data"] = named
    run.restore(state)


def _save_state(run: Run, out: Path) -> None:
    try:
        write_state(state_path(out), run.state())
    except OSError as error:
        # The run can still end well.
        _log.warning("the state of the run cannot be saved: %s", error)


def _interrupted(run: Run, out: Path, number: int) -> TrainingInterrupted:
    """Save the state of a run; what to raise."""
    where = f"{len(run.history)} of {run.options.epochs} epochs, step {run.step}"
    try:
        path, is_found = keep_state(out, run.state())
    except OSError as error:
        return TrainingInterrupted(number, f"interrupted after {where}; nothing is saved: {error}")
    if is_found:
        return TrainingInterrupted(number, f"interrupted after {where}; {_resumable(out)}")
    return TrainingInterrupted(
        number,
        f"interrupted after {where}; its state is saved in {path}: move it to {state_path(out)} "
        "and go on with the same command and --resume",
    )


def _not_begun(out: Path, number: int) -> TrainingInterrupted:
    """What to raise before there is a run: a state that lies there is that of another one."""
    what = "interrupted before the first step"
    if state_path(out).exists():
        return TrainingInterrupted(number, f"{what}; {_resumable(out)}")
    return TrainingInterrupted(number, f"{what}; there is nothing to save")


def _resumable(out: Path) -> str:
    return f"the state is saved in {state_path(out)}: go on with the same command and --resume"


def _bytes(flow: Flow) -> int:
    return sum(tensor.nbytes for tensor in flow.state_dict().values())


def _finish(
    run: Run, parts: Split, facts: DataFacts, arguments: Mapping[str, Any], out: Path
) -> TrainingReport:
    flow = run.best_flow()
    solver_note = "" if "solver" in arguments else tighten_solver(flow, parts.validation)
    rows = np.arange(min(GOLDEN_ROWS, len(parts.validation)))
    # As they are in the data: rounding them to the flow's dtype is part of its error.
    x, context = as_tensors(flow, parts.validation, rows, dtype=torch.float64)
    golden_rows = golden.Inputs(x, context)
    report = TrainingReport(
        family=flow.family,
        arguments=dict(arguments),
        config=flow.config,
        options=run.options.model_dump(mode="json"),
        data=facts,
        parameters=sum(weights.numel() for weights in run.flow.parameters()),
        best_epoch=run.best_epoch,
        stopped_early=run.is_out_of_patience,
        seconds=round(run.seconds, 1),
        history=tuple(run.history),
        test=evaluate(flow, parts.test, seed=run.options.seed),
        accuracy=measure_on(flow, parts.test, golden_rows),
        solver_note=solver_note,
    )
    _write_model(flow, out, golden_rows, report)
    state_path(out).unlink(missing_ok=True)
    if not facts.recipe:
        write_rows(out, parts)
    report.write(out)
    write_pictures(flow, parts, report, out)
    write_card(out, report, notes=[*facts.warnings, *([solver_note] if solver_note else [])])
    return report


def tighten_solver(flow: Flow, held_out: Dataset) -> str:
    """Solve as exactly as the promise takes, in float64 where that is what it takes.

    Args:
        flow: is changed, if it is a continuous one.
        held_out: rows to measure on.

    Returns:
        What was done, in a sentence; "" where nothing was.
    """
    if not continuous_parts(flow):
        return ""
    rows = np.arange(min(ROWS, len(held_out)))
    given = as_tensors(flow, held_out, rows, dtype=torch.float64)
    kept = keep_promise(flow, golden.Inputs(*given), flow.dtype)
    if kept.is_tightened:
        use_solver(flow, kept.solver)
        flow.to(kept.dtype)
    return kept.describe()


def _write_model(flow: Flow, out: Path, rows: golden.Inputs, report: TrainingReport) -> None:
    """Write the model to its folder, or somewhere.

    Raises:
        TrainingKept: its folder cannot be written, or the model does not prove itself.
    """
    origin = provenance(report)

    def write(folder: Path, dtype: torch.dtype | None = None) -> None:
        # The report's figures are those of the flow's own dtype.
        accuracy = report.accuracy if dtype is None else None
        save(flow, folder, rows=rows, provenance=origin, dtype=dtype, accuracy=accuracy)

    def write_steep(folder: Path) -> None:
        write(folder, torch.float64)
        _log.warning("%s: too steep for float32, so it is served in float64", folder)

    try:
        write(out)
        return
    except OSError as error:
        raise keep_model(out, error, write) from error
    except CheckpointError as error:
        refusal = error
    try:
        write_steep(out)
    except OSError as error:
        raise keep_model(out, error, write_steep) from error
    except CheckpointError:
        raise keep_weights(flow, out, str(refusal)) from refusal
