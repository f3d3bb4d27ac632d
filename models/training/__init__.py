"""Maximum likelihood training: data and a family's configuration in, a model folder out."""

from models.training.loop import train
from models.training.options import TrainingError, TrainingOptions
from models.training.report import Epoch, TrainingReport

__all__ = ["Epoch", "TrainingError", "TrainingOptions", "TrainingReport", "train"]
