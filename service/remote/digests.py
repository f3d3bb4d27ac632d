"""What files are known by: their digests, those of git beside SHA-256."""

import hashlib
import json
from pathlib import Path

from models.checkpoints.files import sha256
from service.remote.store import RemoteFile, StoreError

_CHUNK_BYTES = 2**20


class WrongContent(StoreError):
    """A file has not the digest that its store or an index says."""


def check_digest(file: RemoteFile, path: Path) -> None:
    """Compare what was copied with what is known of it.

    Args:
        file: that was copied.
        path: where its content is.

    Raises:
        WrongContent: it is another content.
    """
    if file.sha256:
        name, expected, found = "SHA-256", file.sha256, sha256(path)
    elif file.git_sha1:
        name, expected, found = "SHA-1 of git", file.git_sha1, git_sha1(path)
    else:
        return
    if found != expected:
        raise WrongContent(f"{file.path}: expected the {name} {expected}, got {found}")


def is_damaged(path: Path, key: str) -> bool:
    """Whether a file has not the digest by which `key_of` names its content, if it is one."""
    kind, _, digest = key.rpartition("-")
    match kind:
        case "":
            return sha256(path) != digest
        case "git":
            return git_sha1(path) != digest
    return False


def key_of(file: RemoteFile) -> str:
    """Name the content of a file: by its digest, or by what its store says of it."""
    if file.sha256:
        return file.sha256
    if file.git_sha1:
        return f"git-{file.git_sha1}"
    facts = json.dumps([file.path, file.size, file.tag])
    return "tag-" + hashlib.sha256(facts.encode()).hexdigest()


def git_sha1(path: Path) -> str:
    """What git calls the content of a file by, in hex."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as opened:
        while part := opened.read(_CHUNK_BYTES):
            digest.update(part)
    return digest.hexdigest()
