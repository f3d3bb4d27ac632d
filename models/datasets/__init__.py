"""Small real data sets: named ones, tables, arrays and folders of images, behind one `load`."""

from models.datasets.dataset import Dataset, DatasetError, Split, split
from models.datasets.load import is_named, is_same_split, load, named_sets

__all__ = [
    "Dataset",
    "DatasetError",
    "Split",
    "is_named",
    "is_same_split",
    "load",
    "named_sets",
    "split",
]
