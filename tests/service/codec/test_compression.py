"""Compressed bodies: what they become, and what is refused before it is kept."""

import gzip
import zlib
from collections.abc import Callable

import pytest
import zstandard

from service.codec.compression import ENCODERS, choose_encoding, measure
from service.codec.compression import decompress as decompress_whole
from service.errors import MalformedBody, TooLarge

TEXT = b"[0.125, -3.5], " * 1_000_000  # more than is kept in the first pass


def decompress(body: bytes, encoding: str, max_bytes: int) -> bytes:
    size, kept = measure(body, encoding, max_bytes)
    whole = decompress_whole(body, encoding)
    assert size == len(whole)
    assert kept in (None, whole)
    return whole


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1),
    "zstd": zstandard.compress,
    "deflate": zlib.compress,
}


@pytest.mark.parametrize("encoding", COMPRESS)
def test_a_body_is_what_was_compressed(encoding: str) -> None:
    for text in (b"", TEXT[:100], TEXT):
        assert decompress(COMPRESS[encoding](text), encoding, len(TEXT)) == text


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_several_streams_are_one_body(encoding: str) -> None:
    body = COMPRESS[encoding](TEXT[:7]) + COMPRESS[encoding](b"") + COMPRESS[encoding](TEXT[7:99])
    assert decompress(body, encoding, len(TEXT)) == TEXT[:99]
    with pytest.raises(MalformedBody, match="at most 65536 compressed streams"):
        decompress(COMPRESS[encoding](b"") * 70_000, encoding, len(TEXT))


@pytest.mark.parametrize("encoding", COMPRESS)
def test_what_is_cut_or_followed_by_more_is_malformed(encoding: str) -> None:
    body = COMPRESS[encoding](TEXT)
    for cut in (body[:-1], body[: len(body) // 2], body[:3], b""):
        with pytest.raises(MalformedBody, match=f"expected {encoding}"):
            decompress(cut, encoding, len(TEXT))
    with pytest.raises(MalformedBody, match=f"expected {encoding}"):
        decompress(body + b"more", encoding, len(TEXT))


@pytest.mark.parametrize("encoding", COMPRESS)
def test_a_byte_beyond_the_limit_is_too_much(encoding: str) -> None:
    body = COMPRESS[encoding](TEXT)
    with pytest.raises(TooLarge, match=f"at most {len(TEXT) - 1} bytes once it is decompressed"):
        decompress(body, encoding, len(TEXT) - 1)


def test_a_window_that_asks_for_memory_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    body = stream.compress(TEXT[:1000]) + stream.flush()
    with pytest.raises(MalformedBody, match="memory"):
        decompress(body, "zstd", len(TEXT))


@pytest.mark.parametrize("encoding", ENCODERS)
def test_answers_are_compressed_so_that_clients_read_them(encoding: str) -> None:
    assert decompress(ENCODERS[encoding](TEXT), encoding, len(TEXT)) == TEXT


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, None),
        (b"", None),
        (b"br", None),
        (b"identity", None),
        (b"gzip, deflate", "gzip"),
        (b"gzip, deflate, br, zstd", "zstd"),
        (b"GZIP;q=1.0, zstd; q=0.5", "gzip"),
        (b"gzip;q=0, zstd;q=0", None),
        (b"zstd;q=0, *", "gzip"),
        (b"*;q=0.1", "zstd"),
        (b"identity, gzip;q=0.2", None),
    ],
)
def test_the_client_chooses(accept: bytes | None, chosen: str | None) -> None:
    assert choose_encoding(accept) == chosen
