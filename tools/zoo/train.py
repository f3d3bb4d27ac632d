"""Make the zoo from its recipes: `python -m tools.zoo [NAME ...]`.

Every model is trained on one thread from the seed of its recipe, in a hidden folder; a finished one
takes the place of the old. An interrupted run goes on where it stopped.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from models.checkpoints import golden
from models.checkpoints.folder import CONFIG_FILE, read_golden
from models.checkpoints.folder import load as load_model
from models.datasets import Dataset, load, split
from models.onnx.export import export_folder
from models.scoring.card import HEADING as CALIBRATION_HEADING
from models.scoring.card import write_calibration_section
from models.scoring.storage import read_calibration
from models.training import TrainingOptions, TrainingReport, train
from models.training.card import CARD_FILE, write_card
from models.training.evaluate import measure_on
from models.training.progress import Listener, ProgressBar
from models.training.state import state_path
from tools.zoo.baselines import baseline_aurocs
from tools.zoo.calibrate import calibrate
from tools.zoo.overview import write_overview
from tools.zoo.recipes import RECIPES, Recipe

ZOO = Path(__file__).resolve().parents[2] / "models" / "zoo"
_BUILD, _SERVING = ".building", "serving.toml"
_ANOMALIES = "## Anomaly detection"


def make(name: str, recipe: Recipe, zoo: Path, listener: Listener | None = None) -> TrainingReport:
    """Train one model and put it in the zoo as the folder `name`."""
    options = TrainingOptions.parse(recipe.options)
    build = zoo / _BUILD / name
    if build.exists():
        shutil.rmtree(build)
    build.parent.mkdir(parents=True, exist_ok=True)
    data = load(recipe.data)
    resume = state_path(build).exists()
    report = train(
        data, recipe.family, recipe.config, build,
        options=options, resume=resume, listener=listener,
    )  # fmt: skip
    _write_card(build, name, recipe, report, _baselines(data, options, report))
    export_folder(build).write(build)
    if recipe.serving:
        (build / _SERVING).write_text(recipe.serving, encoding="utf-8")
    calibrate(build, recipe)
    if (zoo / name).exists():
        shutil.rmtree(zoo / name)
    build.rename(zoo / name)
    return report


def restate(name: str, recipe: Recipe, zoo: Path) -> TrainingReport:
    """Measure a model that is there again, and write what is found into its files."""
    folder = zoo / name
    report, flow = TrainingReport.read(folder), load_model(folder)
    data, facts = load(recipe.data), report.data
    test = split(
        data, validation=facts.validation_fraction, test=facts.test_fraction, seed=facts.seed
    ).test
    record = read_golden(folder, flow)
    rows = golden.Inputs(record["x"], record.get("context"))
    report = replace(
        report,
        # Reports of before lack the options that came later.
        options=TrainingOptions.parse(report.options).model_dump(mode="json"),
        data=replace(facts, sha256=data.digest(), recipe=data.recipe),
        accuracy=measure_on(flow, test, rows),
    )
    path = folder / CONFIG_FILE
    config = json.loads(path.read_text(encoding="utf-8"))
    config["accuracy"] = report.accuracy
    config["provenance"]["data_sha256"] = report.data.sha256
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    report.write(folder)
    _, heading, table = (folder / CARD_FILE).read_text(encoding="utf-8").partition(_ANOMALIES)
    table = table.partition(CALIBRATION_HEADING)[0]
    _write_card(folder, name, recipe, report, [f"{heading}{table.rstrip()}"] if heading else [])
    calibration = read_calibration(folder)
    if calibration is not None:
        write_calibration_section(folder, calibration)
    return report


def _write_card(
    folder: Path, name: str, recipe: Recipe, report: TrainingReport, more: Sequence[str]
) -> None:
    write_card(
        folder,
        report,
        summary=recipe.summary,
        command=f"python -m tools.zoo {name}",
        notes=(*recipe.notes, *more),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the models named on the command line, or all, then write the zoo's README.md."""
    parser = argparse.ArgumentParser(prog="python -m tools.zoo", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECIPES)}")
    parser.add_argument("--out", type=Path, default=ZOO, help="folder of the zoo")
    parser.add_argument(
        "--restate",
        action="store_true",
        help="train nothing: measure the accuracy of the weights again and write it down",
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="train nothing: calibrate the models that are there again",
    )
    parser.add_argument(
        "--overview", action="store_true", help="train nothing, only write README.md"
    )
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.names if name not in RECIPES]
    if unknown:
        parser.error(f"no recipe {unknown[0]!r}; the recipes are {', '.join(RECIPES)}")
    torch.set_num_threads(1)
    for name in () if chosen.overview else chosen.names or RECIPES:
        if chosen.restate:
            restate(name, RECIPES[name], chosen.out)
        elif chosen.calibrate:
            calibrate(chosen.out / name, RECIPES[name])
        else:
            make(name, RECIPES[name], chosen.out, ProgressBar())
    write_overview(chosen.out)


def _baselines(data: Dataset, options: TrainingOptions, report: TrainingReport) -> list[str]:
    if report.test.auroc is None:
        return []
    parts = split(
        data, validation=options.validation_fraction, test=options.test_fraction, seed=options.seed
    )
    rows = {f"{report.family}, this model": report.test.auroc, **baseline_aurocs(parts)}
    table = "\n".join(f"| {name} | {auroc:.3f} |" for name, auroc in rows.items())
    return [
        f"{_ANOMALIES}\n\nAUROC on the test rows, higher is better; the other detectors saw "
        f"the same training rows (scikit-learn, default settings).\n\n| detector | AUROC |\n"
        f"|---|---|\n{table}"
    ]
