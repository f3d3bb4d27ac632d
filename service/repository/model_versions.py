"""The versions of one model: those that are live, the default among them, and those refused."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from service.contracts import ModelIndexEntry
from service.repository.loading import LoadedModel


@dataclass(slots=True)
class ModelVersions:
    """What is known of the versions of one model.

    live: those that are served, by version.
    default: the version that answers requests that name none; it may have been refused.
    refused: those that were refused, by version.
    unloaded: those that were served until the model was unloaded by name.
    """

    name: str
    live: dict[str, LoadedModel] = field(default_factory=dict)
    default: str = ""
    refused: dict[str, ModelIndexEntry] = field(default_factory=dict)
    unloaded: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known of it any more."""
        return not (self.live or self.refused or self.unloaded)

    @property
    def in_order(self) -> list[LoadedModel]:
        """Those that are live, the highest last."""
        return [self.live[version] for version in sorted(self.live, key=int)]

    @property
    def refusal(self) -> ModelIndexEntry | None:
        """Why requests that name no version have no answer, where that version was refused."""
        if self.default in self.live:
            return None
        highest = max(self.refused, key=int, default="")
        return self.refused.get(self.default) or self.refused.get(highest)

    def choose_default(
        self, loaded: Collection[str], wanted: Iterable[str], pinned: str | None
    ) -> str:
        """Choose the version that answers requests that name none.

        Args:
            loaded: the versions that are live, or about to be.
            wanted: the versions that are to be live.
            pinned: the one that is to answer; None: the highest of those that are loaded.

        Returns:
            Where the one that is to answer cannot be served, the one that has answered so far.
        """
        serving = [version for version in wanted if version in loaded]
        if pinned is None and serving:
            return max(serving, key=int)
        if pinned in serving:
            return str(pinned)
        return self.default if self.default in self.live else pinned or self.default

    def index(self) -> list[ModelIndexEntry]:
        """All of them in order: a live one whose files were refused is there once, with reason."""
        entries = dict(self.refused)
        for version in self.live:
            reason = entries[version].reason if version in entries else ""
            entries[version] = ModelIndexEntry(self.name, version, True, reason)
        for version in self.unloaded:
            entries[version] = ModelIndexEntry(self.name, version, False, "unloaded")
        return [entries[version] for version in sorted(entries, key=int)]
