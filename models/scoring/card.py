"""What a calibration says on the model card, README.md of the folder, and in tables for people."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.checkpoints.files import write_file
from models.scoring.calibration import Calibration

CARD_FILE = "README.md"
HEADING = "## Calibration"
_NEXT = "\n## "


def write_calibration_section(folder: Path, calibration: Calibration) -> None:
    """Put a calibration on the model card, in the place of one before; without a card, do nothing.

    Raises:
        OSError: it cannot be read or written.
    """
    path = folder / CARD_FILE
    if not path.is_file():
        return
    before, after = _around(path.read_text(encoding="utf-8"))
    text = f"{before.rstrip()}\n\n{describe(calibration)}\n"
    write_file(path, (f"{text}{after}" if after else text).encode())


def _around(card: str) -> tuple[str, str]:
    """The card before and after its section on calibration."""
    before, heading, rest = card.partition(f"\n{HEADING}\n")
    if not heading:
        return card, ""
    _, found, after = rest.partition(_NEXT)
    return before, f"{_NEXT}{after}" if found else ""


def describe(calibration: Calibration) -> str:
    """The section: thresholds with their bounds, what the probes found, and warnings."""
    facts = calibration.facts()
    lines = [
        HEADING,
        "",
        f"Calibration `{facts['id']}`: `{facts['statistic']}` of {facts['rows']:,} rows "
        f"({facts['dataset']}), {facts['dtype']}. A row is flagged where its score is above the "
        "threshold; alpha is the rate of false alarms, and the bound is what it stays below for "
        "95 % of calibration sets.",
        "",
        "| alpha | threshold | 95 % bound of alpha |",
        "|---|---|---|",
        *(f"| {' | '.join(cells)} |" for cells in threshold_rows(facts)),
    ]
    found = probe_rows(facts)
    if found:
        lines += [
            "",
            "How well rows that are not data are told from the calibration rows: AUROC with its "
            "95 % interval.",
            "",
            "| rows | statistic | AUROC |",
            "|---|---|---|",
            *(f"| {' | '.join(cells)} |" for cells in found),
        ]
    warnings = [str(line) for line in facts["warnings"]]
    return "\n".join([*lines, *(part for line in warnings for part in ("", f"**Note:** {line}."))])


def threshold_rows(facts: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """For each stated alpha: alpha, threshold, and the 95 % bound of the rate, or what is missing.

    Args:
        facts: of `Calibration.facts`.
    """
    return [
        (f"{row['alpha']:g}", row["reason"], "")
        if "reason" in row
        else (f"{row['alpha']:g}", _number(row["threshold"]), f"{row['fpr_upper95']:.4g}")
        for row in facts["thresholds"]
    ]


def probe_rows(facts: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """For each probe, and for the anomalies, by each statistic: rows, statistic, AUROC."""
    named = [(probe["what"], probe["statistics"]) for probe in facts["probes"]]
    if facts["anomalies"]:
        named.append(
            (f"anomalies: {facts['anomalies']['dataset']}", facts["anomalies"]["statistics"])
        )
    return [
        (what, statistic, _auroc(measured))
        for what, statistics in named
        for statistic, measured in statistics.items()
    ]


def _number(threshold: float | None) -> str:
    return "none: rows outside the support" if threshold is None else f"{threshold:.6g}"


def _auroc(measured: Mapping[str, Any]) -> str:
    if measured["auroc"] is None:
        return "no scores"
    return f"{measured['auroc']:.3f} ({measured['low']:.3f} to {measured['high']:.3f})"
