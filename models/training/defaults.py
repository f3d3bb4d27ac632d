"""What a configuration takes from the data: shapes and preprocessing."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.datasets import Dataset, DatasetError
from models.families.preprocessing import pixel_steps
from models.registry import FAMILIES, Family
from models.transforms.preprocess import PIXEL_BITS

# Angles in float32 may lie beyond pi.
_SLACK = 1e-6


def fill_defaults(family: str, config: Mapping[str, Any], train: Dataset) -> dict[str, Any]:
    """Complete `config` from the training rows; what it already says is kept.

    `event_shape` becomes that of the data. `preprocessing` becomes: for tables, standardisation
    with the mean and standard deviation of each column but angles (`circular`), behind
    dequantization where it is marked as discrete; for pixels, dequantization and the scale of the
    family, see `Family.pixel_scale`. `levels`, where a family asks for it, becomes the number of
    the pixels', 2^bits behind a `reduce_bits` that was given.

    Raises:
        DatasetError: if the family is of images and these are rows of a table, or a column to be
            standardised is constant.
    """
    filled = dict(config)
    if family not in FAMILIES:  # `build` says so
        return filled
    entry = FAMILIES[family]
    fields = entry.config.model_fields
    if len(train.event_shape) == 1 and _is_of_images(entry):
        others = ", ".join(name for name, one in FAMILIES.items() if not _is_of_images(one))
        raise DatasetError(
            f"{train.name}: its rows are {train.event_shape[0]} numbers each, and {family} takes "
            f"images (C, H, W): choose a family for tables with --family: {others}; or give it "
            "images: a folder, or uint8 arrays of shape (N, H, W) or (N, C, H, W)"
        )
    if "event_shape" in fields:
        filled.setdefault("event_shape", list(train.event_shape))
    if "levels" in fields and train.num_levels is not None:
        bits = _reduced_bits(config.get("preprocessing", ()))
        filled.setdefault("levels", train.num_levels if bits is None else 2**bits)
    if "preprocessing" in fields and "preprocessing" not in filled:
        if train.num_levels is not None:
            filled["preprocessing"] = pixel_steps(train.num_levels, entry.pixel_scale)
        elif len(train.event_shape) == 1:
            noise = {"kind": "dequantise_columns", "columns": list(train.discrete)}
            angles = _angles(train, config.get("circular", ()))
            standardise = _standardise(train, angles)
            filled["preprocessing"] = [*([noise] if train.discrete else []), standardise]
    return filled


def _reduced_bits(preprocessing: Any) -> int | None:
    """To how many bits pixels are floored; what is no such step is for `build` to judge."""
    steps = preprocessing if isinstance(preprocessing, list | tuple) else ()
    found = (step["bits"] for step in steps if isinstance(step, Mapping) and "bits" in step)
    bits = next(found, None)
    return bits if isinstance(bits, int) and 1 <= bits <= PIXEL_BITS else None


def _is_of_images(entry: Family) -> bool:
    return len(entry.about.example.event_shape) == 3


def _angles(train: Dataset, circular: Any) -> list[int]:
    """Columns of angles, which stay as they are.

    Raises:
        DatasetError: if one holds other values than radians in [-pi, pi].
    """
    features = train.event_shape[0]
    angles = [index for index in circular if isinstance(index, int) and 0 <= index < features]
    for column in angles:
        low, high = float(train.x[:, column].min()), float(train.x[:, column].max())
        if max(-low, high) > math.pi * (1 + _SLACK):
            raise DatasetError(
                f"{train.name}: {train.column(column)} has values from {low:g} to {high:g}; "
                "circular features are angles in radians, in [-pi, pi]: turn the values into "
                "these, or say how in preprocessing"
            )
    return angles


def _standardise(train: Dataset, angles: Sequence[int] = ()) -> dict[str, Any]:
    mean, std = train.x.mean(axis=0), train.x.std(axis=0)
    # Of the values themselves: the deviation of a column of 0.1 is 1e-17, by rounding.
    is_constant = train.x.min(axis=0) == train.x.max(axis=0)
    if is_constant.any():
        column = int(np.argmax(is_constant))
        raise DatasetError(
            f"{train.name}: {train.column(column)} has one value only, {train.x[0, column]:g}; a "
            "density has no use for it: leave it out"
        )
    # What is standardised has a noise of U[0, 1) on it: mean 1/2, variance 1/12.
    noisy = list(train.discrete)
    mean[noisy] += 0.5
    std[noisy] = np.sqrt(std[noisy] ** 2 + 1 / 12)
    mean[list(angles)], std[list(angles)] = 0.0, 1.0
    return {"kind": "standardise", "mean": mean.tolist(), "std": std.tolist()}
