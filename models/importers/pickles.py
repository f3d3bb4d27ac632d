"""A pickle interpreter that can call nothing: its values are inert, see `inert`.

Python's own unpickler imports what a pickle names and calls it. This one walks the same opcodes,
of every protocol, and has no way to do either: names stay text, and only what is on the allow-list
is taken at all.
"""

import argparse
import pickletools
from collections.abc import Callable
from typing import IO, Any

from torch import Tensor

from models.importers.inert import (
    Array,
    Dtype,
    Malformed,
    Record,
    Symbol,
    as_key,
    canonical,
    is_listed,
)

_PUSHED = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
        *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


class Refused(ValueError):
    """A pickle names what is not on the allow-list.

    Attributes:
        name: of the class or function.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _Mark:
    """Where a run of items on the stack begins."""


class Interpreter:
    """Reads one pickle.

    Args:
        make: the inert value of a listed name that is called with arguments.
        persistent: the value of a persistent id, such as a storage of torch.
        every_name: take names that are not listed too; they and what they are called with stay
            inert as the others do.
    """

    def __init__(
        self,
        make: Callable[[Any, Any], Any],
        persistent: Callable[[Any], Any] | None = None,
        *,
        every_name: bool = False,
    ) -> None:
        self._make = make
        self._persistent = persistent
        self._every_name = every_name
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self.names: set[str] = set()

    def read(self, file: IO[bytes]) -> Any:
        """The value of the pickle that begins here; the file is left behind its end.

        Raises:
            Refused: if it names what is not listed.
            Malformed: if it is not a pickle, or one that no writer makes.
        """
        self._stack, self._memo = [], {}
        try:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "STOP":
                    return self._pop()
                self._step(opcode.name, argument)
        except (Refused, Malformed):
            raise
        except RecursionError:
            raise Malformed("nested too deeply") from None
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
            raise Malformed(str(error).partition("\n")[0]) from None
        raise Malformed("it ends before its last opcode")

    def _step(self, name: str, argument: Any) -> None:
        if name in _PUSHED:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            # EXT1, EXT2, EXT4: names by number in a registry of the process that reads;
            # NEXT_BUFFER, READONLY_BUFFER: bytes that are not in the file.
            raise Refused(f"the opcode {name}")

    def _pop(self) -> Any:
        value = self._stack.pop()
        if isinstance(value, _Mark):
            raise Malformed("a mark in the place of a value")
        return value

    def _marked(self) -> list[Any]:
        items: list[Any] = []
        while not isinstance(value := self._stack.pop(), _Mark):
            items.append(value)
        return items[::-1]

    def _drop(self, _: Any) -> None:
        self._stack.pop()

    def _drop_marked(self, _: Any) -> None:
        self._marked()

    def _top(self) -> Any:
        value = self._stack[-1]
        if isinstance(value, _Mark):
            raise Malformed("a mark in the place of a value")
        return value

    def _name(self, module: Any, name: Any) -> Symbol:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Malformed("a name that is no text")
        full = canonical(module, name)
        if not self._every_name and not is_listed(full):
            raise Refused(full)
        self.names.add(full)
        return Symbol(full)

    def _global(self, argument: Any) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(self._name(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        self._stack.append(self._name(module, name))

    def _reduce(self, _: Any) -> None:
        args, symbol = self._pop(), self._pop()
        self._stack.append(self._make(symbol, args))

    def _newobj_ex(self, _: Any) -> None:
        keywords, args, symbol = self._pop(), self._pop(), self._pop()
        if keywords:
            raise Malformed("keyword arguments")
        self._stack.append(self._make(symbol, args))

    def _inst(self, argument: Any) -> None:
        args = tuple(self._marked())
        self._global(argument)
        self._stack.append(self._make(self._pop(), args))

    def _obj(self, _: Any) -> None:
        symbol, *args = self._marked()
        self._stack.append(self._make(symbol, tuple(args)))

    def _build(self, _: Any) -> None:
        state, target = self._pop(), self._top()
        if isinstance(target, (Array, Dtype)):
            target.build(state)
        elif isinstance(target, argparse.Namespace):
            _fill(target, state)
        elif isinstance(target, Record):
            target.state = state
        elif not isinstance(target, (dict, list, Tensor)):
            raise Malformed(f"a state for a {type(target).__name__}")

    def _persid(self, pid: Any) -> None:
        if self._persistent is None:
            raise Malformed("a persistent id outside a file of torch.save")
        self._stack.append(self._persistent(pid))

    def _put(self, place: Any) -> None:
        self._memo[int(place)] = self._top()

    def _append(self, values: list[Any]) -> None:
        target = self._top()
        if isinstance(target, Record):
            target.items.extend(values)
        elif isinstance(target, list):
            target.extend(values)
        else:
            raise Malformed(f"items for a {type(target).__name__}")

    def _set(self, values: list[Any]) -> None:
        target = self._top()
        pairs = [(as_key(key), value) for key, value in zip(values[::2], values[1::2], strict=True)]
        if isinstance(target, Record):
            target.items.extend(pairs)
        elif isinstance(target, dict):
            target.update(pairs)
        else:
            raise Malformed(f"keys for a {type(target).__name__}")

    def _dict(self, _: Any) -> None:
        values = self._marked()
        self._stack.append({})
        self._set(values)

    def _tuple(self, count: int) -> None:
        values = [self._pop() for _ in range(count)]
        self._stack.append(tuple(values[::-1]))

    def _set_item(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._set([key, value])


def _fill(namespace: argparse.Namespace, state: Any) -> None:
    values = state[0] if isinstance(state, tuple) and len(state) == 2 else state
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise Malformed("the state of a namespace")
    vars(namespace).update(values)


_STEPS: dict[str, Callable[[Interpreter, Any], None]] = {
    "MARK": lambda self, _: self._stack.append(_Mark()),
    "POP": Interpreter._drop,
    "POP_MARK": Interpreter._drop_marked,
    "DUP": lambda self, _: self._stack.append(self._top()),
    "EMPTY_LIST": lambda self, _: self._stack.append([]),
    "EMPTY_TUPLE": lambda self, _: self._stack.append(()),
    "EMPTY_DICT": lambda self, _: self._stack.append({}),
    "EMPTY_SET": lambda self, _: self._stack.append([]),
    "LIST": lambda self, _: self._stack.append(self._marked()),
    "FROZENSET": lambda self, _: self._stack.append(self._marked()),
    "TUPLE": lambda self, _: self._stack.append(tuple(self._marked())),
    "TUPLE1": lambda self, _: self._tuple(1),
    "TUPLE2": lambda self, _: self._tuple(2),
    "TUPLE3": lambda self, _: self._tuple(3),
    "DICT": Interpreter._dict,
    "APPEND": lambda self, _: self._append([self._pop()]),
    "APPENDS": lambda self, _: self._append(self._marked()),
    "ADDITEMS": lambda self, _: self._append(self._marked()),
    "SETITEM": Interpreter._set_item,
    "SETITEMS": lambda self, _: self._set(self._marked()),
    "PUT": Interpreter._put,
    "BINPUT": Interpreter._put,
    "LONG_BINPUT": Interpreter._put,
    "MEMOIZE": lambda self, _: self._put(len(self._memo)),
    "GET": lambda self, place: self._stack.append(self._memo[place]),
    "BINGET": lambda self, place: self._stack.append(self._memo[place]),
    "LONG_BINGET": lambda self, place: self._stack.append(self._memo[place]),
    "GLOBAL": Interpreter._global,
    "STACK_GLOBAL": Interpreter._stack_global,
    "REDUCE": Interpreter._reduce,
    "NEWOBJ": Interpreter._reduce,
    "NEWOBJ_EX": Interpreter._newobj_ex,
    "INST": Interpreter._inst,
    "OBJ": Interpreter._obj,
    "BUILD": Interpreter._build,
    "PERSID": Interpreter._persid,
    "BINPERSID": lambda self, _: self._persid(self._pop()),
}
