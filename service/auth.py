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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from service.errors import Unauthorized
from service.keys import ApiKey, KeyRule, read_key_file, unnamed_rules
from service.settings import Settings, SettingsError, flag_name, variable_name
from service.telemetry import Metrics
from service.telemetry.keys import KeyMetrics

# What anybody may ask: whether the service lives and takes requests.
OPEN_PATHS = frozenset(
    ("/health", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready")
)
# How long a key that was taken out of the file may still be good.
_LOOK_SECONDS = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeyFileStatus:
    """What came of the last look at the file of API keys.

    is_ok: whether it can be used; else the keys that were in it before are still good.
    since: when it began to be so, in seconds since 1970.
    """

    is_ok: bool
    since: float


class ApiKeyAuth:
    """The keys that are good now, known by their digests.

    Args:
        keys: those of the settings.
        file: more of them, see `service.keys.key_file`; read again when it changes.
        look_seconds: how often to look at the file, at most.
        processes: over how many processes of the service the limits of a key are spread.
        metrics: where keys are counted.

    Raises:
        SettingsError: the file cannot be read, or holds no key or a bad one.
    """

    def __init__(
        self,
        keys: Iterable[str],
        file: Path | None,
        *,
        look_seconds: float = _LOOK_SECONDS,
        processes: int = 1,
        metrics: KeyMetrics | None = None,
    ) -> None:
        self._fixed = unnamed_rules(keys)
        self._file = file
        self._look_seconds = look_seconds
        self._processes = processes
        self._metrics = metrics
        self._looked_at = time.monotonic()
        self._state: tuple[int, ...] = ()
        self._file_status = KeyFileStatus(True, time.time())
        self._file_problem = ""
        self._keys: dict[str, ApiKey] = {}
        self._by_digest: dict[bytes, ApiKey] = {}
        from_file: list[KeyRule] = []
        if file is not None:
            try:
                self._state = _state(file)
                from_file = read_key_file(file)
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise SettingsError(f"{flag_name('api_key_file')}: {file}: {reason}") from None
        if metrics is not None:
            metrics.watch_file(self._is_file_ok)
        self._use([*self._fixed, *from_file])

    @property
    def file_status(self) -> KeyFileStatus | None:
        """How the file is now; None where there is none."""
        if self._file is None:
            return None
        self._look()
        return self._file_status

    def check(self, headers: Mapping[bytes, bytes]) -> ApiKey:
        """Let a request pass that shows a good key.

        Returns:
            The key; its limits are not asked yet.

        Raises:
            Unauthorized: it shows none, or one that is not known.
        """
        self._look()
        shown = _shown_key(headers)
        if shown is None:
            raise Unauthorized(
                "this server wants a key: send Authorization: Bearer KEY, or X-API-Key: KEY"
            )
        # What a look into the table takes may tell of a digest, which tells nothing of a key.
        known = self._by_digest.get(sha256(shown).digest())
        if known is None:
            raise Unauthorized("the key is not one of this server's", is_invalid=True)
        return known

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
            from_file = read_key_file(self._file)
        except (OSError, ValueError) as error:
            problem = str(error)
            if isinstance(error, OSError):
                self._state = ()  # what is in the way may go, and the file be the same
            if self._state or problem != self._file_problem:
                _log.error("the file of API keys cannot be used, the keys before stay: %s", problem)
            self._note_file(problem)
            return
        self._note_file("")
        self._use([*self._fixed, *from_file])
        _log.info(
            "the file of API keys has changed: %d keys",
            sum(len(rule.digests) for rule in from_file),
        )

    def _is_file_ok(self) -> bool:
        status = self.file_status
        return status is None or status.is_ok

    def _note_file(self, problem: str) -> None:
        self._file_problem = problem
        is_ok = not problem
        if is_ok != self._file_status.is_ok:
            self._file_status = KeyFileStatus(is_ok, time.time())

    def _use(self, rules: Sequence[KeyRule]) -> None:
        """Let these be the keys; one that goes on under its name keeps what it has used."""
        keys: dict[str, ApiKey] = {}
        by_digest: dict[bytes, ApiKey] = {}
        for rule in rules:
            key = self._keys.get(rule.name)
            if key is None:
                key = ApiKey(rule, self._processes, self._count_limited)
            else:
                key.change(rule)
            keys[rule.name] = key
            for digest in rule.digests:
                by_digest.setdefault(digest, key)
        self._keys, self._by_digest = keys, by_digest
        if self._metrics is not None:
            self._metrics.name({rule.name: rule.limits for rule in rules})

    def _count_limited(self, name: str, limit: str) -> None:
        if self._metrics is not None:
            self._metrics.limited(name, limit)


def auth_of(settings: Settings, metrics: Metrics | None = None) -> ApiKeyAuth | None:
    """Make what the settings ask for; None where they have no keys.

    Args:
        settings: the keys, or where they are.
        metrics: where keys are counted, and over how many processes.

    Raises:
        SettingsError: the file of keys cannot be used.
    """
    if not settings.api_keys and settings.api_key_file is None:
        return None
    return ApiKeyAuth(
        [key.get_secret_value() for key in settings.api_keys],
        settings.api_key_file,
        processes=1 if metrics is None else metrics.processes,
        metrics=None if metrics is None else metrics.keys,
    )


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


def _state(file: Path) -> tuple[int, ...]:
    """Differs when the file does, also where a link that leads to it was replaced."""
    found = os.stat(file)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
