"""Small real data sets: named ones, tables, arrays and folders of images, behind one `load`."""

from models.datasets.dataset import Dataset, DatasetError, Split, split
from models.datasets.load import load, named_sets

__all__ = ["Dataset", "DatasetError", "Split", "load", "named_sets", "split"]
