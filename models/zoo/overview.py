"""The zoo's README.md: every model with its figures, read from their training.json."""

from pathlib import Path

from models.training.pictures import SAMPLES_FILE
from models.training.report import REPORT_FILE, TrainingReport
from models.zoo.recipes import RECIPES
from models.zoo.seeds import seed_table

_INTRODUCTION = """\
# The zoo

Trained flows that ship with `pushforward` and are served by `make serve`. `make zoo` trains all of
them again, `python -m models.zoo NAME` one; the table of recipes is `recipes.py`. Each folder has a
model card with data, licence, recipe and pictures. The data themselves are not in the repository:
they are generated, or come with the packages that the cards name.

Test figures are on rows that were never trained on: nats are the mean of -log p a row, bits/dim
those of the pixels with uniform dequantization noise, the last column is the largest
|log p in float32 - log p in float64|.

| model | family | data | parameters | MB | nats | bits/dim | AUROC | float32, nats |
|---|---|---|---|---|---|---|---|---|
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
    text = f"{_INTRODUCTION}{rows}{_SEEDS}{seeds}{pictures}"
    (zoo / "README.md").write_text(text, encoding="utf-8")


def _row(folder: Path, report: TrainingReport) -> str:
    test = report.test
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
        f"{test.float32_max_error:.1e}",
    )
    return f"| {' | '.join(cells)} |\n"
