"""The calibration of a model folder: rows it never saw, scored by the engine that serves it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.checkpoints.facts import ModelFacts
from models.datasets import Dataset, DatasetError, split
from models.datasets.fit import check_classes_fit, check_rows_fit
from models.scoring.calibration import Calibration, calibrate
from models.scoring.card import write_calibration_section
from models.scoring.probe import Probe, make_probes, measure, warnings_of
from models.scoring.statistics import Evidence, Statistic, choose_statistic, parse_statistic
from models.scoring.storage import write_calibration
from pushforward.cli.evidence import OpenedModel, gather_evidence, open_model

if TYPE_CHECKING:
    from models.training.options import TrainingOptions  # its package needs torch

AUTO = "auto"
NEG_LOG_PROB = "neg_log_prob"

Array = NDArray[Any]


class Inputs(NamedTuple):
    """Rows with their context, (N, C): one-hot labels, or numbers; None of others."""

    data: Dataset
    context: Array | None

    def take(self, rows: Array) -> "Inputs":
        """The rows given by an index array or a boolean mask."""
        return Inputs(self.data.take(rows), None if self.context is None else self.context[rows])


@dataclass(frozen=True, slots=True)
class CalibrationPlan:
    """What is calibrated, and on what.

    Args:
        statistic: as it is asked for; `auto` chooses by the kind of data.
        background: the opened model of `ratio:NAME`.
        anomalies: rows that should be found.
        dataset: what the calibration rows are, in words.
        checks: what was found about the rows before they were scored, by name.
        warnings: sentences to keep with the calibration, before those that it gives itself.
    """

    dataset: str
    statistic: str = AUTO
    background: OpenedModel | None = None
    anomalies: Inputs | None = None
    checks: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def make_inputs(facts: ModelFacts, data: Dataset, context: Array | None = None) -> Inputs:
    """Compare rows with what a model takes, and give them their context.

    Args:
        facts: of the model.
        data: rows, with labels where the model is conditional on classes.
        context: (N, C) or (1, C), of a model that is conditional on numbers.

    Raises:
        DatasetError: naming the first difference.
    """
    check_rows_fit(facts, data)
    if facts.context_shape is None:
        if context is not None:
            raise DatasetError("--context: the model takes none")
        return Inputs(data, None)
    if facts.num_classes is None and context is not None:
        if context.shape[1:] != facts.context_shape or len(context) not in (1, len(data)):
            raise DatasetError(
                f"--context: expected ({len(data)}, {facts.context_shape[0]}) numbers, one row a "
                f"row or one for all, got {context.shape}"
            )
        return Inputs(data, np.broadcast_to(context, (len(data), *facts.context_shape)))
    if facts.num_classes is None:
        raise DatasetError(
            f"the model takes a context of {facts.context_shape[0]} numbers a row: name the file "
            "that holds them with --context"
        )
    check_classes_fit(facts, data)
    return Inputs(data, np.eye(facts.num_classes)[data.labels])


def calibrate_model(model: OpenedModel, rows: Inputs, plan: CalibrationPlan) -> Calibration:
    """Score rows as the server will, and probe the direction of the statistic.

    Args:
        model: opened for it.
        rows: that it was not trained on. Those that are marked as anomalies are to be found, where
            the plan has no others.
        plan: the rest.

    Raises:
        DatasetError: all rows are marked as anomalies.
        CalibrationError, StatisticError: no row has a finite score, or the statistic cannot score
            the model's rows.
    """
    rows, marked = _normal(rows)
    chosen = choose_statistic(model.facts.num_levels) if plan.statistic == AUTO else plan.statistic
    kind, _ = parse_statistic(chosen)
    evidence = gather_evidence(model, rows.data.x, rows.context, plan.background)
    is_scored = _scored(evidence)
    evidence, rows = _take(evidence, is_scored), rows.take(is_scored)
    calibration = calibrate(
        evidence,
        statistic=chosen,
        weights=model.weights,
        dtype=model.engine.dtype,
        dataset=plan.dataset,
        labels=rows.data.labels if model.facts.num_classes else None,
        background=None if plan.background is None else plan.background.weights,
    )
    checks = {
        **plan.checks,
        "engine": model.engine.name,
        "statistic_chosen_by": AUTO if plan.statistic == AUTO else "name",
        "rows_without_score": int((~is_scored).sum()),
        "rows_outside_support": int(np.isneginf(evidence.log_prob).sum()),
    }
    prober = _Prober(model, rows, evidence, calibration, kind, plan.background)
    probes, warnings = prober.probe()
    anomalies, more = prober.detect(plan.anomalies or marked)
    told = [*plan.warnings, *_count(checks, len(is_scored)), *warnings, *more]
    report = {"checks": checks, "probes": probes, "anomalies": anomalies, "warnings": told}
    return replace(calibration, report=report)


def store(folder: Path, calibration: Calibration) -> None:
    """Write a calibration beside the weights, and what it says into the model card if there is one.

    Raises:
        OSError: it cannot be written.
    """
    write_calibration_section(folder, calibration)
    write_calibration(folder, calibration)


def calibrate_held_out(folder: Path, data: Dataset, options: "TrainingOptions") -> Calibration:
    """Calibrate a model that was just trained on the test rows of its split, and store it.

    Args:
        folder: of the model.
        data: what it was trained on, with the rows that were kept apart.
        options: of the training.

    Raises:
        ValueError, RuntimeError: it cannot be.
        OSError: it cannot be written.
    """
    test = split(
        data, validation=options.validation_fraction, test=options.test_fraction, seed=options.seed
    ).test
    model = open_model(folder)
    checks = {
        "training_rows": "the test rows of the split that the model was trained with",
        "is_checked": True,
        "rows_given": len(data),
        "rows": len(test),
    }
    plan = CalibrationPlan(f"{data.recipe or data.name}, test rows", checks=checks)
    made = calibrate_model(model, make_inputs(model.facts, test), plan)
    store(folder, made)
    return made


def _normal(rows: Inputs) -> tuple[Inputs, Inputs | None]:
    """The normal rows, and those that are marked as anomalies."""
    is_anomaly = rows.data.anomaly
    if is_anomaly is None or not is_anomaly.any():
        return rows, None
    if is_anomaly.all():
        raise DatasetError(
            f"{rows.data.name}: no normal row to calibrate on; all are marked as anomalies"
        )
    return rows.take(~is_anomaly), rows.take(is_anomaly)


def _scored(evidence: Evidence) -> Array:
    """Which rows the model has a density for; one that has none is never flagged when served."""
    missing = np.isnan(evidence.log_prob)
    if evidence.background is not None:
        missing |= ~np.isfinite(evidence.background)
    return np.asarray(~missing)


def _take(evidence: Evidence, rows: Array) -> Evidence:
    return evidence._replace(
        x=evidence.x[rows],
        log_prob=evidence.log_prob[rows],
        z=evidence.z[rows],
        background=None if evidence.background is None else evidence.background[rows],
    )


def _count(checks: Mapping[str, Any], rows: int) -> list[str]:
    lines = []
    if missing := checks["rows_without_score"]:
        lines.append(
            f"{missing} of {rows} calibration rows have no log_prob (NaN) and were left out; such "
            "rows are never flagged"
        )
    if outside := checks["rows_outside_support"]:
        lines.append(
            f"{outside} of {rows} calibration rows lie outside the support of the model "
            "(log_prob -inf): they count as the most anomalous, and such rows are flagged only "
            "where alpha is larger than their share"
        )
    return lines


@dataclass(frozen=True, slots=True)
class _Prober:
    """Scores other rows by the calibrated statistic and by -log p, beside the calibration rows."""

    model: OpenedModel
    rows: Inputs
    evidence: Evidence
    calibration: Calibration
    kind: Statistic
    background: OpenedModel | None

    def probe(self) -> tuple[list[dict[str, Any]], list[str]]:
        """What the direction probes find, and what to say of it."""
        facts = self.model.facts
        found, warnings = [], []
        for probe in make_probes(self.evidence.x, facts.num_levels, facts.discrete):
            context = None if self.rows.context is None else self.rows.context[probe.source]
            measured = self._measure(probe.x, context)
            found.append(_describe(probe, measured))
            warnings += warnings_of(probe.what, measured, self.calibration.statistic)
        return found, warnings

    def detect(self, anomalies: Inputs | None) -> tuple[dict[str, Any] | None, list[str]]:
        """How well the anomalies that were given are found, and what to say of it."""
        if anomalies is None:
            return None, []
        measured = self._measure(anomalies.data.x, anomalies.context, is_full=True)
        found = {"dataset": anomalies.data.name, "rows": len(anomalies.data)}
        what = f"the anomalies of {anomalies.data.name}"
        return (
            {**found, "statistics": measured},
            warnings_of(what, measured, self.calibration.statistic),
        )

    def _measure(
        self, x: Array, context: Array | None, *, is_full: bool = False
    ) -> dict[str, dict[str, Any]]:
        evidence = gather_evidence(self.model, x, context, self.background)
        scores = self.kind.score(evidence, self.calibration.parameters)
        normal, other = -self.evidence.log_prob, -evidence.log_prob
        measured = {NEG_LOG_PROB: measure(normal, other, is_full=is_full)}
        chosen = measure(self.calibration.scores, scores, is_full=is_full)
        return {**measured, self.calibration.statistic: chosen}


def _describe(probe: Probe, measured: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": probe.name,
        "what": probe.what,
        "rows": len(probe.x),
        "statistics": dict(measured),
    }
