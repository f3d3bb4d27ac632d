"""inference.binpb, which the server reads, says what inference.proto says."""

import re
from importlib.resources import files
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorSet

_FOLDER = files("service.transport.grpc")
_TOKEN = re.compile(r"//[^\n]*|[\w.]+|[^\s\w]")
# The types of the text, by the names that fields have in a descriptor.
_TYPES = {
    name.removeprefix("TYPE_").lower(): number
    for name, number in FieldDescriptorProto.Type.items()
    if name not in ("TYPE_MESSAGE", "TYPE_ENUM", "TYPE_GROUP")
}


class Text:
    """The words of a file of protobuf, and what they declare."""

    def __init__(self, text: str) -> None:
        found = [word for word in _TOKEN.findall(text) if not word.startswith("//")]
        self._words = found[::-1]
        self.messages: dict[str, list[tuple[Any, ...]]] = {}
        self.methods: list[tuple[str, str, bool, str, bool]] = []

    def read(self) -> None:
        """Read the file."""
        while self._words:
            word = self._words.pop()
            if word == "service":
                self._take(2)
                self._read_methods()
            elif word == "message":
                self._read_message("")
            else:
                while self._words.pop() != ";":
                    pass

    def _take(self, count: int) -> list[str]:
        return [self._words.pop() for _ in range(count)]

    def _read_methods(self) -> None:
        while self._words.pop() == "rpc":
            name = self._words.pop()
            given, _, taken = self._read_kind(), self._words.pop(), self._read_kind()
            self._take(1)
            self.methods.append((name, *given, *taken))

    def _read_kind(self) -> tuple[str, bool]:
        words = self._take(3)
        if words[1] == "stream":
            return self._take(1)[0] and words[2], True
        return words[1], False

    def _read_message(self, outer: str) -> None:
        name, _ = self._take(2)
        own = self.messages[outer + name] = []
        self._read_fields(own, outer + name + ".", None)

    def _read_fields(self, own: list[tuple[Any, ...]], path: str, oneof: str | None) -> None:
        while (word := self._words.pop()) != "}":
            if word == "message":
                self._read_message(path)
            elif word == "oneof":
                name, _ = self._take(2)
                self._read_fields(own, path, name)
            else:
                label = "repeated" if word == "repeated" else ""
                kind = self._words.pop() if label else word
                if kind == "map":
                    _, key, _, value, _ = self._take(5)
                    label, kind = "map", f"{key} {value}"
                name, _, number, _ = self._take(4)
                own.append((label, kind, name, int(number), oneof))


def described(message: Any, path: str = "") -> dict[str, list[tuple[Any, ...]]]:
    """What a descriptor declares, as `Text.messages`."""
    found: dict[str, list[tuple[Any, ...]]] = {path + message.name: []}
    maps = {each.name: each for each in message.nested_type if each.options.map_entry}
    for field in message.field:
        entry = maps.get(field.type_name.rpartition(".")[2])
        is_repeated = field.label == FieldDescriptorProto.LABEL_REPEATED
        label, kind = "repeated" if is_repeated else "", _kind(field)
        if entry is not None:
            label, kind = "map", " ".join(_kind(each) for each in entry.field)
        oneof = None
        if field.HasField("oneof_index"):
            oneof = message.oneof_decl[field.oneof_index].name
        found[path + message.name].append((label, kind, field.name, field.number, oneof))
    for nested in message.nested_type:
        if nested.name not in maps:
            found |= described(nested, f"{path}{message.name}.")
    return found


def _kind(field: Any) -> str:
    names = {number: name for name, number in _TYPES.items()}
    return names.get(field.type) or field.type_name.rpartition(".")[2]


def test_the_compiled_file_says_what_the_text_says() -> None:
    text = Text((_FOLDER / "inference.proto").read_text("utf-8"))
    text.read()
    (file,) = FileDescriptorSet.FromString((_FOLDER / "inference.binpb").read_bytes()).file
    messages: dict[str, list[tuple[Any, ...]]] = {}
    for message in file.message_type:
        assert isinstance(message, DescriptorProto)
        messages |= described(message)
    assert messages == text.messages
    assert len(messages) > 30
    (service,) = file.service
    methods = [
        (
            each.name,
            *(each.input_type.rpartition(".")[2], each.client_streaming),
            *(each.output_type.rpartition(".")[2], each.server_streaming),
        )
        for each in service.method
    ]
    assert methods == text.methods
    assert len(methods) == 11
    assert (file.package, file.syntax) == ("inference", "proto3")
