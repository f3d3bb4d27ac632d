"""What a pickle may name, and the inert value that each name becomes: an allow-list.

Nothing here imports a name or calls it: a name is text, and what stands for it is made by the
functions below out of numbers, strings and tensors. What is not listed is refused.
"""

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np

# Python 2 and numpy 1 have other names for the same.
_OLD_NAMES = {"__builtin__.": "builtins.", "copy_reg.": "copyreg.", "numpy.core.": "numpy._core."}
# Classes and functions that become records: their arguments and state are kept, unread. Whole
# packages where these hold data alone (random generators, omegaconf's nodes, dates).
_RECORDS = re.compile(
    r"numpy\.(random\.[\w.]+|ndarray|generic|void|(bool|str|bytes|u?int|float|complex)\w*)"
    r"|numpy\.dtypes\.\w+"
    r"|omegaconf\.[\w.]+"
    r"|datetime\.\w+|uuid\.(UUID|SafeUUID)|decimal\.Decimal|fractions\.Fraction"
    r"|builtins\.(object|list|dict|str|int|long|unicode|float|bool|tuple|bytes|slice|range|NoneType)"
    r"|typing\.(Any|List|Dict|Tuple|Union|Optional)"
    r"|torch\.(device|Generator|dtype|Tensor|nn\.parameter\.Parameter|serialization\._get_layout)"
    r"|torch\.(b?float|int|uint|bool|complex|double|half|long|short)\w*"
    r"|torch\.(storage\.)?(Typed|Untyped|[A-Z]\w+)Storage"
    # Flows of pzflow, and the functions that stand beside their numbers by name.
    r"|pzflow\.[\w.]+"
)
_DTYPE = re.compile(r"[<>=|]?[biufc?](1|2|4|8|16)?|[<>=|]?[SU]\d{1,6}")


class Malformed(ValueError):
    """A pickle that no writer of data makes."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """The name of a class or function, and nothing but the name."""

    name: str


_KEYS = (str, int, float, bool, bytes, type(None), Symbol)


@dataclass(eq=False, slots=True)
class Record:
    """What an object of a listed class was made from; no code of that class has run."""

    name: str
    args: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Dtype:
    """A numpy dtype by its code; `build` adds the byte order."""

    code: str

    def build(self, state: Any) -> None:
        """Take (version, byte order, subdtype, names, fields, ...)."""
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "=", "|"):
            raise Malformed("the state of a numpy dtype")
        if state[2] is not None or state[3] is not None:
            self.code = ""  # a structured dtype: its arrays hold no weights
        elif state[1] in "<>" and self.code:
            self.code = state[1] + self.code.lstrip("<>=|")

    def plain(self) -> np.dtype[Any] | None:
        """The dtype, if it is one of plain numbers or strings."""
        return np.dtype(self.code) if _DTYPE.fullmatch(self.code) else None


@dataclass(eq=False, slots=True)
class Array:
    """A numpy array; `value` is None where it holds something other than numbers or strings."""

    value: np.ndarray[Any, Any] | None = None

    def build(self, state: Any) -> None:
        """Take (version, shape, dtype, is_fortran, bytes), or the same without the version."""
        parts = state[-4:] if isinstance(state, tuple) else ()
        if len(parts) != 4 or not isinstance(parts[1], Dtype):
            raise Malformed("the state of a numpy array")
        shape, dtype, is_fortran, data = parts
        self.fill(data, dtype, shape, "F" if is_fortran else "C")

    def fill(self, data: Any, dtype: Dtype, shape: Any, order: Any) -> None:
        """Read the numbers; numpy itself compares their count with the shape."""
        plain = dtype.plain()
        if plain is None or not isinstance(data, (bytes, bytearray)):
            return
        if not all(isinstance(size, int) and size >= 0 for size in shape):
            raise Malformed("the shape of a numpy array")
        flat = np.frombuffer(bytearray(data), plain)
        self.value = flat.reshape(shape, order="F" if order == "F" else "C")


def canonical(module: str, name: str) -> str:
    """A name as this module spells it."""
    full = f"{module}.{name}"
    for old, new in _OLD_NAMES.items():
        if full.startswith(old):
            return new + full.removeprefix(old)
    return full


def is_listed(name: str) -> bool:
    """Whether a pickle may name it."""
    return name in BUILDERS or name in TORCH or bool(_RECORDS.fullmatch(name))


def make(symbol: Any, args: Any) -> Any:
    """The inert value of a call or an instance, those of `TORCH` apart.

    Raises:
        Malformed: if it is not a listed name with arguments as its writer gives them.
    """
    if not isinstance(symbol, Symbol) or not isinstance(args, tuple):
        raise Malformed("a call of something that is no name")
    if symbol.name in BUILDERS:
        return BUILDERS[symbol.name](*args)
    return Record(symbol.name, args)


def as_mapping(record: Any) -> Any:
    """The plain values of an omegaconf node; anything else as it is."""
    if not isinstance(record, Record) or not isinstance(record.state, Mapping):
        return record
    content = record.state.get("_content", record.state.get("_val", record))
    if isinstance(content, dict):
        return {key: as_mapping(value) for key, value in content.items()}
    if isinstance(content, list):
        return [as_mapping(value) for value in content]
    return content


def as_key(value: Any) -> Any:
    """A key that can be hashed at no cost: plain, or a tuple of plain ones.

    Raises:
        Malformed: if it is another value, such as tuples of tuples, which take 2^n steps to hash
            where each holds the one before twice.
    """
    items = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(item, _KEYS) for item in items):
        raise Malformed(f"a {type(value).__name__} as a key")
    return value


def _dict(*args: Any) -> dict[Any, Any]:
    """OrderedDict, Counter: from pairs or a dict."""
    if not args:
        return {}
    (content,) = args
    if not isinstance(content, (dict, list, tuple)):
        raise Malformed("a dict made of something else")
    pairs = content.items() if isinstance(content, dict) else content
    return {as_key(key): value for key, value in pairs}


def _path(*parts: Any) -> str:
    return str(PurePosixPath(*parts)) if all(isinstance(part, str) for part in parts) else ""


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if encoding not in ("latin1", "utf-8", "utf8", "ascii") or not isinstance(text, str):
        raise Malformed("bytes in an unknown encoding")
    return text.encode(encoding)


def _scalar(dtype: Any, data: Any = b"") -> Any:
    plain = dtype.plain() if isinstance(dtype, Dtype) else None
    if plain is None or not isinstance(data, (bytes, bytearray)):
        return Record("numpy._core.multiarray.scalar")
    (value,) = np.frombuffer(data, plain)
    return value.item()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> Array:
    array = Array()
    array.fill(data, dtype if isinstance(dtype, Dtype) else Dtype(""), shape, order)
    return array


def _jax_array(_: Any, __: Any, state: Any, *___: Any) -> Array:
    """An array of jax is a numpy array, whose state it brings, with facts about devices."""
    array = Array()
    array.build(state)
    return array


def _newobj(symbol: Any, *args: Any) -> Any:
    return make(symbol, args)


def _reconstructor(symbol: Any, base: Any, state: Any = None) -> Any:
    return make(symbol, ())


_DICTS = (
    *("lightning.fabric.utilities.data.AttributeDict", "easydict.EasyDict", "yacs.config.CfgNode"),
    *("lightning_fabric.utilities.data.AttributeDict", "addict.addict.Dict"),
    *("pytorch_lightning.utilities.parsing.AttributeDict",),
    *("lightning.pytorch.utilities.parsing.AttributeDict",),
)
_PATHS = ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath", "Path", "PurePath")

BUILDERS: Mapping[str, Callable[..., Any]] = {
    "_codecs.encode": _encode,
    "argparse.Namespace": argparse.Namespace,
    "builtins.bytearray": lambda content=b"", *encoding: (
        content if isinstance(content, bytes) else _encode(content, *encoding)
    ),
    "builtins.complex": lambda real, imaginary: complex(float(real), float(imaginary)),
    "builtins.frozenset": lambda *args: list(*args),
    "builtins.set": lambda *args: list(*args),
    "collections.Counter": _dict,
    "collections.OrderedDict": _dict,
    "collections.defaultdict": lambda *_: {},
    "collections.deque": lambda content=(), *_: list(content),
    "copyreg.__newobj__": _newobj,
    "copyreg._reconstructor": _reconstructor,
    "jax._src.array._reconstruct_array": _jax_array,
    "jax._src.device_array.reconstruct_device_array": _jax_array,
    "numpy._core.multiarray._reconstruct": lambda *_: Array(),
    "numpy._core.multiarray.scalar": _scalar,
    "numpy._core.numeric._frombuffer": _frombuffer,
    "numpy.dtype": lambda code, *_: Dtype(code if isinstance(code, str) else ""),
    "torch.Size": lambda *args: tuple(*args),
    "torch.torch_version.TorchVersion": lambda text: text,
    "types.SimpleNamespace": argparse.Namespace,
    **dict.fromkeys(_DICTS, _dict),
    **{f"pathlib.{kind}": _path for kind in _PATHS},
    **{f"pathlib._local.{kind}": _path for kind in _PATHS},
}
# What `tensors` makes: listed here, so that the list of names is in one place.
TORCH = frozenset(
    {
        *("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"),
        *("torch._utils._rebuild_tensor_v3", "torch._utils._rebuild_parameter"),
        *("torch._utils._rebuild_parameter_with_state", "torch._tensor._rebuild_from_type_v2"),
        "torch.storage._load_from_bytes",
    }
)
