"""The recorder of answered requests: the one place where they are counted, logged and traced."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.telemetry import NO_MODEL, Metrics
from service.telemetry.access_log import ACCESS_LOGGER, AccessLog, AccessRecord
from service.telemetry.tracing import Stages, Tracer, trace_id

# Asked every few seconds by machines: counted, but not worth a line each.
_UNLOGGED = frozenset(("/health", "/health/live", "/health/ready", "/metrics"))

# From this status on an answer is an error.
_FAILED = 400

_access_log = logging.getLogger(ACCESS_LOGGER)


@dataclass(frozen=True, slots=True)
class RequestRecorder:
    """Records every request once: in the metrics, the access log and the traces, if any."""

    metrics: Metrics
    access: AccessLog
    tracer: Tracer | None = None

    @property
    def is_verbose(self) -> bool:
        """Whether more is recorded of a request than that it was answered."""
        return self.tracer is not None or _access_log.isEnabledFor(logging.INFO)

    def count(
        self,
        model: str,
        op: str,
        status: int,
        seconds: float,
        *,
        version: str = "",
        key: str = "",
        rows: int | None = None,
    ) -> None:
        """Count a request of which no more is recorded; see `record`."""
        self.metrics.request(model, op, status, seconds, version=version)
        if key:
            self.metrics.keys.answered(key, status, rows or 0 if status < _FAILED else 0)

    def count_batch(
        self, model: str, op: str, status: int, seconds: Sequence[float], *, version: str = ""
    ) -> None:
        """Count requests that were answered alike, of which no more is recorded."""
        self.metrics.request_batch(model, op, status, seconds, version=version)

    def record(
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
        version: str = "",
        rows: int | None = None,
        stages: Stages | None = None,
        key: str = "",
    ) -> None:
        """Count, log and trace one request.

        Args:
            method, path, headers: of the request.
            request_id, status, seconds: of the answer.
            op: an operation, or the template of a route.
            model, version: that answered.
            rows: of the request.
            stages: of what computes.
            key: the name of its API key.
        """
        self.count(model, op, status, seconds, version=version, key=key, rows=rows)
        if path in _UNLOGGED or not self.is_verbose:
            return
        line = AccessRecord(
            *(request_id, method, path, status, seconds),
            *(model, op, rows, trace_id(headers)),
            version=version,
            key=key,
        )
        if self.tracer is not None:
            line = line._replace(trace_id=self.tracer.record(line, headers, stages))
        self.access.write(line)
