"""The text that names a data set: `NAME_OR_PATH?option=value&option=value`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from models.datasets.dataset import DatasetError


def option(name: str, values: Sequence[str]) -> str:
    """`?name=value,value` as it is typed behind the name of data, between quotes."""
    text = ",".join(values)
    for letter in "%&+":
        text = text.replace(letter, f"%{ord(letter):02X}")
    return f"?{name}={text}"


@dataclass(slots=True)
class Spec:
    """A parsed data set text; remembers which options were read, so that typos are found.

    Args:
        text: the whole text, for messages.
        name: what stands before the question mark.
        options: what stands behind it.
    """

    text: str
    name: str
    options: dict[str, str]
    _read: set[str] = field(default_factory=set)

    @classmethod
    def parse(cls, text: str) -> "Spec":
        """Split `text` at the first question mark.

        Raises:
            DatasetError: if an option has no value or comes twice.
        """
        name, _, query = text.partition("?")
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        except ValueError as error:
            raise DatasetError(
                f"data {text!r}: expected options as ?name=value&name=value, got {query!r}"
            ) from error
        options = dict(pairs)
        if len(options) != len(pairs):
            raise DatasetError(f"data {text!r}: an option is given twice")
        return cls(text, name, options)

    def text_option(self, name: str) -> str | None:
        """The option as text, None where it is not given."""
        self._read.add(name)
        return self.options.get(name)

    def list_option(self, name: str) -> list[str] | None:
        """The option as comma-separated names, None where it is not given."""
        value = self.text_option(name)
        return None if value is None else [part for part in value.split(",") if part]

    def int_option(self, name: str, default: int, *, low: int = 0) -> int:
        """The option as a whole number of at least `low`."""
        value = self.text_option(name)
        if value is None:
            return default
        if not value.isdecimal() or int(value) < low:
            raise DatasetError(f"data {self.text!r}: {name} must be a whole number >= {low}")
        return int(value)

    def float_option(self, name: str) -> float | None:
        """The option as a number >= 0, None where it is not given."""
        value = self.text_option(name)
        if value is None:
            return None
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number < float("inf"):
            raise DatasetError(f"data {self.text!r}: {name} must be a number >= 0, got {value!r}")
        return number

    def finish(self) -> None:
        """Refuse options that nobody read.

        Raises:
            DatasetError: naming the unknown option and those this kind of data takes.
        """
        unknown = sorted(set(self.options) - self._read)
        if unknown:
            known = ", ".join(sorted(self._read)) or "none"
            raise DatasetError(
                f"data {self.text!r}: unknown option {unknown[0]!r}; "
                f"this kind of data takes {known}"
            )
