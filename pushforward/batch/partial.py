"""The parts of an output file that is not complete yet: beside it, in a hidden folder.

    .OUT.partial/key.json          what the parts are of
    .OUT.partial/00000-0000007.arrow   rows of the slab 7 of input 0
    .OUT.partial/whole.parquet         the file as far as this run has come
    .OUT.key                       what a finished file is of that has no schema to say so

A run that is killed leaves them; one that goes on has the same parts, and makes the same file.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.checkpoints.files import write_file
from models.datasets.dataset import optional_package

_KEY_FILE = "key.json"
_LOCK_FILE = "lock"


def digest_key(facts: Mapping[str, Any]) -> str:
    """The digest of what a file is made of: who makes it of the same gets the same bytes."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class PartialOutput:
    """The parts of an output file.

    Args:
        out: the file.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out.parent / f".{out.name}.partial"
        self._key_path = out.parent / f".{out.name}.key"
        self._lock: Any = None

    def stored(self) -> dict[str, Any] | None:
        """What an interrupted run has noted of its parts; None where there are none."""
        try:
            found: dict[str, Any] = json.loads((self.folder / _KEY_FILE).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return found

    def lock(self) -> None:
        """Keep other runs away from these parts, until the process ends.

        Raises:
            ValueError: another run makes the same file now.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / _LOCK_FILE).open("wb")
        try:
            import fcntl
        except ImportError:  # Windows
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                return  # a file system without locks
            raise ValueError(f"{self.out}: another run writes it now") from None

    def begin(self, note: Mapping[str, Any]) -> None:
        """Throw away the parts of another run, and note what those to come are of."""
        for path in self.folder.glob("*.arrow*"):
            path.unlink()
        write_file(self.folder / _KEY_FILE, json.dumps(note).encode())

    def count(self, file: int) -> int:
        """How many slabs of an input are done, without a gap."""
        index = 0
        while self._path(file, index).exists():
            index += 1
        return index

    def add(self, file: int, index: int, table: Any) -> None:
        """Keep the rows of a slab."""
        ipc = optional_package("pyarrow.ipc", needed_for="files", extra="files")
        path = self._path(file, index)
        fresh = path.with_suffix(".arrow-new")
        with ipc.new_file(str(fresh), table.schema) as writer:
            writer.write_table(table)
        fresh.replace(path)

    def table(self, file: int, index: int) -> Any:
        """The rows of a slab."""
        pyarrow = optional_package("pyarrow", needed_for="files", extra="files")
        ipc = optional_package("pyarrow.ipc", needed_for="files")
        with pyarrow.memory_map(str(self._path(file, index))) as source:
            return ipc.open_file(source).read_all()

    def whole(self, suffix: str) -> Path:
        """Where the file is written to until it is whole."""
        return self.folder / f"whole{suffix}"

    def finish(self, fresh: Path, key: str | None = None) -> None:
        """Put the whole file in its place, and remove the parts.

        Args:
            fresh: the file.
            key: what it is of, where it cannot say so itself.
        """
        self._key_path.unlink(missing_ok=True)
        os.replace(fresh, self.out)
        if key is not None:
            write_file(self._key_path, json.dumps({"key": key, "file": self._state()}).encode())
        self.remove()

    def finished_key(self) -> str | None:
        """What a finished file is of; None where nothing tells, or it was written to since."""
        try:
            found = json.loads(self._key_path.read_text("utf-8"))
            return str(found["key"]) if found["file"] == self._state() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _state(self) -> list[int]:
        """What changes when somebody writes the file."""
        found = self.out.stat()
        return [found.st_size, found.st_mtime_ns]

    def remove(self) -> None:
        """Remove the parts."""
        if self._lock is not None:
            self._lock.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def release(self) -> None:
        """Leave the parts for a run that goes on."""
        if self._lock is not None:
            self._lock.close()

    def _path(self, file: int, index: int) -> Path:
        return self.folder / f"{file:05d}-{index:07d}.arrow"
