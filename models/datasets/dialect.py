"""How a text file writes a table: encoding, separator, decimal mark, line of names."""

import codecs
import csv
import gzip
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.datasets.dataset import DatasetError
from models.datasets.spec import Spec

SAMPLE_LINES = 1000
MISSING = ("", "?", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None", "-")
_BETWEEN = re.compile(r"(?<=\d)[,.' \u00a0\u2019\u202f](?=\d{3})")
_GROUPED = re.compile(r"[+-]?\d{1,3}([,.' \u00a0\u2019\u202f]\d{3})+([.,]\d+)?")
_SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """What has to be known before a table can be read from text.

    Args:
        encoding: "utf8", or "latin-1" where the bytes are no UTF-8.
        separator: one character.
        decimal: "." or ",".
        header: the names in the first line; None where it holds values.
        compression: "gzip", or None.
    """

    encoding: str
    separator: str
    decimal: str
    header: tuple[str, ...] | None
    compression: str | None


def find_dialect(path: Path, spec: Spec, *, numbers_are_rows: bool = False) -> Dialect:
    """Tell the dialect of a file from its bytes and its first lines.

    Option: `header=yes|no`, where the first line could be either.

    Args:
        path: of the file.
        spec: the options.
        numbers_are_rows: a first line that looks like values is a row where no option says so.

    Raises:
        DatasetError: if the first line looks like values and no option says what it is.
        OSError: if the file cannot be read.
    """
    header = spec.text_option("header")
    if header not in (None, "yes", "no"):
        raise DatasetError(f"data {spec.text!r}: header must be yes or no, got {header!r}")
    encoding, lines = _read_sample(path)
    if not lines:
        raise DatasetError(f"{path}: not a readable .csv file: it is empty")
    separator = max(_SEPARATORS.values(), key=lambda one: len(_cells(lines[:1], one)[0]))
    cells = _cells(lines, separator)
    first, others = cells[0], cells[1:]
    decimal = "," if separator != "," and _is_decimal_comma(others) else "."
    is_row = header is None and _looks_like_values(first, others, decimal)
    if is_row and not numbers_are_rows:
        raise DatasetError(
            f"{path}: the first line holds numbers where column names are expected: say "
            "?header=no if it is a row (columns are then called 1, 2, ...: &label=4), or "
            "?header=yes if these are names"
        )
    names = None if header == "no" or is_row else tuple(cell.strip() for cell in first)
    compression = "gzip" if _is_gzip(path) else None
    return Dialect(encoding, separator, decimal, names, compression)


def check_separators(path: Path, name: str, texts: Sequence[str]) -> None:
    """Refuse numbers with thousands separators: whether 1,234 is 1234 or 1.234 cannot be told.

    Raises:
        DatasetError: if texts of column `name` are numbers, but for commas, spaces or apostrophes.
    """
    grouped = next((text for text in texts if _GROUPED.fullmatch(text.strip())), None)
    if grouped is not None and all(is_number(_BETWEEN.sub("", text)) for text in texts):
        raise DatasetError(
            f"{path}: column {name!r} holds numbers with thousands separators, as {grouped!r}; "
            "write them without"
        )


def empty_column(path: Path, name: str) -> DatasetError:
    """Say that no row has a value in a column."""
    return DatasetError(f"{path}: column {name!r} is empty; leave it out with ?drop={name}")


def no_numbers(path: Path, name: str, kind: str) -> DatasetError:
    """Say that a column holds something else than numbers."""
    return DatasetError(
        f"{path}: column {name!r} holds {kind}, not numbers; leave it out with ?drop={name} "
        f"or, where it is the class, name it with ?label={name}"
    )


def _is_gzip(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _read_sample(path: Path) -> tuple[str, list[str]]:
    raw = gzip.open if _is_gzip(path) else open
    encoding = "utf-8-sig"
    try:
        with raw(path, "rt", encoding=encoding) as file:
            for _ in file:
                pass
    except UnicodeDecodeError as error:
        if error.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise DatasetError(
                f"{path}: expected UTF-8 text, got UTF-16; save it as UTF-8"
            ) from error
        encoding = "latin-1"
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DatasetError(f"{path}: not a readable .csv file: {error}") from error
    with raw(path, "rt", encoding=encoding, newline="") as file:
        lines = [line for line, _ in zip(file, range(SAMPLE_LINES), strict=False)]
    return ("utf8" if encoding == "utf-8-sig" else encoding), [
        line for line in lines if line.strip()
    ]


def _cells(lines: Sequence[str], separator: str) -> list[list[str]]:
    return list(csv.reader(lines, delimiter=separator))


def _is_decimal_comma(rows: Sequence[Sequence[str]]) -> bool:
    """Whether some cell is a number with a comma, and none one with a point."""
    cells = [cell for row in rows for cell in row]
    with_comma = any("," in cell and is_number(cell.replace(",", ".", 1)) for cell in cells)
    return with_comma and not any("." in cell and is_number(cell) for cell in cells)


def _looks_like_values(first: Sequence[str], rows: Sequence[Sequence[str]], decimal: str) -> bool:
    """Whether every cell of the first line is like those below it: a number, or the same word.

    Whole numbers may be names, years say, where a word beside them is a name.
    """
    numbers = [is_number(cell.replace(decimal, ".")) for cell in first]
    if not any(numbers):
        return False
    if all(number or not cell.strip() for number, cell in zip(numbers, first, strict=True)):
        return True
    words = [index for index, number in enumerate(numbers) if not number]
    below = [{row[index].strip() for row in rows if index < len(row)} for index in words]
    return all(first[index].strip() in seen for index, seen in zip(words, below, strict=True))


def is_number(text: str) -> bool:
    """Whether a text is a number as Python writes them."""
    try:
        float(text)
    except ValueError:
        return False
    return True
