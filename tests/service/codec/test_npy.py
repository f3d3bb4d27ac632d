"""npy and npz: every honest file, and a table of others."""

import io
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.codec.npy import read_npy, read_npz, write_npy, write_npz
from service.errors import ServiceError

DTYPES = ("<f2", "<f4", "<f8", ">f4", ">f8", "i1", "<i2", ">i4", "<i8", "u1", "<u2", ">u4", "<u8")
LIMIT = 1 << 20


def saved(values: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, **options)
    return buffer.getvalue()


def headed(header: str, payload: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode() + b"\n"
    length = struct.pack("<H" if version[0] == 1 else "<I", len(text))
    return b"\x93NUMPY" + version + length + text + payload


def header(descr: str = "'<f4'", order: str = "False", shape: str = "(1, 2)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@given(
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, max_side=3))
    ),
    st.booleans(),
)
def test_what_numpy_saves_is_read(values: Any, is_fortran: bool) -> None:
    values = np.asfortranarray(values) if is_fortran else values
    read = read_npy(saved(values), "x")
    assert read.dtype == values.dtype
    np.testing.assert_array_equal(read, values)


@given(arrays.arrays(np.float32, arrays.array_shapes(max_dims=4, max_side=3)))
def test_what_is_written_numpy_loads(values: Any) -> None:
    loaded = np.load(io.BytesIO(write_npy(values)), allow_pickle=False)
    assert loaded.dtype == values.dtype
    np.testing.assert_array_equal(loaded, values)


def test_written_bytes_are_those_of_numpy() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert write_npy(values) == saved(values)


@pytest.mark.parametrize("version", [b"\x01\x00", b"\x02\x00", b"\x03\x00"])
def test_all_versions_and_key_orders_are_read(version: bytes) -> None:
    text = "{'shape': (1, 2), 'descr': '<f4', 'fortran_order': False}"
    body = headed(text, np.array([3, 4], np.float32).tobytes(), version)
    assert read_npy(body, "x").tolist() == [[3, 4]]


def test_long_bodies_may_come_as_bytearrays() -> None:
    values = np.ones((3, 2), np.float32)
    assert read_npy(bytearray(saved(values)), "x").tolist() == values.tolist()


PAYLOAD = np.array([1, 2], np.float32).tobytes()
WRONG: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 400, "malformed_body"),
    "text": (b"hello, world, this is no tensor", 400, "malformed_body"),
    "magic alone": (b"\x93NUMPY", 400, "malformed_body"),
    "version 9": (headed(header(), PAYLOAD, b"\x09\x00"), 400, "malformed_body"),
    "truncated header": (saved(np.ones((1, 2)))[:40], 400, "malformed_body"),
    "truncated payload": (saved(np.ones((1, 2)))[:-1], 400, "malformed_body"),
    "payload too long": (saved(np.ones((1, 2))) + b"\0", 400, "malformed_body"),
    "header of 1 MB": (headed(" " * (1 << 20), version=b"\x02\x00"), 400, "malformed_body"),
    "header announces 4 GB": (
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + PAYLOAD,
        400,
        "malformed_body",
    ),
    "shape lies": (headed(header(shape="(1000000, 2)"), PAYLOAD), 400, "malformed_body"),
    "shape overflows": (
        headed(header(shape=f"({2**63}, {2**63})"), PAYLOAD),
        400,
        "malformed_body",
    ),
    "negative shape": (headed(header(shape="(-1, 2)"), PAYLOAD), 400, "malformed_body"),
    "shape of booleans": (headed(header(shape="(True, 2)"), PAYLOAD), 400, "malformed_body"),
    "shape is a list": (headed(header(shape="[1, 2]"), PAYLOAD), 400, "malformed_body"),
    "empty axis": (headed(header(shape=f"(0, {2**70})")), 422, "shape_mismatch"),
    "order is a number": (headed(header(order="0"), PAYLOAD), 400, "malformed_body"),
    "header is code": (headed("__import__('os').getcwd()"), 400, "malformed_body"),
    "header is no dict": (headed("[1, 2]"), 400, "malformed_body"),
    "header has more keys": (headed(header()[:-1] + "'x': 1}", PAYLOAD), 400, "malformed_body"),
    "header lacks a key": (headed("{'descr': '<f4', 'shape': ()}"), 400, "malformed_body"),
    "header nested deep": (headed("(" * 900), 400, "malformed_body"),
    "header is not ascii": (headed(header("'é'")), 400, "malformed_body"),
    "complex": (saved(np.zeros((1, 2), complex)), 422, "bad_dtype"),
    "boolean": (saved(np.zeros((1, 2), bool)), 422, "bad_dtype"),
    "string": (saved(np.array([["a", "b"]])), 422, "bad_dtype"),
    "bytes": (saved(np.array([[b"a", b"b"]])), 422, "bad_dtype"),
    "date": (saved(np.zeros((1, 2), "M8[s]")), 422, "bad_dtype"),
    "structured": (saved(np.zeros((1,), [("a", "f4"), ("b", "f4")])), 422, "bad_dtype"),
    "structured as text": (headed(header("'f4,f4'")), 422, "bad_dtype"),
    "longdouble": (headed(header("'<f16'", shape="(1, 2)"), bytes(32)), 422, "bad_dtype"),
    "pickled objects": (
        saved(np.array([[{}, []]], object), allow_pickle=True),
        415,
        "unsupported_media_type",
    ),
}


@pytest.mark.parametrize(("body", "status", "code"), WRONG.values(), ids=WRONG)
def test_everything_else_is_refused(body: bytes, status: int, code: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ServiceError, match="x: ") as caught:
            read_npy(body, "x")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert (caught.value.status, caught.value.code) == (status, code)


class _Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickled_code_is_never_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    body = saved(np.array([_Canary(canary)], object), allow_pickle=True)
    for hostile in (body, zipped({"x.npy": body}), pickle.dumps(_Canary(canary))):
        with pytest.raises(ServiceError):
            read_npz(hostile, ("x",), LIMIT)
        with pytest.raises(ServiceError):
            read_npy(hostile, "x")
    assert not canary.exists()


# Archives


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives_of_numpy_are_read(save: Any) -> None:
    buffer = io.BytesIO()
    x, context = np.ones((2, 3), np.float32), np.array([0, 1])
    save(buffer, x=x, context=context)
    read = read_npz(buffer.getvalue(), ("x", "context"), LIMIT)
    np.testing.assert_array_equal(read["x"], x)
    np.testing.assert_array_equal(read["context"], context)


def test_archives_written_numpy_loads() -> None:
    arrays_ = {"z": np.ones((2, 3), np.float32), "seed": np.array(2**64 - 1)}
    body = write_npz(arrays_)
    with np.load(io.BytesIO(body), allow_pickle=False) as loaded:
        assert set(loaded.files) == {"z", "seed"}
        np.testing.assert_array_equal(loaded["z"], arrays_["z"])
        assert int(loaded["seed"]) == 2**64 - 1
    assert write_npz(arrays_) == body, "the same answer is the same bytes"


X = saved(np.ones((1, 2), np.float32))


def encrypted() -> bytes:
    body = bytearray(zipped({"x.npy": X}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        body[body.index(signature) + offset] |= 1
    return bytes(body)


def zip64() -> bytes:
    """An archive whose directory is described by ZIP64 records too, which a reader prefers."""
    body = zipped({"x.npy": X})
    rest, end = body[:-22], body[-22:]
    size, offset = struct.unpack_from("<II", end, 12)
    record = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, size, offset)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, len(rest), 1)
    return rest + record + locator + end


WRONG_ARCHIVES: dict[str, tuple[bytes, int]] = {
    "empty": (b"", 400),
    "npy": (X, 400),
    "truncated": (zipped({"x.npy": X})[:-30], 400),
    "end record alone": (b"PK\x05\x06" + bytes(18), 200),
    "directory announces 4 GB": (b"PK\x05\x06" + bytes(8) + b"\xff" * 4 + bytes(6), 400),
    "zip64": (zip64(), 400),
    "a thousand members": (zipped({f"{n}.npy": b"" for n in range(1000)}), 400),
    "unknown member": (zipped({"y.npy": X}), 422),
    "path as member": (zipped({"../../x.npy": X}), 422),
    "member that is no npy": (zipped({"x.npy": b"hello"}), 400),
    "bzip2": (zipped({"x.npy": X}, zipfile.ZIP_BZIP2), 415),
    "lzma": (zipped({"x.npy": X}, zipfile.ZIP_LZMA), 415),
    "encrypted": (encrypted(), 415),
    "damaged": (zipped({"x.npy": X}).replace(X[-8:], b"\x01" * 8, 1), 400),
    "bomb": (zipped({"x.npy": bytes(64 << 20)}, zipfile.ZIP_DEFLATED), 413),
    "bomb in two": (
        zipped(
            {name: saved(np.zeros(LIMIT // 2, np.uint8)) for name in ("context.npy", "x.npy")},
            zipfile.ZIP_DEFLATED,
        ),
        413,
    ),
}


@pytest.mark.parametrize(("body", "status"), WRONG_ARCHIVES.values(), ids=WRONG_ARCHIVES)
def test_other_archives_are_refused_without_inflating_them(body: bytes, status: int) -> None:
    tracemalloc.start()
    try:
        if status == 200:
            assert read_npz(body, ("x", "context"), LIMIT) == {}
            return
        with pytest.raises(ServiceError) as caught:
            read_npz(body, ("x", "context"), LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 4 * LIMIT
    finally:
        tracemalloc.stop()
    assert caught.value.status == status
