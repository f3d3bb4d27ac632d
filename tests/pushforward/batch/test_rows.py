"""What rows are conditioned on, read from columns."""

import numpy as np
import pytest

from pushforward.batch.layout import Wanted, find_layout
from pushforward.batch.rows import context_of
from pushforward.batch.status import TEXTS
from service.codec.missing import is_missing
from tests.service.fake_repository import card


def _read(name: str, values: np.ndarray, codes: dict[int, int]) -> np.ndarray:
    return values


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (np.array([0, 1, 5, 1]), {2: "invalid_input: unknown_label"}),
        (np.array([0.0, 1.0, np.nan, 1.0]), {}),
        (np.array(["cat", "dog", None, "1"], object), {}),
        (np.array(["cat", "dog", "cow", "1"], object), {2: "invalid_input: unknown_label"}),
    ],
)
def test_labels_by_number_and_by_name(labels: np.ndarray, told: dict[int, str]) -> None:
    facts = {"context_shape": (2,), "num_classes": 2, "class_names": ("cat", "dog")}
    codes: dict[int, int] = {}
    context = context_of([labels], card("pets", (3,), **facts), codes, _read)
    assert context is not None
    assert {row: TEXTS[code] for row, code in codes.items()} == told
    assert is_missing(context).all(1).tolist() == [False, False, True, False]
    assert context[[0, 1, 3]].tolist() == [[1, 0], [0, 1], [0, 1]]


def test_numbers_in_the_order_of_the_columns() -> None:
    columns = [np.array([1.0, 2.0]), np.array([3.0, 4.0])]
    context = context_of(columns, card("power", (3,), context_shape=(2,)), {}, _read)
    assert np.array_equal(context, [[1, 3], [2, 4]])
    assert context_of([], card("power", (3,)), {}, _read) is None


@pytest.mark.parametrize(
    ("found", "features"),
    [
        (("x_1", "x_0"), ("x_0", "x_1")),
        (("other", "x"), ("x",)),
        (("b", "a", "kind"), ("b", "a")),
    ],
)
def test_rows_without_names(found: tuple[str, ...], features: tuple[str, ...]) -> None:
    wanted = Wanted("x", (2,), None, context=("kind",) if "kind" in found else ())
    assert find_layout(found, wanted, "in.csv").features == features
