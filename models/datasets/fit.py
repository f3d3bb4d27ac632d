"""Whether data are such rows as a model takes; without torch."""

from dataclasses import replace

from models.checkpoints.facts import ModelFacts
from models.datasets.dataset import Dataset, DatasetError
from models.datasets.discrete import check_whole


def check_rows_fit(facts: ModelFacts, data: Dataset) -> None:
    """Compare the data's shape, pixel levels and discrete columns with the model's.

    Raises:
        DatasetError: naming the first difference.
    """
    if data.event_shape != facts.event_shape:
        raise DatasetError(
            f"{data.name}: rows have shape {data.event_shape}, the model takes {facts.event_shape};"
            " give it the data it was trained on"
        )
    levels = facts.num_levels
    if levels is not None and data.num_levels is not None and data.num_levels > levels:
        raise DatasetError(
            f"{data.name}: pixels have {data.num_levels} levels, the model takes {levels}"
        )
    check_whole(replace(data, discrete=facts.discrete))


def check_classes_fit(facts: ModelFacts, data: Dataset) -> None:
    """Compare the data's classes with those of a conditional model.

    Raises:
        DatasetError: the model takes other classes, or a context of numbers, which data have not.
    """
    if facts.context_shape is None:
        return
    classes = facts.num_classes
    if classes is None:
        raise DatasetError(
            f"{data.name}: the model takes a context of {facts.context_shape[0]} numbers a row, "
            "and data have labels alone: give it num_classes instead of context_features"
        )
    if data.labels is None or data.num_classes != classes:
        raise DatasetError(
            f"{data.name}: the model is conditional on {classes} classes, the data have "
            f"{data.num_classes}"
        )
