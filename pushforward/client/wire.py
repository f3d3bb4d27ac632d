"""Fields to the body and query of a request, and answers to values: numpy's formats, or JSON."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import httpx
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pushforward.client.errors import unreadable

Array = NDArray[Any]

JSON = "application/json"
NPY = "application/x-npy"
NPZ = "application/x-npz"
PNG = "image/png"
# Arrays as they are; JSON where an answer holds what no array can.
ANY = f"{NPZ}, {JSON};q=0.5"

_PICTURES = {b"\x89PNG": PNG, b"\xff\xd8\xff": "image/jpeg"}
# What travels alone as npy: it is what rows of every operation are called.
_ROWS = ("x", "z")
# What servers take from a query as it stands there.
_WORDS = ("model", "invalid")
# Names of columns stand in the query up to here; servers and proxies bound its length.
_COLUMNS_LETTERS = 4000


class EncodedRequest(NamedTuple):
    """What a request carries: its query, and its body with the media type."""

    params: dict[str, str]
    media: str
    content: bytes


def numbers(value: ArrayLike, name: str) -> Array:
    """Make an array of what must be one.

    Raises:
        TypeError: it holds something that is not a real number.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
    return array


def write_fields(fields: Mapping[str, Any]) -> EncodedRequest:
    """Write the fields of a call: arrays of numbers in the body as npy or npz, the rest as a query.

    One PNG or JPEG picture, as bytes, may stand for an array. What is neither number nor array,
    such as rows by name, makes all of it JSON; names of columns do so where they are long.

    Raises:
        ValueError: bytes that are no picture.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    pictures = {name: value for name, value in given.items() if isinstance(value, bytes)}
    if pictures:
        return _with_picture(given, *next(iter(pictures.items())))
    arrays = {name: found for name, value in given.items() if (found := _array(value)) is not None}
    rest = {name: value for name, value in given.items() if name not in arrays}
    in_query = [name for name, value in rest.items() if _fits_query(name, value, arrays, given)]
    if len(in_query) < len(rest):
        return EncodedRequest({}, JSON, json.dumps(given, default=_plain).encode())
    params = {name: _text(name, value) for name, value in rest.items()}
    if not arrays:
        return EncodedRequest(params, JSON, b"")
    name, array = next(iter(arrays.items()))
    if len(arrays) == 1 and name in _ROWS:
        return EncodedRequest(params, NPY, _write_npy(array))
    return EncodedRequest(params, NPZ, _write_npz(arrays))


def read_any(response: httpx.Response) -> dict[str, Any]:
    """Read an answer in whichever form it came: arrays, and scalars as Python has them.

    Raises:
        UnreadableAnswer: it is not what was asked for.
    """
    if response.headers.get("content-type", "") != NPZ:
        return {name: _from_json(value) for name, value in read_object(response).items()}
    arrays = read_npz(response)
    model, version = read_origin(response)
    values = {name: array if array.ndim else array.item() for name, array in arrays.items()}
    return {"model": model, "version": version, **values}


def read_npy(response: httpx.Response) -> Array:
    """Read the one array of an answer.

    Raises:
        UnreadableAnswer: it is not npy.
    """
    _check_media(response, NPY)
    try:
        values = np.load(io.BytesIO(response.content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise unreadable(response, f"not npy: {error}") from None
    return np.asarray(values)


def read_npz(
    response: httpx.Response, *names: str, optional: Sequence[str] = ()
) -> dict[str, Array]:
    """Read arrays of an answer: those of these names in their order, all without names.

    Args:
        response: the answer.
        names: those it must have.
        optional: those it may have beside them.

    Raises:
        UnreadableAnswer: it is not npz, or lacks one.
    """
    _check_media(response, NPZ)
    try:
        with np.load(io.BytesIO(response.content), allow_pickle=False) as archive:
            found = [name for name in optional if name in archive.files]
            return {name: archive[name] for name in (*names, *found) or archive.files}
    except Exception as error:  # damaged archives make zipfile raise a dozen kinds of exception
        raise unreadable(response, f"not npz with {names}: {error}") from None


def read_picture(response: httpx.Response) -> bytes:
    """Read a picture as it is.

    Raises:
        UnreadableAnswer: it is no PNG.
    """
    _check_media(response, PNG)
    return response.content


def read_object(response: httpx.Response) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UnreadableAnswer: it is something else.
    """
    try:
        content = response.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise unreadable(response, "expected a JSON object")
    return content


def read_origin(response: httpx.Response) -> tuple[str, str]:
    """The model that answered, and its version."""
    return response.headers.get("x-model", ""), response.headers.get("x-model-version", "")


def _with_picture(given: Mapping[str, Any], name: str, picture: bytes) -> EncodedRequest:
    kinds = [kind for magic, kind in _PICTURES.items() if picture.startswith(magic)]
    if not kinds:
        raise ValueError(f"{name}: expected rows, or a PNG or JPEG picture as bytes")
    params = {other: _text(other, value) for other, value in given.items() if other != name}
    return EncodedRequest(params, kinds[0], picture)


def _array(value: Any) -> Array | None:
    """An array of numbers, if it is one; a number alone is none."""
    if not isinstance(value, np.ndarray | list | tuple):
        return None
    try:
        array = np.asarray(value)
    except ValueError:  # rows of unlike length: the server says so
        return None
    return array if array.dtype.kind in "fiu" else None


def _fits_query(
    name: str, value: Any, arrays: Mapping[str, Array], given: Mapping[str, Any]
) -> bool:
    """Whether a field can stand in the query; names of columns can, beside arrays as they are."""
    if name == "columns" and any(isinstance(given[array], np.ndarray) for array in arrays):
        return len(_text(name, value)) <= _COLUMNS_LETTERS
    return not isinstance(value, list | tuple | dict)


def _text(name: str, value: Any) -> str:
    """A field in the query: JSON, but for the fields that are words."""
    if name in _WORDS:
        return str(value)
    if isinstance(value, float):
        return repr(float(value))  # an infinity is refused by the server, not here
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    """What JSON can hold of numpy's values.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and np.isnan(value).any():
        value = np.where(np.isnan(value), None, value)  # type: ignore[call-overload]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"expected numbers, text, lists or arrays, got {type(value).__name__}")


def _from_json(value: Any) -> Any:
    """An array where there is a list of numbers; null among them is one JSON cannot hold: NaN."""
    if not isinstance(value, list) or not value:
        return value
    try:
        array = np.asarray(value)
    except ValueError:  # of unlike lengths
        return value
    if array.dtype.kind in "fiu":
        return array
    is_numbers = array.dtype.kind == "O" and all(
        item is None or isinstance(item, int | float) for item in array.flat
    )
    return array.astype(np.float64) if is_numbers else value


def _check_media(response: httpx.Response, expected: str) -> None:
    got = response.headers.get("content-type", "")
    if got != expected:
        raise unreadable(response, f"expected {expected}, got {got!r}")


def _write_npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _write_npz(arrays: Mapping[str, Array]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
