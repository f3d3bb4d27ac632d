"""What an import found in a checkpoint, and the error that ends it: data, rendered elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from models.checkpoints.folder import CheckpointError

Kind = Literal["recognised", "mended", "ignored", "warning", "refused"]
Origin = Literal["given", "checkpoint", "inferred", "default", "missing"]


@dataclass(frozen=True, slots=True)
class ReportItem:
    """One thing seen in a checkpoint: what it is about (a key, a file) and what was done."""

    kind: Kind
    what: str
    detail: str


@dataclass(frozen=True, slots=True)
class Setting:
    """One hyper-parameter of the source: its value, where it comes from and why."""

    name: str
    value: Any
    origin: Origin
    reason: str


@dataclass(slots=True)
class Report:
    """Everything an import reports, filled in as it goes; complete as far as it came."""

    file: str = ""
    sha256: str = ""
    source: str = ""
    items: list[ReportItem] = field(default_factory=list)
    settings: list[Setting] = field(default_factory=list)
    family: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    likelihood: Mapping[str, Any] = field(default_factory=dict)

    def recognised(self, what: str, detail: str) -> None:
        """Note something that is as it should be."""
        self.items.append(ReportItem("recognised", what, detail))

    def mended(self, what: str, detail: str) -> None:
        """Note something that was changed without changing the function."""
        self.items.append(ReportItem("mended", what, detail))

    def ignored(self, what: str, detail: str) -> None:
        """Note something that has no part in the density."""
        self.items.append(ReportItem("ignored", what, detail))

    def warning(self, what: str, detail: str) -> None:
        """Note something that works and deserves a look."""
        self.items.append(ReportItem("warning", what, detail))

    def refused(self, what: str, detail: str) -> None:
        """Note something that ends the import."""
        self.items.append(ReportItem("refused", what, detail))

    def items_as_json(self) -> list[dict[str, str]]:
        """Everything that was noted, in the order it was, as plain JSON."""
        return [
            {"kind": item.kind, "what": item.what, "detail": item.detail} for item in self.items
        ]

    def provenance(self) -> dict[str, Any]:
        """What a native checkpoint remembers of its import; plain JSON."""
        return {
            "imported_from": self.source,
            "file": self.file,
            "file_sha256": self.sha256,
            "hyper_parameters": {setting.name: setting.value for setting in self.settings},
            "hyper_parameter_origins": {
                setting.name: f"{setting.origin}: {setting.reason}" for setting in self.settings
            },
            "findings": self.items_as_json(),
            "likelihood": dict(self.likelihood),
        }


class ImportRefused(CheckpointError):
    """A checkpoint of other code cannot become one of ours; the message says what to do.

    Attributes:
        report: what was found until then, once the import has attached it.
    """

    report: Report | None = None


class HyperParametersMissing(ImportRefused):
    """The checkpoint is understood, and some hyper-parameters must still be given."""
