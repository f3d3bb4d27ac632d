"""The results as Markdown, made from the numbers alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.images.anomalies import ALPHA, STATISTICS, Detected
from benchmarks.images.decoding import Decoded
from benchmarks.images.likelihood import Likelihood
from benchmarks.images.predicted import PREDICTED
from benchmarks.images.served import OPERATIONS, ROWS, Footprint, Rate
from benchmarks.scoring.report import tabulate

_BESIDE = "\n\nOther programs ran beside: compare these rows with each other alone."


def sections_of(results: Mapping[str, Any]) -> dict[str, str]:
    """The tables by their titles, of the parts that were measured."""
    makers: dict[str, tuple[str, Callable[[Any], str]]] = {
        "Bits a pixel": ("likelihoods", likelihood_table),
        "Rows a second": ("rates", rates_table),
        "One row": ("rates", one_row_table),
        "Memory and start": ("footprints", footprint_table),
        "PixelCNN, one sample": ("decoded", decoding_table),
        "Digits and clothes: AUROC, share flagged": ("detected", detection_table),
        "Digits and clothes: nats": ("detected", nats_table),
    }
    return {
        title: make(results[key]["found"]) + (_BESIDE if results[key].get("beside") else "")
        for title, (key, make) in makers.items()
        if key in results
    }


def likelihood_table(found: Sequence[Likelihood]) -> str:
    """Bits/dim, and the difference to the model that all are paired with."""
    head = ["model", "parameters", "pixels redrawn", "bits/dim", "less Glow's", "standard errors"]
    rows = []
    for one in found:
        bits = "" if one["coarse_bits"] is None else f"{one['coarse_bits']} bits"
        paired = ["", ""]
        if one["difference_error"] > 0:
            difference, error = one["difference"], one["difference_error"]
            paired = [f"{difference:+.4f} ± {error:.4f}", f"{difference / error:+.0f}"]
        name = f"{one['model']}, given its label" if one["sees_label"] else one["model"]
        text = f"{one['bits']:.4f} ± {one['standard_error']:.4f}"
        rows.append([name, f"{one['parameters']:,}", bits, text, *paired])
    return tabulate(head, rows)


def rates_table(found: Sequence[Rate]) -> str:
    """Rows a second of each operation, and what was predicted."""
    head = ["model", *(f"{operation} ({ROWS[operation]} rows)" for operation in OPERATIONS)]
    rows = []
    for model in dict.fromkeys(one["model"] for one in found):
        cells = {one["operation"]: one for one in found if one["model"] == model}
        rows.append([model, *(_rate(cells[operation]) for operation in OPERATIONS)])
    return tabulate(head, rows)


def one_row_table(found: Sequence[Rate]) -> str:
    """Milliseconds of a request of one row, and passes of the network a row."""
    head = ["model", *OPERATIONS, "passes a sample", "passes a decoded row"]
    rows = []
    for model in dict.fromkeys(one["model"] for one in found):
        cells = {one["operation"]: one for one in found if one["model"] == model}
        times = (_figure(cells[operation]["one_row_ms"]) for operation in OPERATIONS)
        passes = (_passes(cells[operation]) for operation in ("sample", "decode"))
        rows.append([model, *times, *passes])
    return tabulate(head, rows)


def footprint_table(found: Sequence[Footprint]) -> str:
    """Each model served alone."""
    head = ["model", "MB on disk", "ready after s", "MiB when ready", "MiB after each operation"]
    rows = [
        [
            one["model"],
            f"{one['megabytes_on_disk']:.1f}",
            f"{one['seconds_to_ready']:.1f}",
            f"{one['ready_mib']:.0f}",
            f"{one['used_mib']:.0f}",
        ]
        for one in found
    ]
    return tabulate(head, rows)


def decoding_table(found: Decoded) -> str:
    """Row by row, and by whole passes until nothing changes."""
    few, many = min(found["passes"]), max(found["passes"])
    passes = f"{few} to {many} of {found['features']} whole ones"
    rows = [
        ["`jacobi`", passes, _figure(found["jacobi_ms"]), ""],
        ["`sequential`", "row by row", _figure(found["rows_ms"]), f"{found['speedup']:.1f}"],
    ]
    return tabulate(["decoding", "passes", "ms", "times as fast"], rows)


def detection_table(found: Sequence[Detected]) -> str:
    """AUROC, and the share flagged, of each statistic; bold where the other kind scores lower."""
    head = ["model", *(f"{name}" for name in STATISTICS), f"normal rows flagged at {ALPHA:g}"]
    rows = []
    for model in dict.fromkeys(one["model"] for one in found):
        cells = {one["statistic"]: one for one in found if one["model"] == model}
        shown = (_detected(cells[name]) for name in STATISTICS)
        alarms = " ".join(f"{cells[name]['false_alarms']:.3f}" for name in STATISTICS)
        rows.append([model, *shown, alarms])
    return tabulate(head, rows)


def nats_table(found: Sequence[Detected]) -> str:
    """Mean -log p of rows of either kind."""
    head = ["model", "normal rows", "rows of the other kind"]
    rows = {one["model"]: [f"{nats:,.0f}" for nats in one["nats"]] for one in found}
    return tabulate(head, [[model, *nats] for model, nats in rows.items()])


def _rate(one: Rate) -> str:
    wanted = PREDICTED.get(one["model"], {}).get(one["operation"])
    text = _figure(one["rows_a_second"])
    return text if wanted is None else f"{text} (predicted {_figure(wanted)})"


def _figure(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _passes(one: Rate) -> str:
    if one["passes"] is None:
        return ""
    low, high = one["passes"]
    return f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"


def _detected(one: Detected) -> str:
    text = f"{one['auroc']:.3f}"
    if one["auroc_interval"][1] < 0.5:
        text = f"**{text}**"
    return f"{text}, {one['flagged']:.2f}"
