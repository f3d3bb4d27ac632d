"""The server that is measured, and which of its models."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pushforward.bench.endpoint import Endpoint, find_endpoint, is_url
from pushforward.bench.own_server import serving
from pushforward.client import Client


@dataclass(frozen=True, slots=True)
class Target:
    """A model of a running server.

    url: of the server.
    endpoint: the same, taken apart.
    model: what requests name.
    card: what `GET /models/NAME` says of it.
    api_key: for the server.
    """

    url: str
    endpoint: Endpoint
    model: str
    card: dict[str, Any]
    api_key: str | None

    def client(self, timeout: float = 60.0) -> Client:
        """Open a client of the model."""
        return Client(self.url, api_key=self.api_key, model=self.model, timeout=timeout)


@contextmanager
def open_target(text: str, model: str | None, api_key: str | None) -> Iterator[Target]:
    """Find what is measured, and serve it meanwhile where it is a model.

    Args:
        text: the URL of a server, or a model: a folder, or the name of one of the zoo.
        model: of the server's models; None where it has one, or a default.
        api_key: for the server.

    Raises:
        ValueError: the model is not there, or has to be named.
        ClientError: the server refuses to tell.
        UnreachableError: nobody answers.
        StartFailedError: the server for a model does not start.
    """
    if is_url(text):
        yield _ask(text, model, api_key)
        return
    with serving(find_model(text)) as url:
        yield _ask(url, model, api_key)


def find_model(text: str) -> str:
    """What `pushforward serve` takes for a model: a folder, a URI, or one of the zoo by its name.

    Raises:
        ValueError: there is no such model.
    """
    if "://" in text or Path(text).is_dir():
        return text
    import models.zoo

    zoo = Path(models.zoo.__file__).parent
    names = sorted(entry.parent.name for entry in zoo.glob("*/config.json"))
    if text in names:
        return str(zoo / text)
    raise ValueError(
        f"{text}: expected the URL of a server, a model folder, or one of {', '.join(names)}"
    )


def _ask(url: str, model: str | None, api_key: str | None) -> Target:
    endpoint = find_endpoint(url)
    with Client(url, api_key=api_key) as client:
        if model is not None:
            return Target(url, endpoint, model, client.describe(model), api_key)
        cards = client.models()
    if len(cards) == 1:
        return Target(url, endpoint, str(cards[0]["name"]), cards[0], api_key)
    names = ", ".join(str(card["name"]) for card in cards)
    raise ValueError(f"{url} serves {names or 'no model'}: name one with --model")
