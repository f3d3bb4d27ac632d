"""The health service (grpc.health.v1): the service as a whole, and each model by its name.

    ""                                SERVING once models are loaded, NOT_SERVING while draining
    inference.GRPCInferenceService    the same
    the name of a model               SERVING where it is served; else there is no such service

Where there are keys, models are told to those who show one; the service as a whole to anybody.

Reference: gRPC, health-checking.md.
"""

import asyncio
from typing import Any

from grpc import StatusCode
from grpc_health.v1.health_pb2 import DESCRIPTOR, HealthCheckRequest, HealthCheckResponse

from service.auth import ApiKeyAuth
from service.contracts import Repository
from service.errors import NotFound, NotReady
from service.transport.grpc.messages import SERVICE
from service.transport.grpc.open_messages import OpenMessages
from service.transport.grpc.status import read_metadata

SERVICE_NAME: str = DESCRIPTOR.services_by_name["Health"].full_name
# What stands for the service as a whole.
_WHOLE = ("", SERVICE)
# How soon whoever watches learns of a change.
_LOOK_SECONDS = 0.5


class RepositoryHealth:
    """The health of a repository, as it is when it is asked for.

    Args:
        repository: whose health it is.
        auth: knows who may ask for models; None where there are no keys.
        messages: reads what is asked.
    """

    def __init__(
        self, repository: Repository, auth: ApiKeyAuth | None, messages: OpenMessages
    ) -> None:
        self._repository = repository
        self._auth = auth
        self._messages = messages
        self._is_draining = False

    def begin_drain(self) -> None:
        """From now on nothing is served, and whoever watches is let go."""
        self._is_draining = True

    async def check(self, _: Any, context: Any) -> bytes:
        """Say how one service is."""
        service = await self._read(context)
        status = self._find(service)
        if status is None:
            await context.abort(StatusCode.NOT_FOUND, f"no service {service!r:.80}")
        return _write(status)

    async def watch(self, _: Any, context: Any) -> None:
        """Say how one service is, and whenever that changes."""
        service = await self._read(context)
        said = None
        while True:
            is_last = self._is_draining
            status = self._find(service)
            if status is None:
                status = HealthCheckResponse.SERVICE_UNKNOWN
            if status != said:
                await context.write(_write(status))
                said = status
            if is_last:
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def _read(self, context: Any) -> str:
        """Read for which service is asked, by somebody who may."""
        message = await self._messages.read(context, HealthCheckRequest)
        if message is None:
            await context.abort(StatusCode.INVALID_ARGUMENT, "message: expected one, got none")
        service: str = message.service
        await self._check_key(service, context)
        return service

    async def _check_key(self, service: str, context: Any) -> None:
        if self._auth is None or service in _WHOLE:
            return
        if not self._auth.admits(read_metadata(context)[0]):
            await context.abort(StatusCode.UNAUTHENTICATED, "the health of a model wants a key")

    def _find(self, service: str) -> Any:
        is_ready = self._repository.is_ready and not self._is_draining
        if service not in _WHOLE:
            try:
                self._repository.get(service)
            except NotReady:
                is_ready = False
            except NotFound:
                return None
        return HealthCheckResponse.SERVING if is_ready else HealthCheckResponse.NOT_SERVING


def _write(status: Any) -> bytes:
    written: bytes = HealthCheckResponse(status=status).SerializeToString()
    return written
