"""Files of torch.save and pickle.dump, read by `pickles` into inert values and tensors.

Three forms: the zip file (a pickle, and one entry a storage), the older stream (five pickles, then
the storages), and a plain pickle, in which every storage is such a stream of its own.
"""

import io
import math
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from models.importers.inert import Malformed, Symbol
from models.importers.inert import make as make_inert
from models.importers.pickles import Interpreter, Refused

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_DTYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "Untyped": torch.uint8,
}


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds, and which names its pickle has."""

    value: Any
    names: frozenset[str]


def read_file(path: Path, *, every_name: bool = False) -> Content:
    """Read a file of any of the three forms; nothing that it names is imported or called.

    Args:
        path: the file.
        every_name: take names that are not on the allow-list too, as inert values.

    Raises:
        Refused: if it names what is not on the allow-list.
        Malformed: if it is none of the three, or damaged.
    """
    try:
        with warnings.catch_warnings():
            # Text of Python 2 with a wrong escape in it: the values are what matters.
            warnings.simplefilter("ignore", DeprecationWarning)
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    return _read_zip(archive, every_name=every_name)
            return _read_stream(path.read_bytes(), depth=0, every_name=every_name)
    except (Refused, Malformed):
        raise
    except (ValueError, TypeError, LookupError, OverflowError, RuntimeError) as error:
        raise Malformed(str(error).partition("\n")[0]) from None


def _read_zip(archive: zipfile.ZipFile, *, every_name: bool) -> Content:
    pickled = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
    if pickled is None:
        raise Malformed("a zip file without data.pkl")
    root = pickled.removesuffix("data.pkl")
    if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
        raise Malformed("numbers in another byte order than this machine's")

    @cache  # tensors that view one storage share it
    def whole(key: str, dtype: torch.dtype) -> Tensor:
        info = archive.getinfo(f"{root}data/{key}")
        if info.compress_type != zipfile.ZIP_STORED:
            raise Malformed(f"storage {key} is not as long as it says")
        return _numbers(archive.read(info), dtype, info.file_size // dtype.itemsize)

    def load(key: str, dtype: torch.dtype, numel: int) -> Tensor:
        storage = whole(key, dtype)
        if storage.numel() < numel:
            raise Malformed(f"storage {key} is not as long as it says")
        return storage[:numel]

    reader = _Reader(load, every_name=every_name)
    with archive.open(pickled) as file:
        value = reader.interpreter.read(io.BytesIO(file.read()))
    return Content(value, frozenset(reader.interpreter.names))


def _read_stream(data: bytes, *, depth: int, every_name: bool = False) -> Content:
    """The older form of torch.save, or a plain pickle."""
    file = io.BytesIO(data)
    storages: dict[str, Tensor] = {}
    left = len(data)

    def reserve(key: str, dtype: torch.dtype, numel: int) -> Tensor:
        nonlocal left
        if key not in storages:
            left -= numel * dtype.itemsize
            if left < 0:
                raise Malformed(f"storage {key} is longer than what is left of the file")
            storages[key] = torch.zeros(numel, dtype=dtype)
        return storages[key]

    reader = _Reader(reserve, depth=depth, every_name=every_name)
    first = reader.interpreter.read(file)
    if not isinstance(first, int) or first != _MAGIC:
        return Content(first, frozenset(reader.interpreter.names))
    if reader.interpreter.read(file) != _VERSION:
        raise Malformed("an unknown version of torch.save")
    reader.interpreter.read(file)  # sizes of integers where it was written
    value = reader.interpreter.read(file)
    for key in reader.interpreter.read(file):
        _fill(storages[str(key)], file)
    return Content(value, frozenset(reader.interpreter.names))


def _fill(storage: Tensor, file: IO[bytes]) -> None:
    """Read the numbers of a storage, behind their count."""
    count = int.from_bytes(file.read(8), "little")
    if count != storage.numel():
        raise Malformed("a storage of another length than its tensors say")
    data = file.read(count * storage.element_size())
    storage.copy_(_numbers(data, storage.dtype, count))


def _numbers(data: bytes, dtype: torch.dtype, numel: int) -> Tensor:
    if len(data) < numel * dtype.itemsize:
        raise Malformed("it ends in the middle of a tensor")
    if not numel:
        return torch.zeros(0, dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=dtype, count=numel)


class _Reader:
    """An interpreter that knows tensors.

    Args:
        load: gives the numbers of a storage by key, dtype and count.
        depth: how many files this one is inside of.
        every_name: as `read_file`.
    """

    def __init__(
        self,
        load: Callable[[str, torch.dtype, int], Tensor],
        *,
        depth: int = 0,
        every_name: bool = False,
    ) -> None:
        self._load = load
        self._depth = depth
        self.interpreter = Interpreter(self._make, self._storage, every_name=every_name)

    def _storage(self, pid: Any) -> Tensor | Symbol:
        if isinstance(pid, tuple) and pid[:1] == ("module",) and isinstance(pid[1], Symbol):
            return pid[1]  # the class of a module, with its source code behind it
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise Malformed("a persistent id of another kind than torch's")
        _, kind, key, _, numel, *view = pid
        if view not in ([], [None]):
            raise Malformed("a view of a storage, as torch 0.3 and older write it")
        if not isinstance(kind, Symbol) or not isinstance(numel, int) or numel < 0:
            raise Malformed("a storage without a type or a length")
        name = kind.name.rpartition(".")[2].removesuffix("Storage")
        if name not in _DTYPES:
            raise Malformed(f"a storage of type {kind.name}")
        return self._load(str(key), _DTYPES[name], numel)

    def _make(self, symbol: Any, args: Any) -> Any:
        if not isinstance(symbol, Symbol) or not isinstance(args, tuple):
            raise Malformed("a call of something that is no name")
        match symbol.name.rpartition(".")[2]:
            case "_rebuild_tensor" | "_rebuild_tensor_v2":
                return _tensor(*args[:4])
            case "_rebuild_tensor_v3":
                raise Malformed(f"a tensor of type {getattr(args[-1], 'name', 'unknown')}")
            case "_rebuild_parameter" | "_rebuild_parameter_with_state":
                return args[0]
            case "_rebuild_from_type_v2":
                return self._make(args[0], args[2])
            case "_load_from_bytes":
                return self._nested(args[0])
        return make_inert(symbol, args)

    def _nested(self, data: Any) -> Any:
        if self._depth or not isinstance(data, bytes):
            raise Malformed("a file inside a file inside a file")
        return _read_stream(data, depth=self._depth + 1).value


def _tensor(storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
    """A view of a storage, all of it inside."""
    whole = [offset, *size, *stride]
    if not isinstance(storage, Tensor) or not all(_is_count(number) for number in whole):
        raise Malformed("a tensor without a storage, or of an impossible shape")
    if len(size) != len(stride):
        raise Malformed("a tensor with more sizes than strides")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if math.prod(size) and last >= storage.numel():
        raise Malformed("a tensor that reaches beyond its storage")
    return torch.as_strided(storage, size, stride, offset)


def _is_count(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 0
