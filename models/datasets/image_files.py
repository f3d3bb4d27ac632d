"""One decoder of picture files, for the folders that are trained on and the bodies that are scored.

What 8-bit grey or RGB holds exactly is converted: black and white, palettes, an alpha channel that
is opaque everywhere, the orientation that EXIF states. The rest would lose something (16 bits a
channel, transparency, CMYK, further frames) and is refused.
"""

from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

# Pillow's modes of 8-bit grey and RGB, with and without alpha.
GREY_MODES = ("1", "L", "LA", "La")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
_TAKEN_MODES = ("1", "L", "P", "RGB", *_ALPHA_MODES)
# How 16 bits a channel lie in a file that Pillow opens as one of 8 bits (or, grey, of 32).
_DEEP_MODES = ("I", "F")
_DEEP_RAW_MODES = ("L;16", "LA;16", "RGB;16", "RGBA;16", "RGBX;16")
_OPAQUE = 255


class PictureError(ValueError):
    """A picture cannot be taken."""


class DamagedPicture(PictureError):
    """The bytes are not a whole picture of the formats asked for."""


class OversizedPicture(PictureError):
    """So many pixels that Pillow does not open it."""


class WrongSize(PictureError):
    """Width and height, as shown, are not those asked for."""


class UnsupportedPicture(PictureError):
    """8-bit grey or RGB cannot hold what the picture does."""


def read_picture(
    file: IO[bytes],
    *,
    mode: str,
    formats: tuple[str, ...] | None = None,
    size: tuple[int, int] | None = None,
) -> "Image.Image":
    """Read one picture as it is shown.

    Args:
        file: its bytes.
        mode: "L" for grey (of colour: ITU-R 601), or "RGB".
        formats: those that are taken, as Pillow calls them; None takes all.
        size: (width, height) that it must have; no picture of another size is decoded, so none can
            unfold.

    Raises:
        DamagedPicture, OversizedPicture, WrongSize, UnsupportedPicture: see there.
    """
    from PIL import ImageOps

    try:
        with open_picture(file, formats) as image:
            if size is not None and image.size not in (size, size[::-1]):
                raise wrong_size(image.size, size)
            _check_kind(image)
            image.load()
            # Phones store pictures as the sensor lies and say how to turn them.
            shown = ImageOps.exif_transpose(image)
            if size is not None and shown.size != size:
                raise wrong_size(shown.size, size)
            return _without_alpha(shown).convert(mode)
    except PictureError:
        raise
    except Exception as error:
        # Hostile pictures make the decoders raise a dozen kinds of exception.
        raise DamagedPicture(f"damaged or truncated picture: {error}") from error


def open_picture(file: IO[bytes], formats: tuple[str, ...] | None = None) -> "Image.Image":
    """Read the head of a picture.

    Raises:
        DamagedPicture, OversizedPicture: see there.
    """
    # Who reads tables alone need not have Pillow.
    from PIL import Image

    try:
        return Image.open(file, formats=formats)
    except Image.DecompressionBombError as error:
        raise OversizedPicture(f"expected fewer pixels: {error}") from error
    except Exception as error:
        raise DamagedPicture(f"not a readable image: {error}") from error


def wrong_size(got: tuple[int, int], expected: tuple[int, int]) -> WrongSize:
    """The error that says both sizes, (width, height)."""
    return WrongSize(
        f"expected a picture of {expected[0]} x {expected[1]} pixels (width x height), "
        f"got {got[0]} x {got[1]}"
    )


def as_channels(picture: "Image.Image") -> NDArray[np.uint8]:
    """The pixels of an "L" or "RGB" picture.

    Returns:
        (C, H, W).
    """
    pixels = np.asarray(picture, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _check_kind(image: Any) -> None:
    # The further pictures of an MPO, which many cameras write as .jpg, are previews of the first.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise UnsupportedPicture("expected one picture, got an animation or several pages")
    if _is_deep(image):
        raise UnsupportedPicture("expected 8 bits a channel, got 16 or more; convert it to 8 bits")
    if image.mode not in _TAKEN_MODES:
        raise UnsupportedPicture(f"expected grey or RGB, got {image.mode}; convert it to RGB")


def _is_deep(image: Any) -> bool:
    if image.mode.startswith(_DEEP_MODES):
        return True
    for tile in image.tile:
        arguments = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        if isinstance(arguments[0], str) and arguments[0].startswith(_DEEP_RAW_MODES):
            return True
        if tile.codec_name.startswith("ppm") and arguments[-1] > _OPAQUE:
            return True  # netpbm states the largest value, and Pillow scales it to 255
    return False


def _without_alpha(image: "Image.Image") -> "Image.Image":
    if image.mode not in _ALPHA_MODES and "transparency" not in image.info:
        return image
    full = image.convert("RGBA")
    if full.getchannel("A").getextrema()[0] != _OPAQUE:
        raise UnsupportedPicture(
            "expected a picture without transparency, got an alpha channel or transparent colour; "
            "put it on a background"
        )
    # Grey stays exact: R = G = B, and the weights of the conversion to grey add up to one.
    return full.convert("RGB")
