"""What is raised where a row cannot be scored, or a promise not be made."""

from models.checkpoints.errors import CheckpointError


class CalibrationError(CheckpointError):
    """A calibration cannot be made, read, or used with the model beside it."""


class StatisticError(ValueError):
    """A statistic is not known, or cannot score the rows of a model."""


class TooFewRows(ValueError):
    """Calibration rows are too few for the false-alarm rate that was asked for.

    rows: there are. needed: for the rate. least_alpha: that can be asked of those that there are.
    """

    def __init__(self, rows: int, alpha: float, needed: int) -> None:
        self.rows, self.needed, self.least_alpha = rows, needed, 1 / (rows + 1)
        super().__init__(
            f"alpha {alpha:g} needs {needed} calibration rows, got {rows}; with them the least "
            f"alpha is {self.least_alpha:.6g}"
        )
