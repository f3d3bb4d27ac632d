"""Maximum likelihood training: data and a family's configuration in, a model folder out."""

from models.training.interrupt import TrainingInterrupted
from models.training.loop import train
from models.training.options import TrainingError, TrainingKept, TrainingOptions
from models.training.report import Epoch, TrainingReport

__all__ = [
    "Epoch",
    "TrainingError",
    "TrainingInterrupted",
    "TrainingKept",
    "TrainingOptions",
    "TrainingReport",
    "train",
]
