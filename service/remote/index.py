"""pushforward-index.json: the files of a folder with their sizes and digests, written last."""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.remote.store import BadUri

INDEX_FILE = "pushforward-index.json"
MAX_INDEX_BYTES = 8 * 2**20


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    path: Annotated[str, Field(min_length=1, max_length=1024)]
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Index(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    format_version: Literal[1]
    files: list[_Entry]


class IndexEntry(NamedTuple):
    """A file of an index; its path is below the folder of the index."""

    path: str
    size: int
    sha256: str


def read_index(content: bytes, name: str) -> list[IndexEntry]:
    """Read an index.

    Args:
        content: of the file.
        name: what messages call it.

    Raises:
        BadUri: it is no index of this kind.
    """
    try:
        found = _Index.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BadUri(f"{name}: {where}: {first['msg']}") from None
    return [IndexEntry(one.path, one.size, one.sha256) for one in found.files]


def write_index(files: Sequence[IndexEntry]) -> bytes:
    """Write an index."""
    entries = [_Entry(path=one.path, size=one.size, sha256=one.sha256) for one in files]
    index = _Index(format_version=1, files=entries)
    return index.model_dump_json(indent=1).encode() + b"\n"
