"""Repositories of models on the Hugging Face Hub: hf://org/name@revision/folder."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    get_session,
)

from service.remote.store import (
    FILES_AT_ONCE,
    BadUri,
    ChangedError,
    NothingThere,
    RemoteFile,
    as_store_error,
)
from service.remote.web_store import hide_addresses, read_range

# A revision with a '/' is written with %2F; but for these, which the Hub itself has.
_NAME = re.compile(
    r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/(?:pr|convert)/\w+|[^/]+))?"
    r"(?:/(?P<folder>.*))?",
    re.ASCII | re.DOTALL,
)


class HubName(NamedTuple):
    """What a URI of the Hub names; the revision is None for that which the Hub shows."""

    repo: str
    revision: str | None
    folder: str


def parse_hub_name(uri: str) -> HubName:
    """Read a URI of the Hub.

    Raises:
        BadUri: it names no repository.
    """
    found = _NAME.fullmatch(uri)
    if found is None:
        raise BadUri("expected hf://ORGANISATION/NAME, with @REVISION or /FOLDER behind it")
    revision = found["revision"]
    folder = (found["folder"] or "").strip("/")
    return HubName(found["repo"], unquote(revision) if revision else None, folder)


class HubStore:
    """The files of one revision; the Hub's own variables name the address and the token.

    It is read at the commit that was listed, so that no change mixes two.
    """

    at_once = FILES_AT_ONCE

    def __init__(self, uri: str, timeout_seconds: float) -> None:
        hide_addresses()
        self._name = parse_hub_name(uri)
        self._timeout = timeout_seconds
        self._api = HfApi(library_name="pushforward")
        # By itself the library waits for ever.
        get_session().timeout = timeout_seconds
        self._commit: str | None = None

    def list(self) -> list[RemoteFile]:
        """List the files of the newest commit."""
        name = self._name
        try:
            info = self._api.model_info(
                name.repo, revision=name.revision, files_metadata=True, timeout=self._timeout
            )
        except GatedRepoError:
            raise BadUri("access to it is granted on its page of the Hub to who asks") from None
        except RevisionNotFoundError:
            raise BadUri("there is no such revision") from None
        except RepositoryNotFoundError:
            raise NothingThere(
                "no such repository, or HF_TOKEN (else hf auth login) may not read it"
            ) from None
        except Exception as error:
            raise as_store_error(error, "cannot be listed") from None
        self._commit = info.sha
        inside = f"{name.folder}/" if name.folder else ""
        return [
            RemoteFile(
                one.rfilename.removeprefix(inside),
                one.size or 0,
                one.blob_id or "",
                one.lfs.sha256 if one.lfs is not None else "",
                one.blob_id or "" if one.lfs is None else "",
            )
            for one in info.siblings or ()
            if one.rfilename.startswith(inside)
        ]

    def read(self, file: RemoteFile, start: int) -> Iterator[bytes]:
        """Read a file of that commit."""
        name = self._name
        path = f"{name.folder}/{file.path}" if name.folder else file.path
        url = hf_hub_url(
            name.repo, path, revision=self._commit or name.revision, endpoint=self._api.endpoint
        )
        headers = build_hf_headers(library_name="pushforward")
        try:
            yield from read_range(url, file.path, self._timeout, start, headers, size=file.size)
        except FileNotFoundError:
            raise ChangedError(f"{file.path} was removed while it was read") from None

    def upload(self, files: Sequence[tuple[str, Path]], removed: Sequence[str]) -> None:
        """Push all as one commit; a repository that is not there is made, for its owner alone."""
        name = self._name
        inside = f"{name.folder}/" if name.folder else ""
        adding = [CommitOperationAdd(inside + path, str(source)) for path, source in files]
        removing = [CommitOperationDelete(inside + path) for path in removed]
        try:
            self._api.create_repo(name.repo, private=True, exist_ok=True)
            self._api.create_commit(
                name.repo,
                [*adding, *removing],
                commit_message="Push a model of pushforward",
                revision=name.revision,
            )
        except Exception as error:
            raise as_store_error(error, "cannot be written") from None
