"""What is asked of some files, and what is told when it is done."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pushforward.batch.writers import SUFFIXES

_MOST_LISTED = 10


@dataclass(frozen=True, slots=True)
class FilePlan:
    """An operation on files of rows.

    Args:
        operation: its name.
        model: path of the model's folder.
        out: the file to write.
        inputs: paths, globs, folders and URLs; none of a draw.
        fields: of the operation, as in a request.
        columns: that hold the features, in the model's order; None leaves it to their names.
        context: columns that rows are conditioned on.
        keep: columns that are carried along.
        num_samples: of a draw.
        overwrite: whether a file at `out` may be replaced.
        resume: whether to go on with the parts of a run that was interrupted.
        on_bad_row: null: its numbers are null; fail: the first one ends it.
        instances, num_threads: as the settings of these names.
    """

    operation: str
    model: Path
    out: Path
    inputs: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] | None = None
    context: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    num_samples: int | None = None
    overwrite: bool = False
    resume: bool = False
    on_bad_row: Literal["null", "fail"] = "null"
    instances: Literal["auto"] | int = "auto"
    num_threads: int | None = None

    @property
    def suffix(self) -> str:
        """The kind of the output file.

        Raises:
            ValueError: its name says none that can be written.
        """
        name = self.out.name.lower()
        found = [suffix for suffix in SUFFIXES if name.endswith(suffix)]
        if re.match(r"\w+:/", str(self.out)):
            raise ValueError(
                f"{self.out}: expected a path of this machine: a file is given its name there once "
                "it is whole; copy it to the URL then"
            )
        if not found:
            raise ValueError(f"{self.out}: expected a path that ends in {', '.join(SUFFIXES)}")
        return max(found, key=len)


class BadRow(ValueError):
    """A row has no answer, and the user asked for the end of the run then."""


@dataclass(slots=True)
class FileSummary:
    """What was done.

    rows: of the output. statuses: how many rows have which. first_bad: the first of those that
    have no answer, with why. resumed_rows: that an interrupted run had done. seed: of a draw.
    is_done_before: the file was complete already, and nothing was done.
    """

    out: str
    rows: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    first_bad: list[dict[str, Any]] = field(default_factory=list)
    resumed_rows: int = 0
    seed: int | None = None
    is_done_before: bool = False

    @property
    def bad_rows(self) -> int:
        """Rows without an answer."""
        return sum(self.statuses.values())

    def add(self, statuses: Any) -> None:
        """Count the rows of a table by its column of statuses."""
        import pyarrow.compute as compute

        bad = compute.indices_nonzero(compute.binary_length(statuses))
        texts = statuses.take(bad).to_pylist()
        self.statuses.update(texts)
        missing = _MOST_LISTED - len(self.first_bad)
        for index, text in zip(bad.to_pylist()[:missing], texts, strict=False):
            self.first_bad.append({"row": self.rows + index, "status": text})
        self.rows += len(statuses)
