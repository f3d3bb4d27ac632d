"""Pictures to pixel tensors and back, for flows over images (C, H, W) with C = 1 or 3.

A flow with L levels takes pixels 0 .. L - 1; a picture has 256. They are mapped linearly, which
for 8-bit flows is the identity.
"""

import io
import math
import struct
from typing import Any

import numpy as np
from PIL import Image

from service.codec.media import PNG
from service.codec.tensors import Array, Shape
from service.errors import MalformedBody, ServiceError, ShapeMismatch, UnsupportedMediaType

MAX_SCALE = 16

_WHITE = 255
_MODES = {1: "L", 3: "RGB"}
# What a PNG header says: width, height, bit depth, colour type (PNG specification, 11.2.2).
_PNG_HEAD = struct.Struct(">8s4x4sIIBB")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_ALPHA = (4, 6)
_PNG_MAX_DEPTH = 8
_TAKEN_MODES = ("1", "L", "P", "RGB")


def is_picture(event_shape: Shape, num_levels: int | None) -> bool:
    """Whether a flow's events can be shown as pictures."""
    has_levels = num_levels is not None and num_levels > 1
    return has_levels and len(event_shape) == 3 and event_shape[0] in _MODES


def read_image(body: bytes | bytearray, media: str, event_shape: Shape, num_levels: int) -> Array:
    """Read one picture, one row.   -> (1, C, H, W), values 0 .. num_levels - 1.

    Its size is read from its header and must be H x W: no picture of another size is decoded, so
    none can unfold. Colour becomes grey (ITU-R 601) or grey colour as the flow asks.

    Raises:
        MalformedBody: not a picture of this type, truncated or damaged.
        ShapeMismatch: another size.
        UnsupportedMediaType: alpha, more than 8 bits a channel, CMYK, or an animation.
    """
    channels, height, width = event_shape
    try:
        if media == PNG:
            _check_png(body, (width, height))
        with Image.open(io.BytesIO(body), formats=["PNG" if media == PNG else "JPEG"]) as image:
            _check_size(image.size, (width, height))
            _check_kind(image)
            picture = np.asarray(image.convert(_MODES[channels]))
    except ServiceError:
        raise
    except Exception:
        # Hostile pictures make the decoders raise a dozen kinds of exception.
        name = "PNG" if media == PNG else "JPEG"
        raise MalformedBody(f"body: damaged or truncated {name} picture") from None
    pixels = picture.reshape(1, height, width, channels).transpose(0, 3, 1, 2)
    return pixels if num_levels == 256 else np.rint(pixels * ((num_levels - 1) / _WHITE))


def write_png(x: Array, num_levels: int, scale: int = 1) -> bytes:
    """Draw rows as one picture: one row alone, more in a near-square grid, row by row.

    x (B, C, H, W) is rounded and clipped to 0 .. num_levels - 1; NaN becomes 0 and unused places
    of the grid are black. Each pixel becomes a square of `scale` pixels.
    """
    rows, channels, height, width = x.shape
    columns, lines = grid(rows)
    levels = np.clip(np.rint(np.nan_to_num(x, nan=0.0)), 0, num_levels - 1)
    tiles = np.zeros((lines * columns, channels, height, width), np.uint8)
    tiles[:rows] = np.rint(levels * (_WHITE / (num_levels - 1)))
    canvas = (
        tiles.reshape(lines, columns, channels, height, width)
        .transpose(0, 3, 1, 4, 2)
        .reshape(lines * height, columns * width, channels)
    )
    canvas = canvas.repeat(scale, axis=0).repeat(scale, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(canvas if channels == 3 else canvas[:, :, 0]).save(buffer, "PNG")
    return buffer.getvalue()


def grid(rows: int) -> tuple[int, int]:
    """Lay pictures out near-square.   -> (columns, lines)."""
    columns = math.isqrt(rows - 1) + 1
    return columns, -(-rows // columns)


def _check_png(body: bytes | bytearray, size: tuple[int, int]) -> None:
    # Pillow makes 8 bits of 16 in silence, so the header is read here.
    signature, chunk, width, height, depth, colour = _PNG_HEAD.unpack_from(body)
    if signature != _PNG_SIGNATURE or chunk != b"IHDR":
        raise MalformedBody("body: expected a PNG picture")
    _check_size((width, height), size)
    if depth > _PNG_MAX_DEPTH:
        raise UnsupportedMediaType(f"body: expected 8 bits a channel, got {depth}")
    if colour in _PNG_ALPHA:
        raise UnsupportedMediaType("body: expected a picture without alpha channel")


def _check_size(got: tuple[int, int], expected: tuple[int, int]) -> None:
    if got != expected:
        raise ShapeMismatch(
            f"x: expected a picture of {expected[0]} x {expected[1]} pixels (width x height), "
            f"got {got[0]} x {got[1]}",
            at="/x",
        )


def _check_kind(image: Any) -> None:
    if getattr(image, "is_animated", False):
        raise UnsupportedMediaType("body: expected one picture, got an animation")
    if image.mode not in _TAKEN_MODES:
        raise UnsupportedMediaType(f"body: expected grey or RGB, got {image.mode}")
    if "transparency" in image.info:
        raise UnsupportedMediaType("body: expected a picture without transparency")
