"""What stands before a body: methods, media types, keys, ids, traces, patience."""

# The bytes of an answer stand on one line.
# ruff: noqa: E501

import gzip
import json
import zlib
from collections.abc import Callable

import zstandard

from tests.contract.case import (
    MADE,
    PNG,
    PROBLEM,
    Case,
    ExpectedResponse,
    InV2,
    NotInV2,
    ok,
    problem,
)
from tests.fixtures import case_folder

_X = {"model": "line", "x": [[2, 4, 6]]}
_GOOD = ok(b'{"model":"line","version":"3","z":[[1.0,2.0,3.0]],"log_det":[-0.25]}')
_WITH_ANOTHER_ID = ok(
    b'{"model":"line","version":"3","z":[[1.0,2.0,3.0]],"log_det":[-0.25]}', x_request_id=MADE
)
_KEYS = {"api_keys": ("a-key-of-16-characters", "another-key-of-16-characters")}
# Those have no limits; the file's do.
_LIMITED = {**_KEYS, "api_key_file": str(case_folder("contract", "keys") / "keys.toml")}
_PAGES = {"cors_origins": ("https://example.org",)}
_NO_ACCEPT = NotInV2("Accept is not looked at there")


def _encode(name: str, answer: object, *, body: object = _X, **more: object) -> Case:
    return Case(name, "encode", body, answer, **more)


_MEGABYTES = gzip.compress(bytes(2 * 10**6))
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "zstd": zstandard.compress,
    "deflate": zlib.compress,
    "Identity": bytes,
}


def _compressed(encoding: str, compress: Callable[[bytes], bytes]) -> Case:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [2, 4, 6]}
    return _encode(
        f"{encoding} body",
        _GOOD,
        body=compress(json.dumps(_X).encode()),
        headers={"Content-Encoding": encoding},
        v2=InV2(compress(json.dumps({"inputs": [tensor]}).encode())),
    )


CASES = [
    # Methods
    _encode("GET", problem("method_not_allowed", "GET: expected POST", allow="POST"), method="GET"),
    _encode(
        "HEAD",
        ExpectedResponse(405, b"", {"content-type": PROBLEM, "allow": "POST"}),
        method="HEAD",
    ),
    _encode("PUT", problem("method_not_allowed", "PUT: expected POST", allow="POST"), method="PUT"),
    Case(
        "GET sample",
        "sample",
        {},
        problem("method_not_allowed", "GET: expected POST", allow="POST"),
        method="GET",
    ),
    # Content-Type
    _encode(
        "form",
        problem(
            "unsupported_media_type",
            "Content-Type: expected application/json or application/x-npy or application/x-npz or image/png or image/jpeg, got 'application/x-www-form-urlencoded'; curl names it where it is told no other: add -H 'Content-Type: application/json', or application/x-npy for an array",
        ),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    ),
    _encode(
        "latin-1",
        problem("unsupported_media_type", "Content-Type: expected UTF-8, got 'latin-1'"),
        headers={"Content-Type": "application/json; charset=latin-1"},
    ),
    _encode(
        "utf-8",
        _GOOD,
        headers={"Content-Type": "application/json; charset=utf-8"},
    ),
    _encode(
        "no content type",
        _GOOD,
        headers={"Content-Type": None},
    ),
    _encode(
        "not compressed",
        problem(
            "malformed_body",
            "body: expected gzip, as Content-Encoding says: Error -3 while decompressing data: incorrect header check",
        ),
        headers={"Content-Encoding": "gzip"},
    ),
    _encode(
        "brotli",
        problem(
            "unsupported_media_type",
            "Content-Encoding: expected one of gzip, zstd, deflate, got 'br'; send the body in one "
            "of them, or as it is",
        ),
        headers={"Content-Encoding": "br"},
    ),
    *(_compressed(encoding, compress) for encoding, compress in COMPRESSORS.items()),
    _encode(
        "decompressed beyond the limit",
        problem(
            "too_large",
            f"body: expected at most 1000000 bytes once it is decompressed (gzip, {len(_MEGABYTES)} bytes came); send the rows in several requests",
        ),
        headers={"Content-Encoding": "gzip"},
        settings={"max_body_bytes": 10**6},
        body=_MEGABYTES,
    ),
    _encode(
        "multipart",
        problem(
            "unsupported_media_type",
            "Content-Type: expected application/json or application/x-npy or application/x-npz or image/png or image/jpeg, got 'multipart/form-data'",
        ),
        headers={"Content-Type": "multipart/form-data"},
    ),
    # Accept
    _encode(
        "csv wanted",
        problem(
            "not_acceptable",
            "Accept: this call answers with application/json or application/x-npy or application/x-npz, got 'text/csv'",
        ),
        headers={"Accept": "text/csv"},
        v2=_NO_ACCEPT,
    ),
    _encode(
        "anything wanted",
        _GOOD,
        headers={"Accept": "*/*"},
        v2=_NO_ACCEPT,
    ),
    _encode(
        "JSON wanted most",
        _GOOD,
        headers={"Accept": "application/x-npy;q=0.5, application/json"},
        v2=_NO_ACCEPT,
    ),
    _encode(
        "picture wanted",
        problem(
            "not_acceptable",
            "Accept: this call answers with application/json or application/x-npy or application/x-npz, got 'image/png'",
        ),
        headers={"Accept": PNG},
        v2=_NO_ACCEPT,
    ),
    # Keys
    _encode(
        "no key",
        problem(
            "unauthorized",
            "this server wants a key: send Authorization: Bearer KEY, or X-API-Key: KEY",
            www_authenticate='Bearer realm="pushforward"',
        ),
        settings=_KEYS,
    ),
    _encode(
        "wrong key",
        problem(
            "unauthorized",
            "the key is not one of this server's",
            www_authenticate='Bearer realm="pushforward", error="invalid_token"',
        ),
        settings=_KEYS,
        headers={"X-API-Key": "a-key-of-16-character"},
    ),
    _encode(
        "wrong bearer",
        problem(
            "unauthorized",
            "the key is not one of this server's",
            www_authenticate='Bearer realm="pushforward", error="invalid_token"',
        ),
        settings=_KEYS,
        headers={"Authorization": "Bearer nothing"},
    ),
    _encode(
        "basic",
        problem(
            "unauthorized",
            "this server wants a key: send Authorization: Bearer KEY, or X-API-Key: KEY",
            www_authenticate='Bearer realm="pushforward"',
        ),
        settings=_KEYS,
        headers={"Authorization": "Basic YTpi"},
    ),
    _encode(
        "key",
        _GOOD,
        settings=_KEYS,
        headers={"X-API-Key": "a-key-of-16-characters"},
    ),
    _encode(
        "bearer",
        _GOOD,
        settings=_KEYS,
        headers={"Authorization": "Bearer another-key-of-16-characters"},
    ),
    _encode(
        "key nobody asks for",
        _GOOD,
        headers={"X-API-Key": "nothing"},
    ),
    _encode(
        "GET without key",
        problem(
            "unauthorized",
            "this server wants a key: send Authorization: Bearer KEY, or X-API-Key: KEY",
            www_authenticate='Bearer realm="pushforward"',
        ),
        method="GET",
        settings=_KEYS,
    ),
    # Limits of keys
    _encode(
        "key of a file",
        _GOOD,
        settings=_LIMITED,
        headers={"X-API-Key": "a-key-with-room-for-all"},
    ),
    _encode(
        "key beside a file",
        _GOOD,
        settings=_LIMITED,
        headers={"Authorization": "Bearer another-key-of-16-characters"},
    ),
    _encode(
        "more rows than the key ever may",
        problem(
            "too_large_for_key",
            "key small: rows_per_second is 2, so a request may have 2 rows, got 3: send fewer at a time",
            members={"key": "small", "limit": "rows_per_second", "allowed": 2.0},
        ),
        body={"model": "line", "x": [[2, 4, 6]] * 3},
        settings=_LIMITED,
        headers={"X-API-Key": "a-key-of-two-rows-a-second"},
    ),
    # Ids and traces
    _encode(
        "id of one character",
        _GOOD,
        headers={"X-Request-Id": "!"},
    ),
    _encode(
        "id of 128 characters",
        _GOOD,
        headers={"X-Request-Id": "i" * 128},
    ),
    _encode(
        "no id",
        _WITH_ANOTHER_ID,
        headers={"X-Request-Id": None},
    ),
    _encode(
        "id too long",
        _WITH_ANOTHER_ID,
        headers={"X-Request-Id": "i" * 129},
    ),
    _encode(
        "id with a space",
        _WITH_ANOTHER_ID,
        headers={"X-Request-Id": "a b"},
    ),
    _encode(
        "traceparent",
        _GOOD,
        headers={"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
    ),
    _encode(
        "traceparent malformed",
        _GOOD,
        headers={"traceparent": "00-xyz"},
    ),
    # Patience
    _encode(
        "patience",
        _GOOD,
        headers={"X-Timeout-Seconds": "7.5"},
    ),
    _encode(
        "patience in words",
        problem("invalid_parameter", "X-Timeout-Seconds: expected a number of seconds, as 2.5"),
        headers={"X-Timeout-Seconds": "soon"},
    ),
    _encode(
        "patience -1",
        problem("invalid_parameter", "X-Timeout-Seconds: expected a number of seconds, as 2.5"),
        headers={"X-Timeout-Seconds": "-1"},
    ),
    _encode(
        "patience nan",
        problem("invalid_parameter", "X-Timeout-Seconds: expected a number of seconds, as 2.5"),
        headers={"X-Timeout-Seconds": "nan"},
    ),
    _encode(
        "patience 1e3",
        problem("invalid_parameter", "X-Timeout-Seconds: expected a number of seconds, as 2.5"),
        headers={"X-Timeout-Seconds": "1e3"},
    ),
    _encode(
        "patience 1_0",
        problem("invalid_parameter", "X-Timeout-Seconds: expected a number of seconds, as 2.5"),
        headers={"X-Timeout-Seconds": "1_0"},
    ),
    _encode(
        "patience empty",
        problem("invalid_parameter", "X-Timeout-Seconds: expected a number of seconds, as 2.5"),
        headers={"X-Timeout-Seconds": ""},
    ),
    _encode(
        "patience of 400 digits",
        problem("invalid_parameter", "X-Timeout-Seconds: expected a number of seconds, as 2.5"),
        headers={"X-Timeout-Seconds": "9" * 400},
    ),
    _encode(
        "patience 0",
        problem("deadline_exceeded", "the deadline had passed on arrival"),
        headers={"X-Timeout-Seconds": "0"},
    ),
    # Pages of other origins
    _encode(
        "page",
        ok(
            b'{"model":"line","version":"3","z":[[1.0,2.0,3.0]],"log_det":[-0.25]}',
            access_control_expose_headers="Inference-Header-Content-Length, Retry-After, X-Request-Id, Server-Timing, X-Model, X-Model-Version, X-Seed, X-Calibration, X-Heat-Map-Scale, X-Failures, X-Failed-Rows, X-Non-Finite, X-Log_Prob_Se_Reason",
            access_control_allow_origin="https://example.org",
            vary="Origin",
        ),
        settings=_PAGES,
        headers={"Origin": "https://example.org"},
    ),
    _encode(
        "page of a stranger",
        ok(
            b'{"model":"line","version":"3","z":[[1.0,2.0,3.0]],"log_det":[-0.25]}',
            access_control_expose_headers="Inference-Header-Content-Length, Retry-After, X-Request-Id, Server-Timing, X-Model, X-Model-Version, X-Seed, X-Calibration, X-Heat-Map-Scale, X-Failures, X-Failed-Rows, X-Non-Finite, X-Log_Prob_Se_Reason",
            vary="Origin",
        ),
        settings=_PAGES,
        headers={"Origin": "https://other.org"},
    ),
    _encode(
        "page nobody asked for",
        ok(b'{"model":"line","version":"3","z":[[1.0,2.0,3.0]],"log_det":[-0.25]}'),
        headers={"Origin": "https://example.org"},
    ),
]
