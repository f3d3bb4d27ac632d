"""Pictures: folders of image files (through Pillow) and idx files as MNIST has them."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from models.datasets.dataset import Dataset, DatasetError, encode_labels
from models.datasets.image_files import (
    GREY_MODES,
    PictureError,
    as_channels,
    open_picture,
    read_picture,
)
from models.datasets.spec import Spec

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".pgm", ".ppm", ".tif", ".tiff"}
_MODES = {"grey": "L", "rgb": "RGB"}


def load_folder(folder: Path, spec: Spec) -> Dataset:
    """Read every image file under `folder` as (N, C, H, W), pixels 0 .. 255.

    The decoder is that of pictures that are sent to a server, see `models.datasets.image_files`.
    Where all files lie in sub-folders, their names are the labels. Options: `mode=grey|rgb`
    (default: grey where every file is), `size=N` or `size=HxW` (resize; else all must agree).

    Raises:
        DatasetError: if there is no image, one cannot be read or is of a kind that is not taken
            (16 bits a channel, transparency, CMYK, animations), or sizes differ.
    """
    mode, size = spec.text_option("mode"), _size(spec)
    if mode is not None and mode not in _MODES:
        raise DatasetError(f"data {spec.text!r}: mode must be grey or rgb, got {mode!r}")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not files:
        raise DatasetError(f"{folder}: no image files in it ({', '.join(sorted(_SUFFIXES))})")
    if mode is None:
        mode = "grey" if all(_is_grey(path) for path in files) else "rgb"
    pixels = [_read_image(path, _MODES[mode], size) for path in files]
    for path, image in zip(files, pixels, strict=True):
        if image.shape != pixels[0].shape:
            raise DatasetError(
                f"{path}: {_dimensions(image)} pixels, but {files[0].name} has "
                f"{_dimensions(pixels[0])}; crop them alike or resize all with ?size=HEIGHTxWIDTH"
            )
    in_classes = all(path.parent != folder for path in files)
    classes = np.array([path.parent.name for path in files]) if in_classes else None
    labels, label_names = encode_labels(classes)
    return Dataset(
        name=folder.name,
        x=np.stack(pixels),
        labels=labels,
        label_names=label_names,
        num_levels=256,
        source=f"the images in the folder {folder.name}",
    )


def load_idx(path: Path, spec: Spec) -> Dataset:
    """Read an idx file of uint8 images, plain or gzipped.

    Options: `labels=FILE`, `pad=N` (a black border of N pixels).

    Returns:
        (N, 1, H, W).

    Raises:
        DatasetError: if the file is not idx, is cut short, or does not hold uint8 images.
    """
    labels_path = spec.text_option("labels")
    pixels = read_idx(path)
    if pixels.ndim != 3:
        raise DatasetError(f"{path}: expected images (N, H, W), got shape {pixels.shape}")
    labels = None if labels_path is None else read_idx(Path(labels_path))
    codes, names = encode_labels(labels)
    return Dataset(
        name=path.name,
        x=pad(pixels[:, None], spec.int_option("pad", 0)),
        labels=codes,
        label_names=names,
        num_levels=256,
        source=f"the file {path.name}",
    )


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read the idx format: 0, 0, type code, rank, one big-endian uint32 a dimension, the values.

    Reference: LeCun, Cortes & Burges, "The MNIST database", section "file formats".
    """
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise DatasetError(f"{path}: not an idx file of uint8 values")
    start = 4 + 4 * content[3]
    shape = np.frombuffer(content[4:start], dtype=">u4").astype(np.int64)
    if len(content) != start + int(np.prod(shape)):
        raise DatasetError(
            f"{path}: expected {tuple(map(int, shape))} values, got {len(content) - start}; "
            "fetch the file again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def pad(pixels: NDArray[Any], border: int) -> NDArray[Any]:
    """Put a black border of `border` pixels around images (N, C, H, W)."""
    return np.pad(pixels, ((0, 0), (0, 0), (border, border), (border, border)))


def _size(spec: Spec) -> tuple[int, int] | None:
    text = spec.text_option("size")
    if text is None:
        return None
    height, _, width = text.partition("x")
    if not (height.isdecimal() and (width or height).isdecimal() and int(height) > 0):
        raise DatasetError(f"data {spec.text!r}: size must be N or HEIGHTxWIDTH, got {text!r}")
    return int(height), int(width or height)


def _is_grey(path: Path) -> bool:
    with _reading(path) as file, open_picture(file) as image:
        return image.mode in GREY_MODES


def _read_image(path: Path, mode: str, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    from PIL import Image

    with _reading(path) as file:
        picture = read_picture(file, mode=mode)
    if size is not None:
        picture = picture.resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return as_channels(picture)


@contextmanager
def _reading(path: Path) -> Iterator[IO[bytes]]:
    """Open a file; what is wrong with its picture is said of the file."""
    try:
        with path.open("rb") as file:
            yield file
    except (PictureError, OSError) as error:
        raise DatasetError(f"{path}: {error}") from error


def _dimensions(image: NDArray[np.uint8]) -> str:
    return f"{image.shape[1]} x {image.shape[2]}"
