"""Nested lists and arrays to checked rows; contexts; small fields."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.codec.context import read_context
from service.codec.parameters import read_integer, read_number, read_query
from service.codec.tensors import cast, is_finite, non_finite_rows, read_rows
from service.errors import ServiceError
from service.operations.log_prob import log_density
from tests.service.fake_repository import log_normal

F32 = np.dtype(np.float32)
F64 = np.dtype(np.float64)
HUGE = float(np.finfo(np.float32).max)


def rows(value: Any, shape: tuple[int, ...] = (3,), dtype: np.dtype[Any] = F32) -> Any:
    return read_rows(value, "x", shape, dtype=dtype, max_rows=100)


@given(
    arrays.arrays(
        np.float64,
        arrays.array_shapes(min_dims=1, max_dims=4, max_side=4),
        elements=st.floats(-HUGE, HUGE),
    ),
    st.sampled_from([F32, F64]),
)
def test_nested_lists_become_the_array_they_spell(values: Any, dtype: np.dtype[Any]) -> None:
    read = rows(values.tolist(), values.shape[1:], dtype)
    np.testing.assert_array_equal(read, values.astype(dtype))
    assert read.dtype == dtype
    assert read.flags.c_contiguous
    assert read.flags.writeable


@pytest.mark.parametrize("kind", ["f2", ">f4", "<f8", "i1", "u1", ">i8", "u8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_any_real_dtype_and_order_are_converted(kind: str, order: Any) -> None:
    values = np.array(np.arange(6).reshape(2, 3), kind, order=order)
    values.flags.writeable = False
    read = rows(values)
    np.testing.assert_array_equal(read, [[0, 1, 2], [3, 4, 5]])
    assert read.dtype.str == "<f4"
    assert read.flags.c_contiguous
    assert read.flags.writeable


def test_long_batches_take_the_other_way_to_the_same_result() -> None:
    values = np.random.default_rng(0).standard_normal((100, 200))
    np.testing.assert_array_equal(rows(values.tolist(), (200,)), values.astype(F32))
    values[37, 5] = np.inf
    with pytest.raises(ServiceError, match="row 37 holds inf"):
        rows(values, (200,))


WRONG_ROWS: dict[str, tuple[Any, str, str]] = {
    "one event": ([1, 2, 3], "shape_mismatch", r"expected \(\*, 3\), got \(3,\); put one row"),
    "width": ([[1, 2]], "shape_mismatch", r"expected \(\*, 3\), got \(1, 2\)"),
    "rank": ([[[1, 2, 3]]], "shape_mismatch", r"got \(1, 1, 3\)"),
    "scalar": (1.5, "shape_mismatch", r"got \(\)"),
    "no rows": ([], "shape_mismatch", "at least one row"),
    "empty rows": ([[], []], "shape_mismatch", r"got \(2, 0\)"),
    "ragged": ([[1, 2, 3], [1, 2, 3], [1, 2]], "shape_mismatch", r"row 2 has shape \(2,\)"),
    "ragged inside": ([[1, 2, 3], [1, [2], 3]], "shape_mismatch", "row 1 is ragged"),
    "number among rows": ([[1, 2, 3], 4], "shape_mismatch", r"row 1 has shape \(\)"),
    "string": ("abc", "bad_dtype", "expected numbers, got a string"),
    "object": ({}, "bad_dtype", "got an object"),
    "object inside": ([[1, 2, {}]], "bad_dtype", "row 0 holds an object"),
    "boolean": (True, "bad_dtype", "got true or false"),
    "nan": ([[0, 0, 0], [0, float("nan"), 0]], "non_finite", "row 1 holds nan"),
    "infinity": ([[float("inf"), 0, 0]], "non_finite", "row 0 holds inf"),
    "too large for float32": ([[0, 0, 0], [0, 0, -1e39]], "non_finite", r"row 1 holds -1e\+39"),
    "hardly too large for float32": ([[3.5e38, 0, 0]], "non_finite", r"holds 3\.5e\+38"),
    "too large for any float": ([[10**400, 0, 0]], "non_finite", "no float can hold"),
    "too many": ([[1, 2, 3]] * 101, "too_large", "at most 100 rows a request, got 101"),
    "too many in an array": (np.zeros((101, 3)), "too_large", "got 101"),
    "complex array": (np.zeros((1, 3), complex), "bad_dtype", "complex128"),
    "boolean array": (np.zeros((1, 3), bool), "bad_dtype", "bool"),
    "array of another shape": (np.zeros((2, 4)), "shape_mismatch", r"got \(2, 4\)"),
    "array without rows": (np.zeros((0, 3)), "shape_mismatch", "at least one row"),
}


@pytest.mark.parametrize(("value", "code", "message"), WRONG_ROWS.values(), ids=WRONG_ROWS)
def test_wrong_rows_are_refused_with_a_reason(value: Any, code: str, message: str) -> None:
    with pytest.raises(ServiceError, match=message) as caught:
        rows(value)
    assert caught.value.code == code


def test_the_offending_rows_are_pointed_at() -> None:
    values = np.zeros((9, 3))
    values[[2, 5]] = np.nan
    with pytest.raises(ServiceError) as caught:
        rows(values)
    assert [fault.pointer for fault in caught.value.faults] == ["/x/2", "/x/5"]


def test_the_largest_float32_is_taken() -> None:
    assert rows([[HUGE, -HUGE, 1e-45]])[0].tolist() == [HUGE, -HUGE, float(np.float32(1e-45))]


@given(arrays.arrays(np.float32, (5, 4), elements=st.floats(width=32)))
def test_non_finite_rows_are_found(values: Any) -> None:
    expected = [row for row in range(5) if not np.isfinite(values[row]).all()]
    assert non_finite_rows(values) == expected
    assert is_finite(values) is (not expected)


def test_cast_makes_infinities_of_what_does_not_fit_and_warns_of_nothing() -> None:
    assert cast(np.array([1e300, -1e300, np.nan, 1.0]), F32).tolist()[:2] == [np.inf, -np.inf]


# Contexts


def context(value: Any, shape: tuple[int, ...] | None, classes: int | None, count: int) -> Any:
    return read_context(value, shape, classes, dtype=F32, rows=count)


RIGHT_CONTEXTS: dict[str, tuple[Any, int | None, Any]] = {
    "one label for all": (1, 3, [[0, 1, 0], [0, 1, 0]]),
    "a list of one label": ([2], 3, [[0, 0, 1], [0, 0, 1]]),
    "a label a row": ([2, 0], 3, [[0, 0, 1], [1, 0, 0]]),
    "labels in an array": (np.array([2, 0], np.uint8), 3, [[0, 0, 1], [1, 0, 0]]),
    "a label as a 0-d array": (np.array(1), 3, [[0, 1, 0], [0, 1, 0]]),
    "soft labels": ([[0.5, 0.5, 0]], 3, [[0.5, 0.5, 0], [0.5, 0.5, 0]]),
    "a row a row": ([[1, 2, 3], [4, 5, 6]], None, [[1, 2, 3], [4, 5, 6]]),
    "one row for all": ([[1, 2, 3]], None, [[1, 2, 3], [1, 2, 3]]),
    "one row without its axis": ([1, 2, 3], None, [[1, 2, 3], [1, 2, 3]]),
    "whole numbers without classes are no labels": ([1, 0, 1], None, [[1, 0, 1], [1, 0, 1]]),
}


@pytest.mark.parametrize(
    ("value", "classes", "expected"), RIGHT_CONTEXTS.values(), ids=RIGHT_CONTEXTS
)
def test_contexts(value: Any, classes: int | None, expected: Any) -> None:
    read = context(value, (3,), classes, 2)
    np.testing.assert_array_equal(read, expected)
    assert read.dtype == F32
    assert read.flags.c_contiguous


WRONG_CONTEXTS: dict[str, tuple[Any, tuple[int, ...] | None, int | None, str]] = {
    "not wanted": ([[1]], None, None, "invalid_parameter"),
    "missing": (None, (3,), None, "missing_field"),
    "missing labels": (None, (3,), 3, "missing_field"),
    "label too large": ([0, 3], (3,), 3, "out_of_range"),
    "negative label": (-1, (3,), 3, "out_of_range"),
    "float label": (1.0, (3,), 3, "bad_dtype"),
    "float labels in an array": (np.array([1.0, 0.0]), (3,), 3, "bad_dtype"),
    "soft labels without their axis": ([0.5, 0.5, 0.0], (3,), 3, "bad_dtype"),
    "true for a label": (True, (3,), 3, "bad_dtype"),
    "text": ("cat", (3,), 3, "bad_dtype"),
    "three rows for two": ([[1, 2, 3]] * 3, (3,), None, "shape_mismatch"),
    "three labels for two": ([0, 1, 2], (3,), 3, "shape_mismatch"),
    "no labels": ([], (3,), 3, "shape_mismatch"),
    "width": ([[1, 2]], (3,), None, "shape_mismatch"),
    "one number": (1.0, (3,), None, "shape_mismatch"),
    "not finite": ([[1, 2, float("nan")]], (3,), None, "non_finite"),
}


@pytest.mark.parametrize(
    ("value", "shape", "classes", "code"), WRONG_CONTEXTS.values(), ids=WRONG_CONTEXTS
)
def test_wrong_contexts(
    value: Any, shape: tuple[int, ...] | None, classes: int | None, code: str
) -> None:
    with pytest.raises(ServiceError, match="context") as caught:
        context(value, shape, classes, 2)
    assert caught.value.code == code


# Small fields


@pytest.mark.parametrize("value", [True, "10", 1.5, 10.0, None, [1], {}])
def test_what_is_no_whole_number(value: Any) -> None:
    with pytest.raises(ServiceError, match="n: expected a whole number") as caught:
        read_integer(value, "n", 0, 99)
    assert caught.value.code == "invalid_parameter"


@pytest.mark.parametrize("value", [-1, 100, 1e30, -(2.0**64)])
def test_whole_numbers_out_of_range(value: Any) -> None:
    with pytest.raises(ServiceError, match=r"n: expected 0 \.\. 99") as caught:
        read_integer(value, "n", 0, 99)
    assert caught.value.code == "out_of_range"


@pytest.mark.parametrize("value", [-0.1, 1e308, float("nan"), float("inf")])
def test_numbers_out_of_range(value: Any) -> None:
    with pytest.raises(ServiceError, match="temperature") as caught:
        read_number(value, "temperature", 0, 1000)
    assert caught.value.code == "out_of_range"


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        (b"", {}),
        (b"model=7&num_samples=3", {"model": "7", "num_samples": 3}),
        (b"temperature=1e-1&seed=18446744073709551615", {"temperature": 0.1, "seed": 2**64 - 1}),
        (b"context=%5B1%2C2%5D&model=caf%C3%A9", {"context": [1, 2], "model": "café"}),
    ],
)
def test_query_strings(query: bytes, fields: dict[str, Any]) -> None:
    names = ("model", "num_samples", "seed", "temperature", "context")
    assert read_query(query, names) == fields


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (b"seed=1&seed=2", "given twice"),
        (b"seed=x", "expected a number, true or false in the query string, got 'x'"),
        (b"seed=", "expected a number"),
        (b"seed", "query string"),
        (b"sed=1", "did you mean 'seed'"),
        (b"model=%ff", "query string"),
        (b"&".join(b"seed=1" for _ in range(1000)), "at most 32"),
    ],
)
def test_wrong_query_strings(query: bytes, message: str) -> None:
    with pytest.raises(ServiceError, match=message):
        read_query(query, ("model", "seed"))


# The density


@given(
    arrays.arrays(np.float32, (4, 6), elements=st.floats(-50, 50, width=32)),
    arrays.arrays(np.float32, 4, elements=st.floats(-1e4, 1e4, width=32)),
)
def test_log_density(z: Any, log_det: Any) -> None:
    both = log_density(z, log_det)
    np.testing.assert_allclose(both, log_normal(z) + log_det, rtol=1e-6, atol=1e-6)
    assert both.dtype == np.float32
    alone = np.concatenate([log_density(z[[i]], log_det[[i]]) for i in range(4)])
    assert alone.tobytes() == both.tobytes(), "a row's sum depends on its neighbours"


def test_log_density_of_huge_latents_is_minus_infinity() -> None:
    assert log_density(np.full((1, 2), 1e30, np.float32), np.zeros(1, np.float32))[0] == -np.inf


# ------------------------------------------------------------------ pixels


def pixels(value: Any, num_levels: int | None = 17) -> Any:
    return read_rows(value, "x", (1, 2, 2), dtype=F32, max_rows=9, num_levels=num_levels)


def test_whole_numbers_are_pixels_of_the_models_levels() -> None:
    good = np.array([[[[0, 1], [2, 16]]]] * 3, np.uint8)
    np.testing.assert_array_equal(pixels(good), good)
    bad = good.astype(np.int16)
    bad[1, 0, 1, 1], bad[2, 0, 0, 0] = 17, -1
    with pytest.raises(ServiceError, match=r"pixels 0 \.\. 16, row 1 holds 0 \.\. 17") as caught:
        pixels(bad)
    assert (caught.value.status, caught.value.code) == (422, "out_of_range")
    with pytest.raises(ServiceError, match=r"row 1 holds -1 \.\. 16"):
        pixels(bad[[0, 2]])
    np.testing.assert_array_equal(pixels(bad, None), bad)


def test_fractions_are_points_of_the_density_wherever_they_lie() -> None:
    samples = np.array([[[[-0.3, 1.5], [2, 16.9]]]])
    for value in (samples, samples.tolist()):
        np.testing.assert_array_equal(pixels(value), samples.astype(F32))


def test_channels_that_come_last_are_named() -> None:
    with pytest.raises(ServiceError, match=r"got \(2, 8, 6, 3\); channels come first"):
        read_rows(np.ones((2, 8, 6, 3)), "x", (3, 8, 6), dtype=F32, max_rows=9)
