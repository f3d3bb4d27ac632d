"""Compressed bodies: gzip, zstd and deflate in, gzip and zstd out (RFC 9110, section 8.4).

What a small body may become is bounded before it is kept: a bomb of a megabyte costs the time of
its decompression up to the limit, and little memory.
"""

import re
import zlib
from collections.abc import Callable, Collection, Iterator

import zstandard

from service.errors import MalformedBody, TooLarge, UnsupportedMediaType

# A body that is larger is first only counted, then decompressed once more.
_KEPT_BYTES = 4 * 2**20
_PIECE_BYTES = 2**20
# A byte of zstd becomes 32 KiB at most (a block of one repeated byte): 256 of them 8 MiB.
_ZSTD_INPUT_BYTES = 256
# What RFC 9659 lets an encoder use; more is memory that a request could ask for.
_ZSTD_WINDOW_BYTES = 8 * 2**20
# What zlib did not use is copied each time.
_ZLIB_INPUT_BYTES = 2**14
# Parallel compressors write many, a body of nothing but empty ones is an attack.
_MAX_STREAMS = 2**16
_GZIP_LEVEL, _ZSTD_LEVEL = 1, 1
_GZIP_BITS, _DEFLATE_BITS = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS

_QUALITY = re.compile(r"q\s*=\s*([01](?:\.\d{0,3})?)", re.IGNORECASE)


def measure(body: bytes | bytearray, encoding: str, max_bytes: int) -> tuple[int, bytes | None]:
    """How many bytes a body becomes, and these themselves where they are few.

    Args:
        encoding: of `DECODERS`.
        max_bytes: what it may become.

    Raises:
        TooLarge: it becomes more.
        MalformedBody: it is not in this encoding, or ends too early.
    """
    kept: list[bytes] | None = []
    total = 0
    for piece in _pieces(body, encoding):
        total += len(piece)
        if total > max_bytes:
            raise TooLarge(
                f"body: expected at most {max_bytes} bytes once it is decompressed "
                f"({encoding}, {len(body)} bytes came); send the rows in several requests"
            )
        if kept is not None:
            kept.append(piece)
            if total > _KEPT_BYTES:
                kept = None
    return total, None if kept is None else b"".join(kept)


def decompress(body: bytes | bytearray, encoding: str) -> bytes:
    """Decompress a body that was measured."""
    return b"".join(_pieces(body, encoding))


def read_encoding(header: bytes | None) -> str | None:
    """Read Content-Encoding: a name of `DECODERS`, or None where the body is not compressed.

    Raises:
        UnsupportedMediaType: another one, or several.
    """
    if header is None:
        return None
    name = header.decode("latin-1").strip().lower().removeprefix("x-")
    if name in ("", "identity"):
        return None
    if name not in DECODERS:
        raise UnsupportedMediaType(
            f"Content-Encoding: expected one of {', '.join(DECODERS)}, got {name[:40]!r}; "
            "send the body in one of them, or as it is"
        )
    return name


def choose_encoding(accept: bytes | None, among: Collection[str] | None = None) -> str | None:
    """Which encoding a client's Accept-Encoding wants most; None where it wants none of them.

    Among those that it wants alike, zstd: it is the faster one.

    Args:
        accept: the header.
        among: names that may be chosen; None: all of `ENCODERS`.
    """
    if accept is None:
        return None
    wanted: dict[str, float] = {}
    for part in accept.decode("latin-1").lower().split(","):
        name, _, parameters = part.partition(";")
        quality = _QUALITY.search(parameters)
        wanted[name.strip().removeprefix("x-")] = float(quality[1]) if quality else 1.0
    otherwise = wanted.get("*", 0.0)
    quality_of = {name: wanted.get(name, otherwise) for name in among or ENCODERS}
    best = max(quality_of, key=lambda name: quality_of[name])
    as_it_is = wanted.get("identity", 0.0)
    return best if quality_of[best] > 0 and quality_of[best] >= as_it_is else None


def _pieces(body: bytes | bytearray, encoding: str) -> Iterator[bytes]:
    """What a body becomes, a few MiB at a time."""
    try:
        yield from DECODERS[encoding](memoryview(body))
    except (zlib.error, zstandard.ZstdError) as error:
        raise MalformedBody(
            f"body: expected {encoding}, as Content-Encoding says: {error}"
        ) from None


def _zlib_pieces(data: memoryview, bits: int, name: str) -> Iterator[bytes]:
    stream, streams = zlib.decompressobj(bits), 1
    at = 0
    while at < len(data):
        if stream.eof:  # gzip may have several members
            stream, streams = zlib.decompressobj(bits), _count(streams)
        given = data[at : at + _ZLIB_INPUT_BYTES]
        piece = stream.decompress(given, _PIECE_BYTES)
        at += len(given) - len(stream.unconsumed_tail) - len(stream.unused_data)
        if piece:
            yield piece
    while not stream.eof:
        piece = stream.decompress(b"", _PIECE_BYTES)
        if not piece:
            raise _ends_early(name)
        yield piece


def _gzip_pieces(data: memoryview) -> Iterator[bytes]:
    return _zlib_pieces(data, _GZIP_BITS, "gzip")


def _deflate_pieces(data: memoryview) -> Iterator[bytes]:
    return _zlib_pieces(data, _DEFLATE_BITS, "deflate")


def _zstd_pieces(data: memoryview) -> Iterator[bytes]:
    context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    stream, streams = context.decompressobj(), 1
    at = 0
    while at < len(data):
        if stream.eof:  # there may be several frames
            stream, streams = context.decompressobj(), _count(streams)
        given = data[at : at + _ZSTD_INPUT_BYTES]
        piece = stream.decompress(given)
        at += len(given) - len(stream.unused_data)
        if piece:
            yield piece
    if not stream.eof:
        raise _ends_early("zstd")


def _count(streams: int) -> int:
    if streams == _MAX_STREAMS:
        raise MalformedBody(f"body: expected at most {_MAX_STREAMS} compressed streams in one body")
    return streams + 1


def _ends_early(name: str) -> MalformedBody:
    return MalformedBody(f"body: expected {name} to its end, and it ends before; send it whole")


def _gzip(body: bytes) -> bytes:
    stream = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_BITS)
    return stream.compress(body) + stream.flush()


def _zstd(body: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(body)


DECODERS: dict[str, Callable[[memoryview], Iterator[bytes]]] = {
    "gzip": _gzip_pieces,
    "zstd": _zstd_pieces,
    "deflate": _deflate_pieces,
}
ENCODERS: dict[str, Callable[[bytes], bytes]] = {"zstd": _zstd, "gzip": _gzip}
