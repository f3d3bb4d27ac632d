"""A picture in a folder that is trained on and in the body of a request: one answer for both."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.datasets import DatasetError, load
from service.codec.image import read_image
from service.codec.media import JPEG, PNG
from service.errors import ServiceError

COLOUR = np.random.default_rng(1).integers(0, 256, (4, 6, 3), np.uint8)
GREY = COLOUR[..., 0]
OPAQUE = np.full((4, 6), 255, np.uint8)
SEEN_THROUGH = np.where(GREY > 200, 254, OPAQUE).astype(np.uint8)
ORIENTATION = 0x0112  # EXIF 2.3, table 4


def encoded(pixels: Any, kind: str = "PNG", mode: str | None = None, **options: Any) -> bytes:
    image = Image.fromarray(np.asarray(pixels))
    buffer = io.BytesIO()
    (image if mode is None else image.convert(mode)).save(buffer, kind, **options)
    return buffer.getvalue()


def png16(colour: int, channels: int) -> bytes:
    """A PNG of 16 bits a channel, all of them 257."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    head = struct.pack(">IIBBBBB", 6, 4, 16, colour, 0, 0, 0)
    lines = (b"\0" + b"\1\1" * 6 * channels) * 4
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def turned(orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    # The sensor's picture: of orientations 5 to 8 it lies on its side.
    sensor = np.zeros((4, 6) if orientation < 5 else (6, 4), np.uint8)
    sensor[:2, :3] = 255
    return encoded(sensor, kind, exif=exif)


def animated() -> bytes:
    first, second = (Image.fromarray(pixels) for pixels in (GREY, 255 - GREY))
    buffer = io.BytesIO()
    first.save(buffer, "PNG", save_all=True, append_images=[second])
    return buffer.getvalue()


def trained(folder: Path, body: bytes, suffix: str, mode: str = "rgb") -> Any:
    (folder / f"1.{suffix}").write_bytes(body)
    return load(f"{folder}?mode={mode}").x


TAKEN = {
    "grey": (encoded(GREY), np.stack([GREY] * 3)),
    "rgb": (encoded(COLOUR), COLOUR.transpose(2, 0, 1)),
    "palette": (encoded(GREY, mode="P"), np.stack([GREY] * 3)),
    "black and white": (encoded(GREY > 100), np.stack([255 * (GREY > 100)] * 3)),
    "opaque alpha": (encoded(np.dstack([COLOUR, OPAQUE])), COLOUR.transpose(2, 0, 1)),
    "opaque grey": (encoded(np.dstack([GREY, OPAQUE])), np.stack([GREY] * 3)),
    "unused transparent colour": (encoded(GREY | 1, transparency=0), np.stack([GREY | 1] * 3)),
}


@pytest.mark.parametrize(("body", "expected"), TAKEN.values(), ids=TAKEN)
def test_what_is_converted_is_converted_alike(tmp_path: Path, body: bytes, expected: Any) -> None:
    np.testing.assert_array_equal(trained(tmp_path, body, "png")[0], expected)
    np.testing.assert_array_equal(read_image(body, PNG, (3, 4, 6), 256)[0], expected)


# Where the bright corner of the sensor is seen: rows from the top, columns from the left.
CORNERS = {
    1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0),
    5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize(("orientation", "corner"), CORNERS.items())
def test_pictures_are_turned_as_exif_says(
    tmp_path: Path, kind: str, orientation: int, corner: tuple[int, int]
) -> None:
    body = turned(orientation, kind)
    seen = trained(tmp_path, body, kind.lower(), "grey")
    assert seen.shape == (1, 1, 4, 6)
    ends = seen[0, 0][np.ix_((0, 3), (0, 5))] > 128
    assert np.argwhere(ends).tolist() == [list(corner)]
    served = read_image(body, PNG if kind == "PNG" else JPEG, (1, 4, 6), 256)
    np.testing.assert_array_equal(served, seen)


REFUSED = {
    "16 bit grey": (png16(0, 1), "8 bits a channel, got 16"),
    "16 bit rgb": (png16(2, 3), "8 bits a channel, got 16"),
    "16 bit grey and alpha": (png16(4, 2), "8 bits a channel, got 16"),
    "16 bit rgba": (png16(6, 4), "8 bits a channel, got 16"),
    "alpha": (encoded(np.dstack([COLOUR, SEEN_THROUGH])), "without transparency"),
    "grey and alpha": (encoded(np.dstack([GREY, SEEN_THROUGH])), "without transparency"),
    "transparent colour": (encoded(GREY, transparency=int(GREY[0, 0])), "without transparency"),
    "transparent entry": (encoded(GREY, mode="P", transparency=int(GREY[0, 0])), "transparency"),
    "animation": (animated(), "got an animation"),
    "cmyk": (encoded(COLOUR, "JPEG", "CMYK"), "got CMYK"),
}


@pytest.mark.parametrize(("body", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_refused_alike(tmp_path: Path, body: bytes, message: str) -> None:
    is_png = body.startswith(b"\x89PNG")
    for mode, channels in (("grey", 1), ("rgb", 3)):
        with pytest.raises(DatasetError, match=rf"1\.png: .*{message}"):
            trained(tmp_path, body, "png", mode)
        with pytest.raises(ServiceError, match=message) as caught:
            read_image(body, PNG if is_png else JPEG, (channels, 4, 6), 256)
        assert caught.value.status == 415


def tiff16() -> bytes:
    """Six tags of a TIFF of 2 x 1 RGB pixels of 16 bits (TIFF 6.0, section 6)."""
    tags = [(256, 2), (257, 1), (258, 134), (259, 1), (262, 2), (273, 8), (277, 3), (278, 1)]
    entries = b"".join(
        struct.pack("<HHII", tag, 4 if tag == 273 else 3, 3 if tag == 258 else 1, value)
        for tag, value in tags
    )
    head = b"II*\0" + struct.pack("<I", 24) + bytes(16)
    body = head + struct.pack("<H", len(tags)) + entries + bytes(4)
    return body.ljust(134, b"\0") + struct.pack("<HHH", 16, 16, 16)


@pytest.mark.parametrize(
    ("body", "suffix"),
    [
        (b"P6 2 1 65535\n" + bytes(12), "ppm"),
        (b"P5 2 1 65535\n" + bytes(4), "pgm"),
        (tiff16(), "tif"),
        (encoded(GREY.astype(np.uint16), "TIFF"), "tif"),
        (encoded(GREY.astype(np.float32), "TIFF"), "tif"),
    ],
    ids=["ppm", "pgm", "tiff rgb", "tiff grey", "tiff float"],
)
def test_more_than_eight_bits_are_refused_in_every_format(
    tmp_path: Path, body: bytes, suffix: str
) -> None:
    with pytest.raises(DatasetError, match="8 bits a channel, got 16 or more"):
        trained(tmp_path, body, suffix)


def test_pages_are_refused(tmp_path: Path) -> None:
    first, second = (Image.fromarray(pixels) for pixels in (GREY, 255 - GREY))
    first.save(tmp_path / "0.tif", save_all=True, append_images=[second])
    with pytest.raises(DatasetError, match="several pages"):
        load(str(tmp_path))


def test_pictures_that_unfold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    body = encoded(GREY, "JPEG")
    with pytest.raises(DatasetError, match=r"1\.jpg: expected fewer pixels"):
        trained(tmp_path, body, "jpg")
    with pytest.raises(ServiceError) as caught:
        read_image(body, JPEG, (1, 4, 5), 256)
    assert caught.value.status == 413
