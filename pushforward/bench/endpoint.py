"""Where requests go: the URL of a server, taken apart, its name looked up once."""

import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

_PORTS = {"http": 80, "https": 443}


class UnreachableError(Exception):
    """Nobody answers at an address; says why."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server's address.

    address: numeric, as it was looked up.
    port: its port.
    host: as the `Host` header has it.
    server_name: that its certificate has to be for; None without TLS.
    path: below which the routes stand, without a slash at its end.
    """

    address: str
    port: int
    host: str
    server_name: str | None
    path: str

    def tls(self) -> ssl.SSLContext | None:
        """What encrypts its connections, if anything does."""
        return None if self.server_name is None else httpx.create_ssl_context()

    @property
    def is_local(self) -> bool:
        """Whether it is a loopback address: server and load share this machine's cores."""
        return self.address.startswith("127.") or self.address == "::1"


def is_url(target: str) -> bool:
    """Whether a text is the URL of a server, and not a model."""
    return urlsplit(target).scheme in _PORTS


def find_endpoint(url: str) -> Endpoint:
    """Take a URL apart and look its name up.

    Raises:
        ValueError: it is no URL of a server.
        UnreachableError: its name is not known.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"{url}: expected http://HOST:PORT or https://HOST:PORT")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(f"{url}: expected the address alone; a key goes into --api-key")
    port = parts.port or _PORTS[parts.scheme]
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise UnreachableError(f"{parts.hostname}: {error.strerror}") from None
    return Endpoint(
        address=_reachable([str(entry[4][0]) for entry in found], port),
        port=port,
        host=parts.netloc,
        server_name=parts.hostname if parts.scheme == "https" else None,
        path=parts.path.rstrip("/"),
    )


def _reachable(addresses: list[str], port: int) -> str:
    """The first of the addresses that takes a connection.

    Raises:
        UnreachableError: none does.
    """
    reason = ""
    for address in addresses:
        try:
            socket.create_connection((address, port), timeout=5).close()
        except OSError as error:
            reason = f"{address} port {port}: {error.strerror or error}"
        else:
            return address
    raise UnreachableError(f"nobody answers at {reason}")
