"""What both clients do with httpx: its settings, the arguments of a request, the end of a call."""

import os
from collections.abc import Mapping
from typing import Any, TypeVar

import httpx

from pushforward.client.calls import Call
from pushforward.client.errors import from_response, from_transport
from pushforward.client.retries import AttemptResult

T = TypeVar("T")

DEFAULT_BASE_URL = "http://127.0.0.1:8000"
BASE_URL_VARIABLE = "PUSHFORWARD_BASE_URL"

_CONNECT_SECONDS = 5.0


def http_options(base_url: str | None, api_key: str | None, timeout: float) -> dict[str, Any]:
    """Say to httpx what both clients say to it."""
    headers = {"X-Timeout-Seconds": f"{timeout:.3f}"}
    if api_key is not None:
        headers["Authorization"] = f"Bearer {api_key}"
    return {
        "base_url": base_url or os.environ.get(BASE_URL_VARIABLE) or DEFAULT_BASE_URL,
        "headers": headers,
        "timeout": httpx.Timeout(timeout, connect=min(_CONNECT_SECONDS, timeout)),
    }


def request_arguments(call: Call[Any]) -> Mapping[str, Any]:
    """The arguments of httpx's `request`."""
    return {
        "method": call.method,
        "url": call.path,
        "params": call.params,
        "headers": call.headers,
        "content": call.content,
    }


def finish(call: Call[T], outcome: AttemptResult) -> T:
    """Read an answer.

    Raises:
        ClientError: what became of the call in its place.
    """
    if not isinstance(outcome, httpx.Response):
        raise from_transport(outcome) from outcome
    if not outcome.is_success:
        raise from_response(outcome)
    return call.read(outcome)
