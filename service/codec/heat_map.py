"""Gradients of log p as pictures: which pixels matter, and in which direction.

White is 0. Red: log p rises where the pixel gets brighter; blue: where it gets darker. The colours
are those of RdBu (Brewer 2003), which people who do not tell red from green tell apart as well.
"""

import numpy as np
from PIL.PngImagePlugin import PngInfo

from service.codec.image import checkerboard, save_pictures
from service.codec.tensors import Array, non_finite_rows

# From blue over white to red, evenly spaced.
_COLOURS = np.array(
    [
        (5, 48, 97),
        (33, 102, 172),
        (67, 147, 195),
        (146, 197, 222),
        (209, 229, 240),
        (255, 255, 255),
        (253, 219, 199),
        (244, 165, 130),
        (214, 96, 77),
        (178, 24, 43),
        (103, 0, 31),
    ],
    np.float64,
)
# A few pixels may have a gradient a hundred times that of the others, which would all be white.
_SHOWN = 0.99


def full_colour(gradient: Array) -> float:
    """The gradient that has the full colour, in nats a level: 99 % of the pixels have less.

    Args:
        gradient: (B, C, H, W); channels are added, see `write_heat_map`. Rows with NaN or
            infinities do not count.

    Returns:
        0 where no pixel has a gradient.
    """
    shown = np.delete(gradient, non_finite_rows(gradient), 0)
    if not shown.size:
        return 0.0
    return float(np.quantile(np.abs(_of_pixels(shown)), _SHOWN))


def write_heat_map(gradient: Array, full: float, scale: int = 1) -> bytes:
    """Draw gradients as one PNG, laid out as `write_png` lays rows out.

    The colour of a pixel is that of the sum over its channels: what log p gains a level where all
    of them get brighter. A row with NaN or an infinity is a checkerboard.

    Args:
        gradient: (B, C, H, W), d log p / d x in nats a level.
        full: what has the full colour, as has all beyond it; see `full_colour`.
        scale: the size of a pixel.
    """
    height, width = gradient.shape[2:]
    relative = _of_pixels(np.nan_to_num(gradient)) / (full or 1.0)
    at = (np.clip(relative, -1, 1) + 1) / 2 * (len(_COLOURS) - 1)
    stops = np.arange(len(_COLOURS))
    channels = [np.interp(at, stops, colour) for colour in _COLOURS.T]
    pictures = np.rint(np.stack(channels, 1)).astype(np.uint8)
    pictures[non_finite_rows(gradient)] = checkerboard(height, width)
    return save_pictures(pictures, scale, _describe(full))


def _of_pixels(gradient: Array) -> Array:
    summed: Array = gradient.astype(np.float64).sum(1)
    return summed


def _describe(full: float) -> PngInfo:
    info = PngInfo()
    info.add_text(
        "Description",
        "d log p / d pixel: red where a brighter pixel is likelier, blue where a darker one is, "
        f"white 0; full colour at {full:.6g} nats a level and beyond",
    )
    info.add_text("heat-map-scale", f"{full:.6g}")
    return info
