"""The results as Markdown: what docs/scoring.md shows, made from the numbers alone."""

from collections.abc import Iterable, Sequence

from benchmarks.scoring.detection import Detected
from benchmarks.scoring.explanations import Explained
from benchmarks.scoring.measures import ALPHAS, AtRate
from benchmarks.scoring.promise import SPLITS, Promise

_CHOSEN = "flow, neg_log_prob"


def tabulate(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def promise_table(promises: Sequence[Promise]) -> str:
    """False alarms of random splits against their law."""
    head = ["table", "calibrated on", "n, m", "α", "k/(n+1)", "mean rate", "standard errors"]
    head += ["at or below the 95 % quantile", "χ² p", "holds"]
    rows = [
        [
            one["table"],
            one["calibrated_on"],
            f"{one['calibration_rows']:,}, {one['test_rows']:,}",
            f"{one['alpha']:g}",
            f"{one['expected_rate']:.5f}",
            f"{one['mean_rate']:.5f}",
            f"{one['standard_errors']:+.1f}",
            f"{one['below_quantile']:.1%}",
            "< 1e-6" if one["chi_square_p"] < 1e-6 else f"{one['chi_square_p']:.2g}",
            "yes" if one["holds"] else "**no**",
        ]
        for one in promises
    ]
    return f"{SPLITS} splits a line.\n\n{tabulate(head, rows)}"


def tables_table(found: Sequence[Detected]) -> str:
    """AUROC / AP of each detector on each table; the best AUROC bold."""
    head = ["detector", *dict.fromkeys(one["data"] for one in found)]
    rows = []
    for detector in dict.fromkeys(one["detector"] for one in found):
        cells = [_area(one, found) for one in found if one["detector"] == detector]
        rows.append([detector, *cells])
    return tabulate(head, rows)


def rates_table(found: Sequence[Detected]) -> str:
    """TPR (FPR) at each alpha of each detector on each table."""
    head = ["data", "detector", *(f"α = {alpha:g}" for alpha in ALPHAS)]
    rows = [
        [one["data"], one["detector"], *(_rate(at) for at in one["measures"]["at"])]
        for one in found
        if one["detector"] == _CHOSEN or not one["detector"].startswith("flow")
    ]
    return tabulate(head, rows)


def images_table(found: Sequence[Detected], data: str) -> str:
    """AUROC, and TPR at .01, of each statistic on each set of odd images."""
    of_data = [one for one in found if one["data"] == data]
    kinds = list(dict.fromkeys(one["anomalies"] for one in of_data))
    rows = []
    for detector in dict.fromkeys(one["detector"] for one in of_data):
        cells = {one["anomalies"]: one for one in of_data if one["detector"] == detector}
        rows.append([detector, *(_image(cells[kind]) if kind in cells else "" for kind in kinds)])
    return tabulate([f"flow of {data}, against", *kinds], rows)


def explanations_table(found: Sequence[Explained]) -> str:
    """How often the replaced feature is named first, and how often expected is nearer."""
    head = ["table", "method", "flagged rows", "named first", "expected nearer to the truth"]
    rows = [
        [
            one["table"],
            one["method"],
            f"{one['flagged']:,}",
            f"{one['named_first']:.1%}",
            f"{one['nearer']:.1%}",
        ]
        for one in found
    ]
    return tabulate(head, rows)


def _area(one: Detected, found: Sequence[Detected]) -> str:
    measures = one["measures"]
    rivals = (other["measures"]["auroc"] for other in found if other["data"] == one["data"])
    text = f"{measures['auroc']:.3f}"
    if measures["auroc"] >= max(rivals):
        text = f"**{text}**"
    return f"{text} / {measures['average_precision']:.3f}"


def _rate(at: AtRate) -> str:
    if at["tpr"] is None:
        return "too few rows"
    return f"{at['tpr']:.3f} ({at['fpr']:.4f})"


def _image(one: Detected) -> str:
    at = next(at for at in one["measures"]["at"] if at["alpha"] == 0.01)
    area = one["measures"]["auroc"]
    text = f"**{area:.3f}**" if one["measures"]["auroc_interval"][1] < 0.5 else f"{area:.3f}"
    return f"{text} / {at['tpr']:.3f}"
