"""Servers that are a list of answers, or a function of the request."""

import io
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np

from pushforward.client import AsyncClient, Client
from tests.service.fake_repository import URL

Answering = Callable[[httpx.Request], httpx.Response]


def npz(version: str = "1", **arrays: Any) -> httpx.Response:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return httpx.Response(200, headers=_headers("x-npz", version), content=buffer.getvalue())


def npy(values: Any, version: str = "1") -> httpx.Response:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return httpx.Response(200, headers=_headers("x-npy", version), content=buffer.getvalue())


def rows_of(request: httpx.Request) -> Any:
    """The array of a request in npy, or x of one in npz."""
    content = np.load(io.BytesIO(request.content))
    return content if isinstance(content, np.ndarray) else content["x"]


def first_column(request: httpx.Request) -> httpx.Response:
    """A model whose log-density is the first column."""
    return npy(rows_of(request)[:, 0])


def blocking(answer: Answering, **options: Any) -> Client:
    options = {"max_retries": 0, **options}
    return Client(URL, transport=httpx.MockTransport(answer), **options)


def awaiting(answer: Any, **options: Any) -> AsyncClient:
    options = {"max_retries": 0, **options}
    return AsyncClient(URL, transport=httpx.MockTransport(answer), **options)


def _headers(kind: str, version: str) -> dict[str, str]:
    return {
        "content-type": f"application/{kind}",
        "x-model": "m",
        "x-model-version": version,
    }
