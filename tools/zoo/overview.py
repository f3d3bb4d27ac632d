"""The zoo's README.md: every model with its figures, read from their training.json."""

from pathlib import Path

from models.scoring.card import threshold_rows
from models.scoring.storage import read_calibration
from models.training.pictures import SAMPLES_FILE
from models.training.report import REPORT_FILE, TrainingReport
from tools.zoo.recipes import RECIPES
from tools.zoo.seeds import seed_table

_INTRODUCTION = """\
# The zoo

Trained flows that ship with `pushforward` and are served by `make serve`. `make zoo` trains all of
them again, `python -m tools.zoo NAME` one; `tools/zoo/recipes.py` is the table of recipes. Each
folder has a model card with data, licence, recipe and pictures. The data themselves are not in the
repository: they are generated, or come with the packages that the cards name.

Test figures are on rows that were never trained on: nats are the mean of -log p a row, bits/dim
those of the pixels with uniform dequantization noise. The last columns are the largest error of
log p in float32, relative to max(1, abs(log p)) and in nats, and of how many rows it is the
largest: all normal test rows, samples and golden rows (odd rows: see the card).

| model | family | data | parameters | MB | nats | bits/dim | AUROC | error | in nats | of rows |
|---|---|---|---|---|---|---|---|---|---|---|
"""

_CALIBRATIONS = """
## Calibrations

Every model is calibrated on rows that it was neither trained nor validated on: its test rows, or,
where its data are generated, rows drawn anew with another seed. `python -m tools.zoo --calibrate`
does so again. Beside the threshold for a false-alarm rate alpha stands the bound below which the
true rate stays for 95 % of calibration sets; what the probes of the statistic's direction found
stands on the cards.

| model | statistic | rows | alpha 0.05 | alpha 0.01 | alpha 0.001 |
|---|---|---|---|---|---|
"""

_SEEDS = """
## Lecture examples, reproduced

Measured by `seeds.py` on the models above, in float64.

| example | figure |
|---|---|
"""


def write_overview(zoo: Path) -> None:
    """Write README.md for the models that are there, in the order of the recipes."""
    reports = {
        name: TrainingReport.read(zoo / name)
        for name in RECIPES
        if (zoo / name / REPORT_FILE).is_file()
    }
    rows = "".join(_row(zoo / name, report) for name, report in reports.items())
    pictures = "".join(
        f"\n## {name}\n\n{RECIPES[name].summary}\n\n![samples of {name}]({name}/{SAMPLES_FILE})\n"
        for name in reports
    )
    seeds = "".join(f"| {what} | {figure} |\n" for what, figure in seed_table(zoo))
    calibrations = "".join(_calibration(zoo / name) for name in reports)
    text = f"{_INTRODUCTION}{rows}{_CALIBRATIONS}{calibrations}{_SEEDS}{seeds}{pictures}"
    (zoo / "README.md").write_text(text, encoding="utf-8")


def _row(folder: Path, report: TrainingReport) -> str:
    test, accuracy = report.test, report.accuracy
    size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
    cells = (
        f"[{folder.name}]({folder.name}/README.md)",
        report.family,
        report.data.name,
        f"{report.parameters:,}",
        f"{size:.2f}",
        f"{test.nats:.3f} ± {test.nats_standard_error:.3f}",
        "" if test.bits_per_dim is None else f"{test.bits_per_dim:.3f}",
        "" if test.auroc is None else f"{test.auroc:.3f}",
        f"{accuracy['log_prob_max_relative_error']:.1e}",
        f"{accuracy['log_prob_max_abs_error']:.1e}",
        f"{sum(accuracy[f'{kind}_rows'] for kind in ('held_out', 'sample', 'golden')):,.0f}",
    )
    return f"| {' | '.join(cells)} |\n"


def _calibration(folder: Path) -> str:
    """A row of the table of calibrations; nothing where there is none."""
    calibration = read_calibration(folder)
    if calibration is None:
        return ""
    facts = calibration.facts()
    stated = (
        f"{threshold} (bound {bound})" if bound else threshold
        for _, threshold, bound in threshold_rows(facts)
    )
    name = f"[{folder.name}]({folder.name}/README.md)"
    cells = (name, facts["statistic"], f"{facts['rows']:,} ({facts['dataset']})", *stated)
    return f"| {' | '.join(cells)} |\n"
