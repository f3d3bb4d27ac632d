"""The calibrations of the zoo: on rows that no model was trained or validated on."""

from pathlib import Path

from models.datasets import Dataset, load, split
from models.scoring.calibration import Calibration
from models.scoring.rows import check_unseen
from models.training.report import TrainingReport
from pushforward.cli.calibration import CalibrationPlan, calibrate_model, make_inputs, store
from pushforward.cli.evidence import open_model
from tools.zoo.recipes import Recipe


def calibrate(folder: Path, recipe: Recipe) -> Calibration:
    """Calibrate a model of the zoo by its certified graphs, and write it into its folder.

    A model of generated data is calibrated on rows that are drawn anew from the same distribution,
    the others on the test rows of their split. What those mark as anomalies is to be found.

    Raises:
        ValueError: a row was trained on, or cannot be scored.
    """
    model = open_model(folder)
    rows, name = held_out_rows(folder, recipe)
    checked = check_unseen(rows, folder, model.facts.provenance)
    plan = CalibrationPlan(
        name,
        statistic=recipe.statistic,
        checks={
            "training_rows": checked.what,
            "is_checked": checked.is_known,
            "rows_given": len(rows),
            "rows": len(rows),
        },
    )
    made = calibrate_model(model, make_inputs(model.facts, rows), plan)
    store(folder, made)
    return made


def held_out_rows(folder: Path, recipe: Recipe) -> tuple[Dataset, str]:
    """The rows that a model is calibrated on, and what they are called."""
    if recipe.calibration:
        drawn = load(recipe.calibration)
        return drawn, drawn.recipe
    data, facts = load(recipe.data), TrainingReport.read(folder).data
    parts = split(
        data, validation=facts.validation_fraction, test=facts.test_fraction, seed=facts.seed
    )
    return parts.test, f"{data.name}, test rows"
