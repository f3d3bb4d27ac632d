"""POST /score: anomaly scores with p-values, and which rows are anomalies."""

import logging
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from models.scoring.statistics import Evidence, Statistic, parse_statistic
from service.codec.media import JSON, OCTETS, PNG
from service.codec.tensors import Array
from service.contracts import InferenceResult, ModelCard, RowQueue, ServedModel
from service.operations.background import find_background
from service.operations.calibration import (
    OF_P_VALUES,
    check_alpha,
    described,
    labels_of_all,
    labels_of_judged,
    not_calibrated,
    refuse_without,
)
from service.operations.decision import (
    ALPHA,
    FDR,
    THRESHOLD,
    Decision,
    read_decision,
)
from service.operations.explanation import (
    EXPLAIN,
    ExplainLimits,
    add_explanation,
    ask_candidates,
    read_explain,
)
from service.operations.explanation import OUTPUTS as EXPLAINED
from service.operations.fields import (
    COLUMNS,
    CONTEXT,
    INVALID,
    MODEL,
    RETURN_EVALUATIONS,
    Output,
    flag,
    number_output,
    truth_output,
)
from service.operations.heat_map import ask_gradient, check_heat_map, put_heat_map
from service.operations.log_prob import X, log_density
from service.operations.model_input import FollowUp, ModelInput
from service.operations.response import ResponseFormat, Scalars, Tensors
from service.operations.spec import IMAGE_BODIES, SCALE, Operation, example_rows
from service.telemetry import Metrics

# Of an answer: score, log_prob, p_value, q_value and is_anomaly, of which most are float64.
_VALUES_PER_ROW = 8
_BACKGROUND = "background"
_EXAMPLE_ALPHA = 0.05

OBSERVE = flag(
    "observe",
    "Whether these rows count in the metrics of what was scored: the test for drift, the p-values, "
    "the anomalies. Send false for rows that were scored before, to explain them, say.",
    default=True,
)

_log = logging.getLogger(__name__)


class Score(Operation):
    """Scores of rows, p-values by the calibration, and what is decided by one of three limits."""

    name = "score"
    summary = "Score anomalies"
    description = (
        "A score a row, higher is more anomalous, and p = (1 + #{s_i >= s}) / (n + 1) over the n "
        "calibration rows. One of alpha, fdr and threshold decides which rows are anomalies; "
        "without any, no row is called one."
    )
    tensor = X
    fields = (
        *(MODEL, X, COLUMNS, CONTEXT, INVALID, RETURN_EVALUATIONS),
        *(ALPHA, FDR, THRESHOLD, EXPLAIN, OBSERVE, SCALE),
    )
    outputs = (
        number_output("score", "Higher is more anomalous; null in the place of +inf.", dtype="f8"),
        number_output("log_prob", "In nats, of the data as sent."),
        Output(
            "p_value",
            {
                "type": ["array", "null"],
                "items": {"type": ["number", "null"]},
                "description": "How often a row like the calibration rows scores as high; null "
                "without calibration.",
            },
            is_tensor=True,
            dtype="f8",
        ),
        number_output("q_value", "With fdr: that of the row.", is_always=False, dtype="f8"),
        truth_output("is_anomaly", "With alpha, fdr or threshold: what they decide."),
        Output(
            "calibration",
            {
                "type": ["object", "null"],
                "description": "What the p-values promise: id, rows, statistic, direction, "
                "threshold, p_floor, fpr_upper95, dataset, created; null if there is none.",
            },
        ),
        *EXPLAINED,
    )
    bodies = IMAGE_BODIES
    gives_images = True
    lone_fields = frozenset((ALPHA.name, THRESHOLD.name))
    is_observed = True

    def queue(self, model: ServedModel, *, wants_log_det: bool = True) -> RowQueue:
        """Scores are made of latents."""
        return model.encode

    def values_per_row(self, card: ModelCard) -> int:
        """Those of all outputs, in numbers of a float32."""
        return _VALUES_PER_ROW

    def check_size(
        self, card: ModelCard, form: ResponseFormat, rows: int, values_per_row: int | None = None
    ) -> None:
        """Refuse what would have too large an answer; of a heat map a pixel has three bytes."""
        if form.media == PNG:
            pixels = card.features // card.event_shape[0] * form.scale**2
            values_per_row = math.ceil(3 * pixels / card.numpy_dtype.itemsize)
        super().check_size(card, form, rows, values_per_row)

    @classmethod
    def output_names(cls, card: ModelCard) -> tuple[str, ...]:
        """Without calibration there are no p-values."""
        names = super().output_names(card)
        if card.calibration is not None:
            return names
        return tuple(name for name in names if name not in OF_P_VALUES)

    @classmethod
    def answered_names(cls, card: ModelCard, fields: Mapping[str, Any]) -> tuple[str, ...]:
        """What is decided, where something decides; q-values are those of fdr."""
        given = {name for name, value in fields.items() if value is not None}
        unknown = set() if FDR.name in given else {"q_value"}
        if given.isdisjoint((ALPHA.name, FDR.name, THRESHOLD.name)):
            unknown.add("is_anomaly")
        return tuple(name for name in cls.output_names(card) if name not in unknown)

    @classmethod
    def refuse_output(cls, name: str, card: ModelCard, fields: Mapping[str, Any]) -> None:
        """Say which of calibration and limit an output needs; see `refuse_without`."""
        if name in cls._tensors:
            refuse_without(name, card)

    def complete(
        self, given: ModelInput, fields: dict[str, Any], model: ServedModel, form: ResponseFormat
    ) -> ModelInput:
        """Read what decides, and say what the calibration promises."""
        card, decision = model.card, read_decision(fields, given.total)
        if OBSERVE.name in fields:
            given = given._replace(is_observed=OBSERVE.value(fields))
        calibration = card.calibration
        if form.media == PNG:
            check_heat_map(model, len(given.rows))
            given = given._replace(heat_map=True)
        explain = 0
        if EXPLAIN.name in fields:
            limits = ExplainLimits(self._limits.max_request_rows, decision is not None)
            explain = read_explain(fields, card, given, form.media, limits)
        if calibration is None:
            if decision is not None and decision.needs_calibration:
                raise not_calibrated(decision.name, card, f"/{decision.name}")
            nothing = {"p_value": None, "calibration": None}
            scalars: Scalars = nothing if form.media in (JSON, OCTETS) else {}
            return given._replace(scalars=scalars, decision=decision, follows=given.heat_map)
        labels = labels_of_judged(card, calibration, given)
        alpha = decision.limit if decision is not None and decision.name == ALPHA.name else None
        if alpha is not None:
            check_alpha(alpha, calibration, labels, card)
        said = described(calibration, alpha, labels)
        if calibration.background is not None:
            find_background(calibration, card, self.others)
        follows = calibration.background is not None or given.heat_map or explain > 0
        member = said.json if form.media in (JSON, OCTETS) else said.text
        return given._replace(
            scalars={"calibration": member}, decision=decision, follows=follows, explain=explain
        )

    def follow_up(
        self, model: ServedModel, given: ModelInput, result: InferenceResult
    ) -> FollowUp | None:
        """Ask the background model of a ratio for the same rows, then for what explains them."""
        card, calibration = model.card, model.card.calibration
        is_ratio = calibration is not None and calibration.background is not None
        if is_ratio and _BACKGROUND not in given.followed:
            assert calibration is not None
            other = find_background(calibration, card, self.others)
            rows = given.rows.astype(other.card.numpy_dtype, copy=False)
            return FollowUp(_BACKGROUND, self.queue(other), rows)
        if given.heat_map:
            return ask_gradient(model, given)
        if not given.explain:
            return None
        _, outputs = self._decide(card, given, result, JSON)
        return ask_candidates(card, given, outputs, self._limits.max_request_rows)

    def compute_outputs(
        self, card: ModelCard, given: ModelInput, result: InferenceResult
    ) -> Tensors:
        """The statistic of the calibration, -log_prob without one."""
        log_prob = log_density(result.value, result.log_det)
        calibration = card.calibration
        if calibration is None:
            return {"score": -log_prob.astype(np.float64), "log_prob": log_prob}
        if not len(given.rows):
            return {"score": np.empty(0), "log_prob": log_prob}
        statistic = _statistic_of(calibration.statistic)
        evidence = Evidence(given.rows, log_prob, result.value, _background(given), card.num_levels)
        return {
            "score": statistic.score(evidence, calibration.parameters),
            "log_prob": log_prob,
        }

    def finish(
        self, card: ModelCard, given: ModelInput, result: InferenceResult, media: str
    ) -> tuple[Scalars, Tensors]:
        """Add p-values and what is decided, of the rejected rows too, and what explains it."""
        scalars, outputs = self._decide(card, given, result, media)
        if given.explain:
            scalars = {**scalars}
            add_explanation(card, given, outputs, scalars, media)
        return put_heat_map(card, given, scalars, outputs) if given.heat_map else (scalars, outputs)

    def _decide(
        self, card: ModelCard, given: ModelInput, result: InferenceResult, media: str
    ) -> tuple[Scalars, Tensors]:
        scalars, outputs = super().finish(card, given, result, media)
        calibration, decision = card.calibration, given.decision
        if calibration is not None:
            labels = labels_of_all(card, calibration, given)
            outputs["p_value"] = calibration.p_values(outputs["score"], labels)
        if isinstance(decision, Decision):
            decision.decide(outputs)
        return scalars, outputs

    def observe(
        self, model: ServedModel, outputs: Tensors, requests: Sequence[str], metrics: Metrics
    ) -> None:
        """Test for drift, count the anomalies, log which requests have some: never the rows."""
        card, flagged = model.card, outputs.get("is_anomaly")
        if card.calibration is not None:
            metrics.drift.observe(
                card.name,
                card.calibration.id,
                outputs["score"],
                outputs["p_value"],
                version=card.version,
            )
        if flagged is None or not flagged.any():
            return
        metrics.anomalies.labels(card.name, card.version).inc(int(flagged.sum()))
        if not _log.isEnabledFor(logging.INFO):
            return
        calibration = None if card.calibration is None else card.calibration.id
        parts = flagged[None] if len(requests) == 1 else flagged[:, None]
        for request, rows in zip(requests, parts, strict=True):
            if rows.any():
                _log.info(
                    "request %s: %d of %d rows are anomalies, model %s %s, calibration %s",
                    *(request, rows.sum(), len(rows), card.name, card.version, calibration),
                )

    def example(self, card: ModelCard) -> dict[str, Any]:
        """One row to score, with a false-alarm rate where one can be promised."""
        rows = {"x": example_rows(card.event_shape)}
        if card.calibration is None or card.calibration.least_alpha() > _EXAMPLE_ALPHA:
            return rows
        return {**rows, "alpha": _EXAMPLE_ALPHA}


@lru_cache
def _statistic_of(name: str) -> Statistic:
    return parse_statistic(name)[0]


def _background(given: ModelInput) -> Array | None:
    found = given.followed.get(_BACKGROUND)
    return None if found is None else log_density(found.value, found.log_det)
