"""Errors of the ordinary routes, and of the framework, in the one form that all errors have."""

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from service.errors import Fault, InvalidRequest, ServiceError
from service.problem import PROBLEM_MEDIA_TYPE, from_status, problem

# Every other error of every route, for FastAPI(responses=...).
ANY_PROBLEM: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "Any error",
        "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}


def add_error_handlers(app: FastAPI) -> None:
    """Let an application answer its errors as problems (RFC 9457)."""
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)


def _render(request: Request, error: ServiceError) -> Response:
    body, headers = problem(error, request.state.request_id)
    named = {name.decode(): value.decode() for name, value in headers}
    return Response(body, error.status, named)


async def _on_service_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ServiceError):
        raise error
    return _render(request, error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """The framework's own: no such path, no such method."""
    if not isinstance(error, HTTPException):
        raise error
    headers = dict(error.headers or {})
    detail = str(error.detail)
    if error.status_code == 404:
        detail = _find_mend(request)
    elif error.status_code == 405:
        if headers.get("Allow") == "GET":
            headers["Allow"] = "GET, HEAD"  # every route that has the one answers the other
        detail = f"{request.method}: expected {headers.get('Allow', 'another method')}"
    return _render(request, from_status(error.status_code, detail, tuple(headers.items())))


def _find_mend(request: Request) -> str:
    """Say what to ask for instead of a path that is none."""
    path = request.scope["path"]
    if path == "/redoc":
        return "no such path any more; GET /docs has the documentation"
    bare = path.rstrip("/")
    if bare != path:
        scope = {**request.scope, "path": bare}
        if any(route.matches(scope)[0] is not Match.NONE for route in request.app.router.routes):
            return f"no such path; leave out the slash at its end: {bare:.100}"
    return "no such path; GET /openapi.json has all of them"


async def _on_validation_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    faults = [
        Fault("/" + "/".join(map(str, item["loc"])), str(item["msg"])) for item in error.errors()
    ]
    detail = "; ".join(f"{fault.pointer}: {fault.detail}" for fault in faults)
    return _render(request, InvalidRequest(detail, faults=faults))
