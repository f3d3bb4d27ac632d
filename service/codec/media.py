"""Which media types a request brings and which its answer may have."""

from collections.abc import Sequence
from difflib import get_close_matches

from service.errors import NotAcceptable, UnsupportedMediaType

JSON = "application/json"
NPY = "application/x-npy"
NPZ = "application/x-npz"
PNG = "image/png"
JPEG = "image/jpeg"
OCTETS = "application/octet-stream"

_EXACT = {kind.encode(): kind for kind in (JSON, NPY, NPZ, PNG, JPEG, OCTETS)}
_UTF8 = frozenset(("utf-8", "utf8", "us-ascii"))
_SHOWN = 80
_FORM = "application/x-www-form-urlencoded"
# How alike two media types are of which one may be meant by the other: application/npy.
_NEAR = 0.85


def read_content_type(header: bytes | None, offers: Sequence[str]) -> str:
    """Find the media type of a body; JSON where the client names none.

    Raises:
        UnsupportedMediaType: a type this call does not take, or text that is not UTF-8.
    """
    if header is None:
        return JSON
    text = header.decode("latin-1")
    kind = _EXACT.get(header) or _read_parameters(text)
    if kind not in offers:
        raise UnsupportedMediaType(
            f"Content-Type: expected {' or '.join(offers)}, got {text[:_SHOWN]!r}"
            f"{_suggest(kind, offers)}"
        )
    return kind


def _suggest(kind: str, offers: Sequence[str]) -> str:
    if kind == _FORM:
        other = f", or {NPY} for an array" if NPY in offers else ""
        return (
            f"; curl names it where it is told no other: add -H 'Content-Type: {offers[0]}'{other}"
        )
    # One that is known was meant, wherever else it is taken.
    known = kind in _EXACT.values()
    near = [] if known else get_close_matches(kind, offers, n=1, cutoff=_NEAR)
    return f"; did you mean {near[0]}?" if near else ""


def negotiate(accept: bytes | None, offers: Sequence[str]) -> str:
    """Choose the media type of the answer: the client's favourite, else the first offer.

    Reference: RFC 9110, section 12.5.1.

    Raises:
        NotAcceptable: with the types this call can answer with.
    """
    if accept is None or accept == b"*/*":
        return offers[0]
    text = accept.decode("latin-1")
    if text in offers:
        return text
    ranges = _read_accept(text)
    weights = [_weight(offer, ranges) for offer in offers]
    best = max(weights)
    if best <= 0:
        raise NotAcceptable(
            f"Accept: this call answers with {' or '.join(offers)}, got {text[:_SHOWN]!r}"
        )
    return offers[weights.index(best)]


def _read_parameters(header: str) -> str:
    kind, *parameters = (part.strip().lower() for part in header.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "charset" and value.strip('"') not in _UTF8:
            raise UnsupportedMediaType(f"Content-Type: expected UTF-8, got {value[:_SHOWN]!r}")
    return kind


def _read_accept(header: str) -> dict[str, float]:
    ranges = {}
    for part in header.split(","):
        kind, *parameters = (word.strip().lower() for word in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name == "q":
                weight = _quality(value)
        ranges[kind] = weight
    return ranges


def _quality(text: str) -> float:
    """Read a q-value; one that is none counts as a refusal."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 <= value <= 1 else 0.0


def _weight(offer: str, ranges: dict[str, float]) -> float:
    """Weigh an offer by the most specific range that matches it."""
    for pattern in (offer, f"{offer.split('/')[0]}/*", "*/*"):
        if pattern in ranges:
            return ranges[pattern]
    return 0.0
