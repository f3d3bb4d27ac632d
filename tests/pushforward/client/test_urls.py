"""Every error names what was asked: the method and the URL."""

from typing import Any

import httpx
import numpy as np
import pytest

from pushforward.client import Client, ClientError, ConnectionFailed, ResponseError
from tests.pushforward.client.scripted import blocking


def refused(outcome: Any) -> ClientError:
    def answer(request: httpx.Request) -> httpx.Response:
        if isinstance(outcome, httpx.Response):
            return outcome
        raise outcome("as told")

    with blocking(answer, model="m") as client, pytest.raises(ClientError) as caught:
        client.log_prob(np.ones((1, 2)))
    return caught.value


PROBLEM = {"detail": "bad rows", "code": "shape_mismatch", "request_id": "r-1"}
PAGE = "<html><head><title>502 Bad\n Gateway</title></head><body>nginx</body></html>"


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (httpx.Response(422, json=PROBLEM), "422 shape_mismatch: bad rows (request r-1)"),
        (httpx.Response(502, html=PAGE), "502: 502 Bad Gateway"),
        (httpx.Response(500), "500: Internal Server Error"),
        (httpx.Response(200, html="<p>hello</p>"), "200: expected application/x-npy, got 'text/h"),
        (httpx.Response(307, headers={"location": "https://other/log_prob"}), "https://other/log"),
        (httpx.ConnectError, "ConnectError: as told"),
        (httpx.ConnectTimeout, "ConnectTimeout: as told"),
        (httpx.ReadTimeout, "ReadTimeout: as told"),
        (httpx.RemoteProtocolError, "RemoteProtocolError: as told"),
    ],
    ids=["problem", "page", "nothing", "no-npy", "redirected", *"abcd"],
)
def test_an_error_names_the_url(outcome: Any, text: str) -> None:
    error = refused(outcome)
    assert str(error).startswith("POST http://server/log_prob: "), error
    assert text in str(error)
    assert "\n" not in str(error)


def test_method_and_url_are_attributes() -> None:
    error = refused(httpx.Response(422, json=PROBLEM))
    assert isinstance(error, ResponseError)
    assert (error.method, error.url) == ("POST", "http://server/log_prob")


@pytest.mark.parametrize(
    ("base_url", "text"),
    [
        ("http://user:secret@127.0.0.1:9", "GET http://127.0.0.1:9/models: ConnectError"),
        ("127.0.0.1:9", "missing an 'http://' or 'https://'"),
    ],
)
def test_a_server_that_is_not_there(base_url: str, text: str) -> None:
    with Client(base_url, max_retries=0) as client, pytest.raises(ConnectionFailed) as caught:
        client.models()
    assert text in str(caught.value)
    assert "secret" not in str(caught.value)
