"""Who may ask: API keys, several at once, in the settings or in a file that may change.

A client shows one as `Authorization: Bearer KEY` or as `X-API-Key: KEY`. Only the probes of
orchestrators are answered without, and the pages for browsers (`service.api.page`). Where no key
is set nothing is checked.
"""

import ipaddress
import logging
import os
import socket
import time
from collections.abc import Iterable, Mapping
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path

from service.errors import Unauthorized
from service.settings import (
    Settings,
    SettingsError,
    check_keys,
    flag_name,
    variable_name,
)

# What anybody may ask: whether the service lives and takes requests.
OPEN_PATHS = frozenset(
    ("/health", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready")
)
# How long a key that was taken out of the file may still be good.
_LOOK_SECONDS = 1.0

_log = logging.getLogger(__name__)


class ApiKeyAuth:
    """The keys that are good now; kept as digests, so that all comparisons have one length.

    Args:
        keys: those of the settings.
        file: one key a line; read again when it changes. Blank lines and `#` lines are skipped.
        look_seconds: how often to look at the file, at most.

    Raises:
        SettingsError: the file cannot be read, or holds no key or a bad one.
    """

    def __init__(
        self, keys: Iterable[str], file: Path | None, *, look_seconds: float = _LOOK_SECONDS
    ) -> None:
        self._fixed = _digests(keys)
        self._file = file
        self._look_seconds = look_seconds
        self._looked_at = time.monotonic()
        self._state: tuple[int, ...] = ()
        self._from_file: list[bytes] = []
        if file is not None:
            try:
                self._state = _state(file)
                self._from_file = _digests(_read_keys(file))
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise SettingsError(f"{flag_name('api_key_file')}: {file}: {reason}") from None

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Let a request pass that shows a good key.

        Raises:
            Unauthorized: it shows none, or one that is not known.
        """
        self._look()
        shown = _shown_key(headers)
        if shown is None:
            raise Unauthorized(
                "this server wants a key: send Authorization: Bearer KEY, or X-API-Key: KEY"
            )
        digest = sha256(shown).digest()
        is_known = False
        # All of them, whichever fits: the time says nothing about which, or how nearly.
        for known in (*self._fixed, *self._from_file):
            is_known |= compare_digest(digest, known)
        if not is_known:
            raise Unauthorized("the key is not one of this server's", is_invalid=True)

    def admits(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether `check` lets a request pass."""
        try:
            self.check(headers)
        except Unauthorized:
            return False
        return True

    def _look(self) -> None:
        """Read the file again if it has changed; one that cannot be used changes nothing."""
        now = time.monotonic()
        if self._file is None or now - self._looked_at < self._look_seconds:
            return
        self._looked_at = now
        try:
            state = _state(self._file)
        except OSError:
            state = ()
        if state == self._state:
            return
        self._state = state
        try:
            self._from_file = _digests(_read_keys(self._file))
        except (OSError, ValueError) as error:
            _log.error("the file of API keys cannot be used, the keys before stay: %s", error)
            return
        _log.info("the file of API keys has changed: %d keys", len(self._from_file))


def auth_of(settings: Settings) -> ApiKeyAuth | None:
    """Make what the settings ask for; None where they have no keys.

    Raises:
        SettingsError: the file of keys cannot be used.
    """
    if not settings.api_keys and settings.api_key_file is None:
        return None
    return ApiKeyAuth([key.get_secret_value() for key in settings.api_keys], settings.api_key_file)


def check_exposure(settings: Settings) -> None:
    """Refuse a host that strangers can reach, unless keys keep them out.

    Raises:
        SettingsError: says what to set.
    """
    has_keys = settings.api_keys or settings.api_key_file is not None
    if has_keys or _is_loopback(settings.host):
        return
    where = f"{flag_name('host')}: {settings.host} is beyond loopback, so set "
    keys = f"{variable_name('api_keys')} or {variable_name('api_key_file')}"
    if settings.enable_model_control:
        raise SettingsError(
            f"{where}{keys}; without keys leave out {flag_name('enable_model_control')}"
        )
    if not settings.allow_unauthenticated:
        raise SettingsError(
            f"{where}{keys}, or {variable_name('allow_unauthenticated')}=true where something "
            "else keeps strangers out"
        )


def _is_loopback(host: str) -> bool:
    """Whether every address of a host is this machine's own."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise SettingsError(f"{flag_name('host')}: {error.strerror}, got {host!r}") from None
    return all(ipaddress.ip_address(address[0]).is_loopback for *_, address in found)


def _shown_key(headers: Mapping[bytes, bytes]) -> bytes | None:
    authorization = headers.get(b"authorization")
    if authorization is None:
        return headers.get(b"x-api-key")
    scheme, _, key = authorization.partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else None


def _read_keys(file: Path) -> list[str]:
    lines = [line.strip() for line in file.read_text("ascii").splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ValueError("expected one key a line, got none")
    check_keys(keys)
    return keys


def _digests(keys: Iterable[str]) -> list[bytes]:
    return [sha256(key.encode()).digest() for key in keys]


def _state(file: Path) -> tuple[int, ...]:
    """Differs when the file does, also where a link that leads to it was replaced."""
    found = os.stat(file)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
