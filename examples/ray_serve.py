"""Serve flows under Ray Serve: as many replicas of the server as requests want, on any machines.

    pip install 'pushforward[cpu,ray]'
    serve run ray_serve:build model_repository=/models/flights num_cpus=2
    curl localhost:8000/score -H 'Content-Type: application/json' -d '{"x": [[0.5, 1.0]]}'

Arguments are those of `build`, and settings of `pushforward serve`; every machine must see the
folders. A replica is a process that loads its models once, before it is sent requests. It batches,
refuses (429 with Retry-After, problem+json) and counts as `pushforward serve` does; /metrics is
that of the replica that is asked. It is the ASGI application: the fast path of single rows belongs
to the HTTP server of `pushforward serve`, and HTTP is that of Ray's proxies here. What was with a
replica that dies is answered 500, in Ray's words.
"""

from typing import Any

import httpx
import ray
from ray import serve
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pushforward.asgi import create_app

# How long a replica that is to go may finish what it was sent: more than a request may take.
GRACE_SECONDS = 45.0


class OneRequestId:
    """The application without its X-Request-Id: Ray's proxies write the same one again."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one message of a connection."""

        async def send_less(message: Message) -> None:
            if message["type"] == "http.response.start":
                pairs = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
                message = {**message, "headers": pairs}
            await send(message)

        await self._app(scope, receive, send_less)


class Replica:
    """One server; `serve.ingress` gives it its application."""

    app: ASGIApp

    async def check_health(self) -> None:
        """Raise where the server is not ready: Ray then replaces it."""
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://replica") as client:
            (await client.get("/health/ready")).raise_for_status()


def build(arguments: dict[str, Any]) -> serve.Application:
    """Describe the replicas to Ray.

    Args:
        arguments: num_cpus of a replica (1), min_replicas (2), max_replicas (8),
            target_ongoing_requests (16), and settings.
    """
    settings = dict(arguments)
    num_cpus = float(settings.pop("num_cpus", 1))
    min_replicas = int(settings.pop("min_replicas", 2))
    max_replicas = int(settings.pop("max_replicas", 8))
    target = float(settings.pop("target_ongoing_requests", 16))

    def make_app() -> ASGIApp:
        granted = ray.get_runtime_context().get_assigned_resources()
        return OneRequestId(create_app(cores=granted.get("CPU", num_cpus), **settings))

    deployment = serve.deployment(
        name="pushforward",
        ray_actor_options={"num_cpus": num_cpus},
        autoscaling_config={
            "min_replicas": min_replicas,
            "max_replicas": max_replicas,
            # The queue of a replica: requests that wait or are computed. What is refused is gone at
            # once: the target is to be less than the server takes in max_queue_seconds.
            "target_ongoing_requests": target,
            "upscale_delay_s": 10,
        },
        # No bound of Ray's before those of the server: what waits there makes its batches, and
        # what it cannot take in time it refuses.
        max_ongoing_requests=10_000,
        graceful_shutdown_timeout_s=GRACE_SECONDS,
        health_check_period_s=5,
        logging_config={"enable_access_log": False},
    )
    return deployment(serve.ingress(make_app)(Replica)).bind()
