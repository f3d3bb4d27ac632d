"""The npy format, and npz, its archive: read strictly, written plainly.

Any integer or float dtype up to 64 bits is taken, in either byte order and either memory order.
Pickled objects are never read: nothing here can execute what a client sends.

Reference: numpy.lib.format, "Format version 1.0" and "2.0" (NEP 1).
"""

import ast
import io
import math
import zipfile
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from service.codec.tensors import Array, Shape
from service.errors import (
    BadDtype,
    MalformedBody,
    ServiceError,
    ShapeMismatch,
    TooLarge,
    UnknownField,
    UnsupportedMediaType,
)

_MAGIC = b"\x93NUMPY"
# Where the header's length stands, in bytes, by major version.
_LENGTH_BYTES = {1: 2, 2: 4, 3: 4}
# An honest header of a plain dtype has 128 bytes; this is also what ast may be fed safely.
_MAX_HEADER_BYTES = 1024
_KEYS = ("descr", "fortran_order", "shape")
_DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
_ALIGNMENT = 64

# An archive without comment ends with this record; see APPNOTE.TXT 4.3.16.
_END_BYTES = 22
_END_MAGIC = b"PK\x05\x06"
_DIRECTORY_SIZE = slice(12, 16)
# Where a ZIP64 archive would say otherwise.
_LOCATOR = slice(-42, -38)
_LOCATOR_MAGIC = b"PK\x06\x07"
# Some members' worth: an archive that lists a million is refused before they are listed.
_MAX_DIRECTORY_BYTES = 1024
_ENCRYPTED = 0x1


def read_npy(body: bytes | bytearray, name: str) -> Array:
    """Read one tensor.

    Returns:
        A view of `body`, in the client's dtype, shape and order.

    Raises:
        MalformedBody: it is not npy, or its length is not what its header says.
        UnsupportedMediaType: pickled objects.
        BadDtype: a dtype that is not a real number of at most 64 bits.
        ShapeMismatch: an axis of length zero.
    """
    header, start = _split_header(body, name)
    dtype, is_fortran, shape = _parse_header(header, name)
    expected = math.prod(shape) * dtype.itemsize
    if len(body) - start != expected:
        raise MalformedBody(
            f"{name}: an npy header for {shape} {dtype.name} announces {expected} bytes, "
            f"got {len(body) - start}",
            at=f"/{name}",
        )
    flat: Array = np.frombuffer(body, dtype, offset=start)
    return flat.reshape(shape, order="F" if is_fortran else "C")


def write_npy(values: Array) -> bytes:
    """Write one tensor, version 1.0, C order."""
    return _write_header(values.dtype.str, values.shape) + values.tobytes()


def read_npz(body: bytes | bytearray, known: Sequence[str], max_bytes: int) -> dict[str, Array]:
    """Read the members of an archive, stored or deflated, each bounded before it is inflated.

    Raises:
        MalformedBody: it is not an npz archive.
        UnknownField: a member this call does not have.
        TooLarge: the members are together larger than max_bytes.
        UnsupportedMediaType: encrypted, or packed by another method.
    """
    end = bytes(body[-_END_BYTES:])
    directory_bytes = int.from_bytes(end[_DIRECTORY_SIZE], "little")
    is_plain = end.startswith(_END_MAGIC) and body[_LOCATOR] != _LOCATOR_MAGIC
    if not is_plain or directory_bytes > _MAX_DIRECTORY_BYTES:
        raise MalformedBody(f"body: expected an npz archive of {' and '.join(known)}")
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            return _read_members(archive, known, max_bytes)
    except ServiceError:
        raise
    except Exception:
        # Hostile archives make zipfile raise a dozen kinds of exception.
        raise MalformedBody("body: damaged npz archive") from None


def write_npz(arrays: dict[str, Array]) -> bytes:
    """Write several tensors as an uncompressed archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, values in arrays.items():
            # A fixed date: the same answer is the same bytes.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), write_npy(values))
    return buffer.getvalue()


def _read_members(
    archive: zipfile.ZipFile, known: Sequence[str], max_bytes: int
) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    left = max_bytes
    for entry in archive.infolist():
        name = entry.filename.removesuffix(".npy")
        if name not in known or name in arrays:
            raise UnknownField(
                f"body: expected npz members {' and '.join(known)} once each, got {name[:40]!r}; "
                f"other fields go in the query string, as ?{name[:40]}=..."
            )
        if entry.flag_bits & _ENCRYPTED or entry.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise UnsupportedMediaType(f"{name}: expected an npz member stored or deflated")
        left -= entry.file_size
        if left < 0:
            raise TooLarge(f"body: expected at most {max_bytes} bytes after inflating")
        with archive.open(entry) as member:
            # No more than the archive says is ever inflated: one that lies has a wrong checksum.
            content = member.read(entry.file_size)
        arrays[name] = read_npy(content, name)
    return arrays


def _split_header(body: bytes | bytearray, name: str) -> tuple[bytes, int]:
    """Find the header's text and where the values start, reading no further."""
    size = _LENGTH_BYTES.get(body[6], 0) if body.startswith(_MAGIC) and len(body) > 6 else 0
    start = 8 + size
    length = int.from_bytes(body[8:start], "little")
    if not size or length > _MAX_HEADER_BYTES:
        raise MalformedBody(f"{name}: expected npy, format 1.0 to 3.0", at=f"/{name}")
    return bytes(body[start : start + length]), start + length


# Clients send the same few headers again and again.
@lru_cache(maxsize=256)
def _parse_header(text: bytes, name: str) -> tuple[np.dtype[Any], bool, Shape]:
    try:
        fields = ast.literal_eval(text.decode("ascii").strip())
        descr, is_fortran, shape = (fields.pop(key) for key in _KEYS)
    except (ValueError, SyntaxError, TypeError, LookupError, AttributeError, RecursionError):
        fields = None
    if fields != {} or type(is_fortran) is not bool or not _is_shape(shape):
        raise MalformedBody(f"{name}: damaged npy header", at=f"/{name}")
    if 0 in shape:
        raise ShapeMismatch(f"{name}: expected at least one row, got {shape}", at=f"/{name}")
    return _read_dtype(descr, name), is_fortran, shape


def _is_shape(shape: Any) -> bool:
    return type(shape) is tuple and all(type(size) is int and size >= 0 for size in shape)


def _read_dtype(descr: Any, name: str) -> np.dtype[Any]:
    if type(descr) is str and descr.endswith("O"):
        raise UnsupportedMediaType(f"{name}: pickled objects are never read", at=f"/{name}")
    if type(descr) is not str or descr.lstrip("<>|=") not in _DTYPES:
        raise BadDtype(
            f"{name}: expected a dtype out of {', '.join(_DTYPES)}, got {str(descr)[:40]!r}",
            at=f"/{name}",
        )
    return np.dtype(descr)


@lru_cache(maxsize=256)
def _write_header(descr: str, shape: Shape) -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    size = len(_MAGIC) + 4 + len(text) + 1
    text += " " * (-size % _ALIGNMENT) + "\n"
    return _MAGIC + b"\x01\x00" + len(text).to_bytes(2, "little") + text.encode("ascii")
