"""Pictures in and out."""

import io
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from service.codec.image import grid, is_picture, read_image, write_png
from service.codec.media import JPEG, JSON, NPY, PNG, negotiate, read_content_type
from service.errors import ServiceError

GREY = (1, 4, 5)
COLOUR = (3, 4, 5)


def encoded(pixels: Any, mode: str | None = None, kind: str = "PNG", **options: Any) -> bytes:
    image = Image.fromarray(np.asarray(pixels))
    buffer = io.BytesIO()
    (image if mode is None else image.convert(mode)).save(buffer, kind, **options)
    return buffer.getvalue()


def png_of(width: int, height: int, depth: int = 8, colour: int = 0, data: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


GREY_PIXELS = np.arange(20, dtype=np.uint8).reshape(4, 5) * 12
COLOUR_PIXELS = np.random.default_rng(1).integers(0, 256, (4, 5, 3), np.uint8)


@given(arrays.arrays(np.uint8, (3, 4, 5)))
def test_colour_survives_there_and_back(pixels: Any) -> None:
    read = read_image(write_png(pixels[None], 256), PNG, COLOUR, 256)
    np.testing.assert_array_equal(read, pixels[None])


@given(arrays.arrays(np.uint8, (1, 4, 5), elements=st.integers(0, 16)))
def test_few_levels_survive_there_and_back(pixels: Any) -> None:
    read = read_image(write_png(pixels[None], 17), PNG, GREY, 17)
    np.testing.assert_array_equal(read, pixels[None])


@pytest.mark.parametrize(
    ("body", "media"),
    [
        (encoded(GREY_PIXELS), PNG),
        (encoded(GREY_PIXELS, "RGB"), PNG),
        (encoded(GREY_PIXELS, "P"), PNG),
        (encoded(GREY_PIXELS, "L", "JPEG", quality=100, subsampling=0), JPEG),
        (encoded(GREY_PIXELS, "RGB", "JPEG", quality=100, subsampling=0), JPEG),
    ],
    ids=["grey", "rgb", "palette", "jpeg grey", "jpeg rgb"],
)
def test_grey_and_colour_pictures_are_taken(body: bytes, media: str) -> None:
    # JPEG loses a little even at its best quality.
    tolerance = 0 if media == PNG else 3
    read = read_image(body, media, GREY, 256)
    assert read.shape == (1, *GREY)
    np.testing.assert_allclose(read[0, 0].astype(int), GREY_PIXELS, atol=tolerance)
    grey_as_colour = read_image(body, media, COLOUR, 256).astype(int)
    np.testing.assert_allclose(grey_as_colour[0], [GREY_PIXELS] * 3, atol=tolerance)


def test_black_and_white_pictures_are_taken() -> None:
    bits = GREY_PIXELS > 100
    read = read_image(encoded(bits), PNG, GREY, 256)
    np.testing.assert_array_equal(read[0, 0], np.where(bits, 255, 0))


def animated() -> bytes:
    first, second = (Image.fromarray(GREY_PIXELS + n) for n in (0, 1))
    buffer = io.BytesIO()
    first.save(buffer, "PNG", save_all=True, append_images=[second])
    return buffer.getvalue()


ALPHA = np.dstack([COLOUR_PIXELS, np.full((4, 5), 128, np.uint8)])
WRONG: dict[str, tuple[bytes, str, int, str]] = {
    "empty": (b"", PNG, 400, "damaged or truncated PNG"),
    "text": (b"this is not a picture, whatever its type says", PNG, 400, "expected a PNG"),
    "jpeg as png": (encoded(GREY_PIXELS, kind="JPEG"), PNG, 400, "expected a PNG"),
    "png as jpeg": (encoded(GREY_PIXELS), JPEG, 400, "truncated JPEG"),
    "truncated png": (encoded(GREY_PIXELS)[:-20], PNG, 400, "truncated PNG"),
    "truncated jpeg": (encoded(GREY_PIXELS, kind="JPEG")[:-20], JPEG, 400, "truncated JPEG"),
    "too few pixels": (png_of(5, 4, data=bytes(7)), PNG, 400, "truncated PNG"),
    "another size": (encoded(GREY_PIXELS[:3]), PNG, 422, "5 x 4 pixels .* got 5 x 3"),
    "jpeg of another size": (
        encoded(GREY_PIXELS[:3], kind="JPEG"),
        JPEG,
        422,
        "5 x 4 pixels .* got 5 x 3",
    ),
    "one pixel": (png_of(1, 1, data=bytes(2)), PNG, 422, "got 1 x 1"),
    "no pixels": (png_of(0, 0), PNG, 422, "got 0 x 0"),
    "bomb": (png_of(65535, 65535, data=bytes(10 << 20)), PNG, 422, "got 65535 x 65535"),
    "16 bit": (png_of(5, 4, 16, 0, bytes(44)), PNG, 415, "8 bits a channel, got 16 or more"),
    "16 bit colour": (
        png_of(5, 4, 16, 2, bytes(124)),
        PNG,
        415,
        "8 bits a channel, got 16 or more",
    ),
    "alpha": (encoded(ALPHA), PNG, 415, "without transparency, got an alpha"),
    "grey with alpha": (
        png_of(5, 4, 8, 4, bytes(44)),
        PNG,
        415,
        "without transparency, got an alpha",
    ),
    "transparent colour": (
        encoded(GREY_PIXELS, transparency=0),
        PNG,
        415,
        "without transparency",
    ),
    "animation": (animated(), PNG, 415, "got an animation"),
    "cmyk": (encoded(COLOUR_PIXELS, "CMYK", "JPEG"), JPEG, 415, "got CMYK"),
    "gif": (encoded(GREY_PIXELS, kind="GIF"), PNG, 400, "expected a PNG"),
}


@pytest.mark.parametrize(("body", "media", "status", "message"), WRONG.values(), ids=WRONG)
def test_other_pictures_are_refused(body: bytes, media: str, status: int, message: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ServiceError, match=message) as caught:
            read_image(body, media, GREY, 256)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
    assert caught.value.status == status


def shown(x: Any, num_levels: int = 256, scale: int = 1) -> Any:
    return np.asarray(Image.open(io.BytesIO(write_png(np.asarray(x), num_levels, scale))))


def test_values_are_rounded_and_clipped() -> None:
    x = np.array([[[[-7.0, 0.4, 0.6], [254.6, 1e9, 0.0]]]], np.float32)
    assert shown(x).tolist() == [[0, 0, 1], [255, 255, 0]]


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_row_without_numbers_is_a_checkerboard(number: float) -> None:
    x = np.full((3, 1, 2, 3), 7.0)
    x[1, 0, 1, 1] = number
    failed, other = [[0, 255, 0], [255, 0, 255]], [[7] * 3] * 2
    expected = np.block([[np.array(other), np.array(failed)], [np.array(other), np.zeros((2, 3))]])
    assert shown(x).tolist() == expected.tolist()
    colour = np.full((1, 3, 2, 3), number)
    assert shown(colour).tolist() == [[[value] * 3 for value in row] for row in failed]


@pytest.mark.parametrize(
    ("rows", "columns", "lines"), [(1, 1, 1), (2, 2, 1), (3, 2, 2), (9, 3, 3), (10, 4, 3)]
)
def test_grids_are_near_square(rows: int, columns: int, lines: int) -> None:
    assert grid(rows) == (columns, lines)
    x = np.arange(rows).reshape(rows, 1, 1, 1) + np.ones((rows, 1, 2, 3))
    picture = shown(x)
    assert picture.shape == (2 * lines, 3 * columns)
    flat = [picture[2 * (n // columns), 3 * (n % columns)] for n in range(columns * lines)]
    assert flat == [n + 1 for n in range(rows)] + [0] * (columns * lines - rows)


def test_pixels_are_scaled_to_squares() -> None:
    x = np.array([[[[1, 2]], [[3, 4]], [[5, 6]]]])
    picture = shown(x, scale=3)
    assert picture.shape == (3, 6, 3)
    assert (picture[:, :3] == [1, 3, 5]).all()
    assert (picture[:, 3:] == [2, 4, 6]).all()


@pytest.mark.parametrize(
    ("shape", "levels", "expected"),
    [
        ((1, 4, 5), 256, True),
        ((3, 4, 5), 17, True),
        ((2, 4, 5), 256, False),
        ((20,), 256, False),
        ((1, 4, 5), None, False),
    ],
)
def test_what_can_be_a_picture(shape: tuple[int, ...], levels: int | None, expected: bool) -> None:
    assert is_picture(shape, levels) is expected


OFFERS = (JSON, NPY, PNG)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, JSON),
        (b"*/*", JSON),
        (b"application/json", JSON),
        (b"image/png", PNG),
        (b"Application/X-NPY", NPY),
        (b"image/*", PNG),
        (b"text/html, */*;q=0.1", JSON),
        (b"application/json;q=0.5, image/png", PNG),
        (b"application/json;q=0, */*", NPY),
        (b"text/html, application/x-npy;q=0.2, image/png;q=0.3", PNG),
        (b"application/json; charset=utf-8", JSON),
    ],
)
def test_negotiation(accept: bytes | None, chosen: str) -> None:
    assert negotiate(accept, OFFERS) == chosen


@pytest.mark.parametrize(
    "accept", [b"text/csv", b"image/jpeg", b"application/json;q=0", b"image/png;q=x", b"", b";;,"]
)
def test_what_nobody_offers(accept: bytes) -> None:
    with pytest.raises(ServiceError, match="application/json or application/x-npy or image/png"):
        negotiate(accept, OFFERS)


@pytest.mark.parametrize(
    "header",
    [None, b"application/json", b"Application/JSON", b'application/json; charset="UTF-8"'],
)
def test_content_types_of_json(header: bytes | None) -> None:
    assert read_content_type(header, (JSON,)) == JSON


@pytest.mark.parametrize(
    "header",
    [
        b"text/plain",
        b"",
        b"application/json; charset=latin-1",
        b"image/png",
        b"multipart/form-data",
    ],
)
def test_other_content_types(header: bytes) -> None:
    with pytest.raises(ServiceError) as caught:
        read_content_type(header, (JSON,))
    assert caught.value.status == 415
