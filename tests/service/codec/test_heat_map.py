"""Heat maps: white at 0, the same distance either side, and what they say of themselves."""

import io

import numpy as np
from PIL import Image

from service.codec.heat_map import full_colour, write_heat_map

RED, BLUE, WHITE = [103, 0, 31], [5, 48, 97], [255, 255, 255]


def pixels_of(body: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(body)))


def test_zero_is_white_and_the_ends_are_red_and_blue() -> None:
    gradient = np.array([[[[0.0, 2.0], [-2.0, 50.0]]]])
    shown = pixels_of(write_heat_map(gradient, 2.0))
    assert shown.tolist() == [[WHITE, RED], [BLUE, RED]]


def test_colours_are_distinct_and_get_darker_on_both_sides() -> None:
    gradient = np.linspace(-1, 1, 21)[None, None, None]
    shown = pixels_of(write_heat_map(gradient, 1.0)).astype(int)[0]
    brightness = shown @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(brightness[:11]) > 0).all()
    assert (np.diff(brightness[10:]) < 0).all()
    # Blue against red: told apart by people who do not see red and green as two.
    assert (shown[:10, 2] > shown[:10, 0]).all()
    assert (shown[11:, 0] > shown[11:, 2]).all()


def test_channels_are_added() -> None:
    gradient = np.array([[[[1.0]], [[2.0]], [[-3.0]]], [[[1.0]], [[2.0]], [[0.0]]]])
    shown = pixels_of(write_heat_map(gradient, 3.0))
    assert shown.tolist() == [[WHITE, RED]]


def test_rows_lie_in_a_grid_and_pixels_grow() -> None:
    shown = pixels_of(write_heat_map(np.zeros((3, 1, 2, 2)), 1.0, 2))
    assert shown.shape == (8, 8, 3)
    assert (shown[4:, 4:] == 0).all()
    assert (shown[:4] == 255).all()


def test_a_row_without_numbers_is_a_checkerboard() -> None:
    gradient = np.array([[[[np.nan, 1.0], [1.0, 1.0]]]])
    shown = pixels_of(write_heat_map(gradient, 1.0))
    assert shown[:, :, 0].tolist() == [[0, 255], [255, 0]]


def test_full_colour_is_what_99_percent_of_the_pixels_have_less_than() -> None:
    gradient = np.concatenate([np.linspace(-1, 1, 10_000), [1e6] * 50]).reshape(-1, 1, 1, 1)
    assert 0.98 < full_colour(gradient) < 1.01
    gradient[0] = np.nan
    assert 0.98 < full_colour(gradient) < 1.01


def test_pictures_without_any_gradient_are_white() -> None:
    nothing = np.zeros((1, 1, 2, 2))
    assert full_colour(nothing) == 0
    assert (pixels_of(write_heat_map(nothing, 0.0)) == 255).all()
    assert full_colour(np.full((1, 1, 2, 2), np.inf)) == 0


def test_the_picture_says_what_its_colours_mean() -> None:
    text = Image.open(io.BytesIO(write_heat_map(np.ones((1, 1, 1, 1)), 1.25))).text
    assert text["heat-map-scale"] == "1.25"
    assert "red where a brighter pixel is likelier" in text["Description"]
