"""The one place where answered requests are counted and logged."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from service.logs import ACCESS_LOGGER, Access, AccessLog
from service.metrics import NO_MODEL, Metrics
from service.routes.exchange import trace_id

# Asked every few seconds by machines: counted, but not worth a line each.
_SILENT = frozenset(("/health", "/health/live", "/health/ready", "/metrics"))

_access_log = logging.getLogger(ACCESS_LOGGER)


@dataclass(frozen=True, slots=True)
class Register:
    """Where every exchange ends up once: in the metrics and in the access log."""

    metrics: Metrics
    access: AccessLog

    def note(
        self,
        method: str,
        path: str,
        headers: Mapping[bytes, bytes],
        *,
        request_id: str,
        status: int,
        seconds: float,
        op: str,
        model: str = NO_MODEL,
        rows: int | None = None,
    ) -> None:
        """Count and log one exchange; `op` is an operation or the template of a route."""
        self.metrics.request(model, op, status, seconds)
        if path in _SILENT or not _access_log.isEnabledFor(logging.INFO):
            return
        line = Access(request_id, method, path, status, seconds, model, op, rows, trace_id(headers))
        self.access.write(line)
