"""The one place where answered requests are counted, logged and traced."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from service.telemetry import NO_MODEL, Metrics
from service.telemetry.access_log import ACCESS_LOGGER, Access, AccessLog
from service.telemetry.tracing import Stages, Tracer, trace_id

# Asked every few seconds by machines: counted, but not worth a line each.
_SILENT = frozenset(("/health", "/health/live", "/health/ready", "/metrics"))

_access_log = logging.getLogger(ACCESS_LOGGER)


@dataclass(frozen=True, slots=True)
class RequestRecorder:
    """Where every exchange ends up once: in the metrics, the access log and the traces, if any."""

    metrics: Metrics
    access: AccessLog
    tracer: Tracer | None = None

    @property
    def tells(self) -> bool:
        """Whether anybody hears more of an exchange than that it was."""
        return self.tracer is not None or _access_log.isEnabledFor(logging.INFO)

    def count(self, model: str, op: str, status: int, seconds: float) -> None:
        """Note an exchange where nobody hears more of it; `op` is as for `note`."""
        self.metrics.request(model, op, status, seconds)

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
        stages: Stages | None = None,
    ) -> None:
        """Count, log and trace one exchange; `op` is an operation or the template of a route."""
        self.count(model, op, status, seconds)
        if path in _SILENT or not self.tells:
            return
        line = Access(request_id, method, path, status, seconds, model, op, rows, trace_id(headers))
        if self.tracer is not None:
            line = line._replace(trace_id=self.tracer.record(line, headers, stages))
        self.access.write(line)
