"""Lines 1 to 9 and 11 to 13: bodies, their lengths and their fields."""

import gzip
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.e2e.test_hostile import (
    BODIES,
    NPY,
    PIXELS,
    PNG,
    ROWS,
    Canary,
    chunks,
    exchange,
    head,
    post,
    saved,
)
from tests.reliability.registry import Ground, expect, trial

JSON = "application/json"
SECONDS_TO_REFUSE = 5.0


def _refused(ground: Ground, cases: dict[str, tuple[str, str, bytes, tuple[int, ...]]]) -> str:
    """Send bodies and compare the status of each. -> how many of which status."""
    counts: dict[int, int] = {}
    for name, (path, media, body, wanted) in cases.items():
        began = time.monotonic()
        status, problem = post(ground.server, path, body, media or JSON)
        took = time.monotonic() - began
        expect(status in wanted, f"{name}: {status} {problem}, expected {wanted}")
        expect(took < SECONDS_TO_REFUSE, f"{name}: refused after {took:.1f} s")
        if status != 200:
            expect(problem["status"] == status and problem["detail"], f"{name}: {problem}")
            expect("Traceback" not in json.dumps(problem), f"{name}: {problem}")
        counts[status or 0] = counts.get(status or 0, 0) + 1
    return ", ".join(f"{count} x {status}" for status, count in sorted(counts.items()))


def _stored(*names: str) -> dict[str, tuple[str, str, bytes, tuple[int, ...]]]:
    return {name: (*BODIES[name][:3], (BODIES[name][3],)) for name in names}


def _json(content: object, path: str = "/encode") -> tuple[str, str, bytes]:
    return path, JSON, json.dumps(content).encode()


@trial(1, "body not JSON, truncated, with BOM, invalid UTF-8, no object", hostile=True)
def malformed(ground: Ground) -> str:
    return _refused(
        ground, _stored("text", "truncated", "byte_order_mark", "no_utf_8", "no_object")
    )


@trial(2, "JSON 10^5 deep, keys twice, an integer of 10^5 digits, 1e400", hostile=True)
def endless(ground: Ground) -> str:
    began = time.monotonic()
    post(ground.server, *BODIES["nested_deep"][:1], BODIES["nested_deep"][2])
    took = time.monotonic() - began
    expect(took < 1, f"10^5 deep: refused after {took:.2f} s")
    return _refused(ground, _stored("nested_deep", "key_twice", "long_integer", "1e400"))


@trial(3, "NaN and infinite tokens and tensors: refused, the row named", hostile=True)
def not_finite(ground: Ground) -> str:
    bad = np.zeros((3, 2), np.float32)
    bad[1, 0] = np.nan
    cases = {
        "NaN": ("/encode", JSON, b'{"model": "moons", "x": [[0, 1], [NaN, 1]]}', (422, 400)),
        "Infinity": ("/encode", JSON, b'{"model": "moons", "x": [[Infinity, 1]]}', (422, 400)),
        "null": ("/encode", JSON, b'{"model": "moons", "x": [[0, 1], [null, 1]]}', (422,)),
        "npy NaN": (ROWS, NPY, saved(bad), (422,)),
        "npy inf": (ROWS, NPY, saved(np.where(np.isnan(bad), np.inf, bad)), (422,)),
    }
    came = _refused(ground, cases)
    _, problem = post(ground.server, ROWS, saved(bad), NPY)
    expect("row 1" in problem["detail"] or "[1" in problem["detail"], problem)
    return f"{came}; {problem['detail']!r}"


@trial(4, "ragged, wrong rank, wrong D, no rows, no columns, shapes that lie", hostile=True)
def shapes(ground: Ground) -> str:
    v2 = "/v2/models/moons/infer"
    tensor: dict[str, Any] = {"name": "x", "datatype": "FP32"}
    cases = {
        name: (*_json({"model": "moons", "x": x}), (422,))
        for name, x in {
            "ragged": [[1, 2], [1]],
            "rank 1": [1, 2],
            "rank 3": [[[1, 2]]],
            "wide": [[1, 2, 3]],
            "no rows": [],
            "no columns": [[]],
        }.items()
    }
    for name, shape in {"2^63": [2**63 - 1, 2], "negative": [-1, 2], "lies": [3, 2]}.items():
        body = {"inputs": [{**tensor, "shape": shape, "data": [1, 2]}]}
        cases[f"V2 {name}"] = (*_json(body, v2), (422, 400))
    cases["npy of no rows"] = (ROWS, NPY, saved(np.zeros((0, 2), np.float32)), (422,))
    cases["npy wide"] = (ROWS, NPY, saved(np.zeros((1, 3), np.float32)), (422,))
    return _refused(ground, cases)


@trial(5, "npy of objects, complex, text, long double; big-endian and Fortran order", hostile=True)
def dtypes(ground: Ground) -> str:
    rows = np.array([[0.25, -1.0], [2.0, 0.5]])
    cases = {
        kind: (ROWS, NPY, saved(rows.astype(kind)), (415, 422))
        for kind in ("complex64", "U8", "S8")
    }
    cases["object"] = (ROWS, NPY, saved(rows.astype(object), allow_pickle=True), (415, 422))
    came = _refused(ground, cases)
    answers = []
    with ground.client() as http:
        for values in (rows, rows.astype(">f8"), np.asfortranarray(rows), rows.astype(">f4")):
            answer = http.post(
                ROWS, content=saved(values), headers={"Content-Type": NPY, "Accept": NPY}
            )
            expect(answer.status_code == 200, answer.text)
            answers.append(answer.content)
    expect(len(set(answers)) == 1, "byte order or layout changes the answer")
    return f"{came}; four byte orders and layouts: the same bytes"


@trial(6, "npy with a pickle, a shape that lies, a head of 1 MB", hostile=True)
def pickles(ground: Ground) -> str:
    canary = Canary(Path(ground.folder) / "canary")
    whole = saved(np.ones((2, 2), np.float32))
    long = b"\x93NUMPY\x02\x00" + (1 << 20).to_bytes(4, "little") + b" " * (1 << 20)
    cases = {
        "pickle": (ROWS, NPY, saved(np.array([[canary]], object), allow_pickle=True), (415,)),
        "short": (ROWS, NPY, whole[:-4], (400,)),
        "long head": (ROWS, NPY, long, (400, 413, 422)),
        "huge shape": (ROWS, NPY, whole.replace(b"(2, 2)", b"(9e9,)"), (400, 413, 422)),
    }
    came = _refused(ground, cases)
    expect(not canary.path.exists(), "the pickle ran")
    return f"{came}; nothing was unpickled"


def _image(mode: str, size: tuple[int, int], form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, form, **options)
    return stream.getvalue()


@trial(7, "npz, gzip and PNG bombs; pictures of other sizes and kinds", hostile=True)
def bombs(ground: Ground) -> str:
    frames = [Image.new("L", (28, 28), value) for value in (0, 9)]
    animated = io.BytesIO()
    frames[0].save(animated, "PNG", save_all=True, append_images=frames[1:])
    cases = _stored(
        "npz_of_4_gb", "npz_of_10_gb_that_lies", "png_65535", "png_1x1", "png_of_16_bit"
    )
    cases["png_65535"] = (*cases["png_65535"][:3], (413, 422))
    cases |= {
        "truncated": (PIXELS, PNG, _image("L", (28, 28), "PNG")[:-20], (400, 422)),
        "animated": (PIXELS, PNG, animated.getvalue(), (415, 422)),
        "CMYK": (PIXELS, "image/jpeg", _image("CMYK", (28, 28), "JPEG"), (415, 422)),
    }
    came = _refused(ground, cases)
    fields: dict[str, Any] = {"Content_Encoding": "gzip"}
    bomb = gzip.compress(bytes(10 << 20))
    status, _ = exchange(ground.server, head(Content_Length=len(bomb), **fields), bomb)
    expect(status in (413, 415), f"gzip bomb: {status}")
    return f"{came}; gzip {status}"


@trial(8, "bodies over the limit: by Content-Length, in chunks", hostile=True)
def too_long(ground: Ground) -> str:
    status, _ = exchange(ground.server, head(Content_Length=70_000_000))
    expect(status == 413, f"by length: {status}")
    chunked, _ = exchange(
        ground.server, head(Transfer_Encoding="chunked"), rest=chunks(bytes(1 << 20))
    )
    expect(chunked in (413, None), f"in chunks: {chunked}")
    return f"by length {status}, in chunks {chunked or 'closed'}, before the end"


@trial(9, "2 MB in one-byte chunks; lengths that contradict", hostile=True)
def one_byte_chunks(ground: Ground) -> str:
    pieces = [b"1\r\n \r\n" * 100_000] * 20
    fields: dict[str, Any] = {"Transfer_Encoding": "chunked"}
    found = [exchange(ground.server, head(**fields), *pieces, b"0\r\n\r\n")[0]]
    expect(found[0] in (400, 413), f"chunks: {found[0]}")
    contradictions: tuple[dict[str, Any], ...] = (
        {"Content_Length": -1},
        {"Content_Length": "2\r\nContent-Length: 3"},
        {"Content_Length": 2, "Transfer_Encoding": "chunked"},
    )
    for fields in contradictions:
        status, _ = exchange(ground.server, head(**fields), b"{}")
        expect(status == 400, f"{fields}: {status}")
        found.append(status)
    return f"chunks {found[0]}; lengths {found[1:]}"


@trial(11, "a head of 10 MB, 10^5 headers, a URL of 1 MB, 10^4 ranges, multipart", hostile=True)
def heads(ground: Ground) -> str:
    found = []
    for first, piece, count in (
        (b"POST /encode HTTP/1.1\r\nX-Long: ", b"x" * 1_000_000, 10),
        (b"POST /encode HTTP/1.1\r\n", b"a: b\r\n" * 10_000, 10),
        (b"GET /", b"x" * 1_000_000, 1),
    ):
        status, _ = exchange(ground.server, first, rest=[piece] * count)
        expect(status in (431, 414, None), status)
        found.append(status or "closed")
    ranges = "bytes=" + ",".join(f"{index}-{index}" for index in range(10_000))
    fields: dict[str, Any] = {"Range": ranges[:60_000]}
    status, _ = exchange(ground.server, head("/models/moons", method="GET", **fields))
    expect(status == 200, f"ranges: {status}")
    return f"heads {found}, ranges ignored, multipart {_refused(ground, _stored('multipart'))}"


@trial(12, "num_samples 0, -1, 1.5, true, '10', 10^12, the largest picture batch", hostile=True)
def counts(ground: Ground) -> str:
    cases = {
        f"{count!r}": (*_json({"model": "moons", "num_samples": count}, "/sample"), (422, 413))
        for count in (0, -1, 1.5, True, "10", 10**12)
    }
    huge = {"model": "digits-glow", "num_samples": 16_384}
    began = time.monotonic()
    status, _ = post(ground.server, "/sample", json.dumps(huge).encode())
    took = time.monotonic() - began
    expect(status == 413, f"16,384 pictures: {status}")
    expect(took < 0.5, f"16,384 pictures are refused after {took:.1f} s: they were drawn first")
    return f"{_refused(ground, cases)}; 16,384 pictures 413 after {1e3 * took:.0f} ms"


@trial(13, "temperature -1, 0, 1e308, NaN; seed -1, 2^64, 'x'", hostile=True)
def temperatures(ground: Ground) -> str:
    cases = {
        f"temperature {value}": (
            "/sample",
            JSON,
            b'{"model": "moons", "temperature": %s}' % value.encode(),
            (400, 422),
        )
        for value in ("-1", "1e308", "NaN")
    }
    for seed in ("-1", str(2**64), '"x"'):
        body = b'{"model": "moons", "seed": %s}' % seed.encode()
        cases[f"seed {seed}"] = ("/sample", JSON, body, (400, 422))
    came = _refused(ground, cases)
    body = {"model": "moons", "num_samples": 2, "temperature": 0}
    with ground.client() as http:
        drawn = http.post("/sample", json=body).json()["x"]
        mode = http.post("/decode", json={"model": "moons", "z": [[0, 0]]}).json()["x"][0]
    expect(np.allclose(drawn, mode, atol=1e-6), f"temperature 0: {drawn}, mode {mode}")
    return f"{came}; temperature 0 is the decoded mode of the base"
