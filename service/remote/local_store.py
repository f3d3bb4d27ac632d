"""Files in a folder of this machine."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from models.checkpoints.files import written
from service.remote.store import FILES_AT_ONCE, MAX_LISTED, RANGE_BYTES, BadUri, RemoteFile


class LocalStore:
    """A folder, which need not exist before something is written to it; links lead nowhere."""

    at_once = FILES_AT_ONCE

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def list(self) -> list[RemoteFile]:
        """List what lies in it."""
        found: list[RemoteFile] = []
        for folder, _, names in os.walk(self._folder):
            for name in names:
                path = Path(folder) / name
                if path.is_symlink() or not path.is_file():
                    continue
                info = path.stat()
                inner = path.relative_to(self._folder).as_posix()
                found.append(RemoteFile(inner, info.st_size, str(info.st_mtime_ns)))
            if len(found) > MAX_LISTED:
                raise BadUri(f"expected models, it holds over {MAX_LISTED} files")
        return found

    def read(self, file: RemoteFile, start: int) -> Iterator[bytes]:
        """Read a file."""
        with (self._folder / file.path).open("rb") as opened:
            opened.seek(start)
            while part := opened.read(RANGE_BYTES):
                yield part

    def upload(self, files: Sequence[tuple[str, Path]], removed: Sequence[str]) -> None:
        """Copy files into it."""
        for path, source in files:
            target = self._folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with written(target) as fresh:
                shutil.copyfile(source, fresh)
        for path in removed:
            (self._folder / path).unlink(missing_ok=True)
