"""URIs of models: told from paths, split from each other, shown without credentials."""

import os
import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from urllib.request import url2pathname

# Two letters at least: a drive of Windows is no scheme.
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+")
# What may follow the ':' of a host: a port and a path, or a password and its host.
_AFTER_HOST = re.compile(r"\d+(/.*|\?.*)?|[^/]*@.*", re.DOTALL)
_WEB = ("http://", "https://")

_USER = re.compile(r"(?<=://)[^/\s'\"@]+@")
_QUERY = re.compile(r"(://[^\s?'\"]+)\?[^\s'\"]*")


def is_uri(text: str) -> bool:
    """Whether a text is a URI, and not a path."""
    return _URI.match(text) is not None


def split_locations(text: str) -> list[str]:
    """Split paths and URIs that are joined as paths are; the ':' inside of a URI joins nothing."""
    found: list[str] = []
    for part in text.split(os.pathsep):
        if found and _goes_on(found[-1], part):
            found[-1] += os.pathsep + part
        else:
            found.append(part)
    return [part for part in found if part]


def _goes_on(before: str, part: str) -> bool:
    """Whether a part belongs to the URI before it."""
    if part.startswith("//") and _SCHEME.fullmatch(before):
        return True
    is_host = before.startswith(_WEB) and "/" not in before.partition("://")[2]
    return is_host and _AFTER_HOST.fullmatch(part) is not None


def as_location(given: str) -> Path | str:
    """A path of this machine, which file:// names too, or else the URI."""
    if not is_uri(given):
        return Path(given)
    parts = urlsplit(given)
    if parts.scheme != "file":
        return given
    if parts.netloc not in ("", "localhost"):
        raise ValueError(f"{given}: expected file:///PATH, with three slashes")
    return Path(url2pathname(parts.path))


def show_uri(uri: str) -> str:
    """A URI without what may be a credential: user, password, query."""
    parts = urlsplit(uri)
    # In hf://org/name@revision there is none.
    host = parts.netloc if parts.scheme == "hf" else parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def show_location(location: Path | str) -> str:
    """A path as it is, or a URI without credentials."""
    return str(location) if isinstance(location, Path) else show_uri(location)


def without_credentials(text: str) -> str:
    """A message of a library without what may be a credential in the URIs that it names."""
    return _QUERY.sub(r"\1", _USER.sub("", text))
