"""What a training run says about itself: kept as training.json beside the model."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from models.checkpoints.files import write_file
from models.training.evaluate import Evaluation

REPORT_FILE = "training.json"


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training rows; likelihoods are means of -log_prob in nats a row.

    Attributes:
        train_nats: mean over the steps of the epoch, weights moving.
        validation_nats: at its end, of the weights that would be stored.
        learning_rate: at its last step.
        skipped_steps: steps left out because loss or gradient were not finite.
    """

    train_nats: float
    validation_nats: float
    learning_rate: float
    skipped_steps: int


@dataclass(frozen=True, slots=True)
class DataFacts:
    """Which rows a model was trained on; enough to draw the same split again.

    sha256 is of `recipe` where the data are generated, else of their values. columns are those of
    `models.datasets.schema`; class_names those of a class-conditional flow, by index. discrete
    names the columns of whole numbers that were trained on with uniform noise; warnings are what
    was said of the data before the first epoch.
    """

    name: str
    spec: str
    source: str
    licence: str
    sha256: str
    train_rows: int
    validation_rows: int
    test_rows: int
    anomalies: int
    validation_fraction: float
    test_fraction: float
    seed: int
    recipe: str = ""
    columns: tuple[dict[str, Any], ...] = ()
    class_names: tuple[str, ...] = ()
    discrete: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """A finished run.

    Attributes:
        family: name of the architecture.
        arguments: the part of its configuration that was given.
        config: the whole of it, with what came from the data and the defaults.
        options: what was chosen, and what defaulted.
        data: which rows.
        parameters: number of trained numbers.
        best_epoch: whose weights are stored, counted from 1.
        stopped_early: whether patience ended the run.
        seconds: wall clock, over all resumed parts.
        history: one entry an epoch.
        test: figures on the test rows.
        accuracy: how far log_prob is from exact, see `models.checkpoints.accuracy`; empty in older
            reports.
        solver_note: what was found of a continuous flow's tolerance; "" where all is well.
    """

    family: str
    arguments: dict[str, Any]
    config: dict[str, Any]
    options: dict[str, Any]
    data: DataFacts
    parameters: int
    best_epoch: int
    stopped_early: bool
    seconds: float
    history: tuple[Epoch, ...]
    test: Evaluation
    accuracy: dict[str, float] = field(default_factory=dict)
    solver_note: str = ""

    def write(self, folder: Path) -> None:
        """Write training.json."""
        text = json.dumps(asdict(self), indent=1)
        write_file(folder / REPORT_FILE, f"{text}\n".encode())

    @classmethod
    def read(cls, folder: Path) -> "TrainingReport":
        """Read training.json back."""
        raw = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
        names = ("columns", "class_names", "discrete", "warnings")
        lists = {key: tuple(raw["data"].get(key, ())) for key in names}
        return cls(
            **{
                **raw,
                "data": DataFacts(**{**raw["data"], **lists}),
                "history": tuple(Epoch(**epoch) for epoch in raw["history"]),
                "test": Evaluation(**raw["test"]),
            }
        )
