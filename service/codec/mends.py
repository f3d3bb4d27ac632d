"""What a request that cannot be read probably was meant to be: how its sender can mend it."""

import json
from collections.abc import Sequence
from typing import Any

from service.codec.media import JPEG, JSON, NPY, NPZ, PNG

# What bytes of a media type begin with.
_BEGINNINGS = (
    (b"\x93NUMPY", NPY),
    (b"PK\x03\x04", NPZ),
    (b"\x89PNG", PNG),
    (b"\xff\xd8\xff", JPEG),
    (b"{", JSON),
)
# Of a body whose JSON part is looked for; longer ones are parsed by their length alone.
_MOST_JSON = 65_536
_MOST_TEXT = 40


def suggest_media(body: bytes | bytearray, media: str, offers: Sequence[str]) -> str:
    """What to add to the error of a body that is not of its media type, "" where that is unknown.

    Args:
        body: that could not be read.
        media: what its head says, or leaves unsaid.
        offers: the media types that the call takes.
    """
    beginning = bytes(body[:8])
    found = next((kind for magic, kind in _BEGINNINGS if beginning.startswith(magic)), media)
    if found == media:
        return ""
    if found not in offers:
        return f"; it begins like {found}, which this call does not take"
    return f"; it begins like {found}: send it with the header Content-Type: {found}"


def suggest_json_length(body: bytes | bytearray) -> str:
    """What to add to the error of a body that is JSON with tensors behind it, else ""."""
    text = bytes(body[:_MOST_JSON])
    if b"binary_data_size" not in text:
        return ""
    try:
        _, end = json.JSONDecoder().raw_decode(text.decode("latin-1"))
    except (ValueError, RecursionError):
        return ""
    if end == len(body):
        return ""
    return (
        "; tensors follow its JSON as bytes: say where it ends with the header "
        f"Inference-Header-Content-Length: {end}"
    )


def suggest_scalar(value: Any, kind: type | tuple[type, ...]) -> str:
    """What to add to the error of a scalar that came in a list or as text, else "".

    Args:
        value: that was refused.
        kind: which types are taken.
    """
    inner = value
    while isinstance(inner, list) and len(inner) == 1:
        inner = inner[0]
    if type(inner) is str and kind is not str and len(inner) <= _MOST_TEXT:
        try:
            inner = json.loads(inner)
        except (ValueError, RecursionError):
            return ""
    if type(inner) is float and inner.is_integer() and kind is int:
        inner = int(inner)
    if inner is value or type(inner) not in (kind if isinstance(kind, tuple) else (kind,)):
        return ""
    return f"; send {json.dumps(inner)[:_MOST_TEXT]}"
