"""What the service counts about itself, in Prometheus' form."""

from service.telemetry.metrics import CONTENT_TYPE, NO_MODEL, Metrics, QueueMetrics

__all__ = ["CONTENT_TYPE", "NO_MODEL", "Metrics", "QueueMetrics"]
