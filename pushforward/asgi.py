"""The application of `pushforward serve`, for a server that is not ours.

    from pushforward.asgi import create_app

    app = create_app(model_repository=["models/flights"])

Routes, batching, limits, errors and metrics are those of the service. What belongs to its own
server is not there: the fast path of single rows, several workers, its grace at the end, its log
of requests; who serves the application finishes the requests before it ends the lifespan.
"""

import math
from typing import Any

from starlette.types import ASGIApp

from service import app
from service.engines.cpu import usable_cores
from service.repository import FolderRepository
from service.settings import read
from service.telemetry import Metrics, access_log, tracing


def create_app(*, cores: float | None = None, **settings: Any) -> ASGIApp:
    """Make the ASGI application; its lifespan loads the models, and finishes accepted rows.

    Args:
        cores: how many of the processors its engines may use; None: all that this process may.
        settings: as the flags of `pushforward serve`, with `_` for `-`; what is not given comes
            from PUSHFORWARD_* variables. Where it listens is not the application's: set keys
            wherever strangers can reach it.

    Raises:
        SettingsError: a setting cannot be used.
    """
    if cores is not None:
        # Processes that share a machine have each their part of it.
        settings["workers"] = max(1, math.ceil(usable_cores() / cores))
    chosen = read(settings)
    metrics = Metrics()
    access = access_log.AccessLog(chosen.log_format)
    tracer = tracing.start() if chosen.traces else None
    return app.create_app(chosen, FolderRepository(chosen, metrics), metrics, access, tracer)
