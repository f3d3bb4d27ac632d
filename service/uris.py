"""URIs of models: told from paths, split from each other, shown without credentials."""

import os
import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from urllib.request import url2pathname

# Two letters at least: a drive of Windows is no scheme.
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]+"
_URI = re.compile(rf"{_SCHEME}://")
# A file system inside of another, as fsspec writes it.
_CHAIN = re.compile(rf"{_SCHEME}::.*://|.*::{_SCHEME}:(//|:)", re.DOTALL)
# One of several that are joined by ':', which may also stand before a password, in an address of
# IPv6, before a port, and in a query, where no path and no URI follows it.
_LOCATION = re.compile(
    # A password with a '/' is no part of a URI; it is refused as a whole, so that it is not shown.
    rf"(?:https?|s?ftp)://[^/?@:]*:(?![/.~]|\d+[/?:]|{_SCHEME}://)[^/@:]*/[^@:]*@[^:]*(?::\d+)?|"
    rf"{_SCHEME}://(?:[^/?]*@)?(?:\[[^\]/]*\]|[^/?:]*)(?::\d+(?=[/?:]|$))?"
    rf"(?:/[^?:]*)?(?:\?(?:[^:]|:(?![/.~:]|{_SCHEME}://|$))*)?|[^:]+",
    re.DOTALL,
)

# github://ORGANISATION:NAME@REVISION/FOLDER
_USER_IS_PLACE = ("github",)

# Up to the last '@' of a host; where a password follows, whatever it holds.
_USER = re.compile(r"(?<=://)(?:[^/\s'\"@]+|[^/\s'\"@:]*:[^\s'\"@]*)@(?:[^/\s'\"@]*@)*")
_QUERY = re.compile(r"(://[^\s?'\"]+)\?[^\s'\"]*")


def is_uri(text: str) -> bool:
    """Whether a text is a URI, and not a path."""
    return _URI.match(text) is not None


def split_locations(text: str) -> list[str]:
    """Split paths and URIs that are joined as paths are; the ':' inside of a URI joins nothing."""
    if os.pathsep != ":":
        return [part for part in text.split(os.pathsep) if part]
    return [found[0] for found in _LOCATION.finditer(text)]


def as_location(given: str) -> Path | str:
    """A path of this machine, which file:// names too, or else the URI.

    Raises:
        ValueError: it is a URI that cannot be used, in words without its credentials.
    """
    if _CHAIN.match(given):
        raise ValueError("expected one URI, got several that are joined by '::'")
    if not is_uri(given):
        return Path(given)
    parts = urlsplit(given)
    try:
        _ = parts.port
    except ValueError:
        raise ValueError(
            f"{parts.scheme}://...: expected a number up to 65535 as port; in a password '/' is "
            "written %2F, '@' %40 and ':' %3A"
        ) from None
    if parts.scheme != "file":
        return given
    if parts.netloc not in ("", "localhost"):
        raise ValueError(f"{show_uri(given)}: expected file:///PATH, with three slashes")
    return Path(url2pathname(parts.path))


def show_uri(uri: str) -> str:
    """A URI without what may be a credential: user, password, query."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def identify_uri(uri: str) -> str:
    """What tells a URI from others, whatever password or signature is in use: its user counts."""
    parts = urlsplit(uri)
    user, at, host = parts.netloc.rpartition("@")
    if parts.scheme not in _USER_IS_PLACE:
        user = user.partition(":")[0]
    return urlunsplit((parts.scheme, f"{user}{at}{host}", parts.path.rstrip("/"), "", ""))


def show_location(location: Path | str) -> str:
    """A path as it is, or a URI without credentials."""
    return str(location) if isinstance(location, Path) else show_uri(location)


def without_credentials(text: str) -> str:
    """A message of a library without what may be a credential in the URIs that it names."""
    return _QUERY.sub(r"\1", _USER.sub("", text))
