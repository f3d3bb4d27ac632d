"""Pictures to pixel tensors and back, for flows over images (C, H, W) with C = 1 or 3.

A flow with L levels takes pixels 0 .. L - 1; a picture has 256. They are mapped linearly, which
for 8-bit flows is the identity.
"""

import io
import math
import struct

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from models.datasets.image_files import (
    OversizedPicture,
    PictureError,
    UnsupportedPicture,
    WrongSize,
    as_channels,
    read_picture,
    wrong_size,
)
from service.codec.media import PNG
from service.codec.tensors import Array, Shape, non_finite_rows
from service.errors import MalformedBody, ShapeMismatch, TooLarge, UnsupportedMediaType

MAX_SCALE = 16

_WHITE = 255
_MODES = {1: "L", 3: "RGB"}
# The start of a PNG: its signature, then width and height (PNG specification, 11.2.2).
_PNG_HEAD = struct.Struct(">8s4x4sII")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def is_picture(event_shape: Shape, num_levels: int | None) -> bool:
    """Whether a flow's events can be shown as pictures."""
    has_levels = num_levels is not None and num_levels > 1
    return has_levels and len(event_shape) == 3 and event_shape[0] in _MODES


def read_image(body: bytes | bytearray, media: str, event_shape: Shape, num_levels: int) -> Array:
    """Read one picture, one row.

    The decoder is that of the folders that models are trained on (`models.datasets.image_files`):
    what it refuses there it refuses here. No picture of another size than H x W is decoded.

    Returns:
        (1, C, H, W), values 0 .. num_levels - 1.

    Raises:
        MalformedBody: not a picture of this type, truncated or damaged.
        ShapeMismatch: another size.
        TooLarge: more pixels than any picture that is opened.
        UnsupportedMediaType: transparency, more than 8 bits a channel, CMYK, or an animation.
    """
    channels, height, width = event_shape
    kind = "PNG" if media == PNG else "JPEG"
    if media == PNG:
        _check_png(body, (width, height))
    try:
        picture = read_picture(
            io.BytesIO(body), mode=_MODES[channels], formats=(kind,), size=(width, height)
        )
    except WrongSize as error:
        raise _mismatch(error) from None
    except OversizedPicture:
        raise TooLarge(f"body: expected a picture of {width} x {height} pixels") from None
    except UnsupportedPicture as error:
        raise UnsupportedMediaType(f"body: {error}") from None
    except PictureError:
        raise MalformedBody(f"body: damaged or truncated {kind} picture") from None
    pixels = as_channels(picture)[None]
    return pixels if num_levels == 256 else np.rint(pixels * ((num_levels - 1) / _WHITE))


def write_png(x: Array, num_levels: int, scale: int = 1) -> bytes:
    """Draw rows as one picture: one row alone, more in a near-square grid, row by row.

    x (B, C, H, W) is rounded and clipped to 0 .. num_levels - 1. A row that holds NaN or an
    infinity is a checkerboard, which nobody takes for a picture; unused cells of the grid are
    black. Each pixel becomes a square of `scale` pixels.
    """
    height, width = x.shape[2:]
    levels = np.clip(np.rint(np.nan_to_num(x)), 0, num_levels - 1)
    pictures = np.rint(levels * (_WHITE / (num_levels - 1))).astype(np.uint8)
    pictures[non_finite_rows(x)] = checkerboard(height, width)
    return save_pictures(pictures, scale)


def checkerboard(height: int, width: int) -> Array:
    """What is drawn in the place of a row without numbers."""
    board: Array = (_WHITE * (np.indices((height, width)).sum(0) % 2)).astype(np.uint8)
    return board


def save_pictures(pictures: Array, scale: int, info: PngInfo | None = None) -> bytes:
    """Lay pictures (B, C, H, W) of bytes out in a grid, as one PNG.

    Args:
        pictures: C = 1 or 3.
        scale: each pixel becomes a square of so many.
        info: what the file says of itself.
    """
    rows, channels, height, width = pictures.shape
    columns, lines = grid(rows)
    tiles = np.zeros((lines * columns, channels, height, width), np.uint8)
    tiles[:rows] = pictures
    canvas = (
        tiles.reshape(lines, columns, channels, height, width)
        .transpose(0, 3, 1, 4, 2)
        .reshape(lines * height, columns * width, channels)
    )
    canvas = canvas.repeat(scale, axis=0).repeat(scale, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(canvas if channels == 3 else canvas[:, :, 0]).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def grid(rows: int) -> tuple[int, int]:
    """Lay pictures out near-square.

    Returns:
        The columns and the lines.
    """
    columns = math.isqrt(rows - 1) + 1
    return columns, -(-rows // columns)


def _check_png(body: bytes | bytearray, size: tuple[int, int]) -> None:
    # Pillow says of other bytes, and of pictures of no or of very many pixels, that it cannot open
    # them: the head says more.
    if len(body) < _PNG_HEAD.size:
        raise MalformedBody("body: damaged or truncated PNG picture")
    signature, chunk, *shown = _PNG_HEAD.unpack_from(body)
    if signature != _PNG_SIGNATURE or chunk != b"IHDR":
        raise MalformedBody("body: expected a PNG picture")
    if tuple(sorted(shown)) != tuple(sorted(size)):
        raise _mismatch(wrong_size((shown[0], shown[1]), size))


def _mismatch(error: WrongSize) -> ShapeMismatch:
    return ShapeMismatch(f"x: {error}", at="/x")
