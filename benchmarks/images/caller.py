"""Arrays to a server and back."""

import io
from collections.abc import Mapping
from typing import Any, TypeAlias

import httpx
import numpy as np
from numpy.typing import NDArray

from models.datasets import Dataset

Array: TypeAlias = NDArray[Any]

_NPZ = "application/x-npz"
_TIMEOUT = 300.0


class Caller:
    """A client of one server.

    Args:
        url: of the server.
    """

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=_TIMEOUT)
        cards = self._http.get("/models").json()["models"]
        self._classes = {card["name"]: card.get("num_classes") for card in cards}

    def call(
        self, operation: str, model: str, arrays: Mapping[str, Array], **query: Any
    ) -> dict[str, Array]:
        """The arrays of an answer.

        Raises:
            RuntimeError: it is an error.
        """
        response = self._http.post(
            f"/{operation}",
            params={"model": model, **query},
            content=_written(arrays) if arrays else b"",
            headers={"Accept": _NPZ, **({"Content-Type": _NPZ} if arrays else {})},
        )
        if response.status_code != httpx.codes.OK:
            raise RuntimeError(f"{model}, {operation}: {response.text[:300]}")
        with np.load(io.BytesIO(response.content)) as found:
            return {key: found[key] for key in found.files}

    def context(self, model: str, rows: Dataset) -> dict[str, Array]:
        """What a class-conditional model must be told of rows; of others nothing."""
        classes = self._classes[model]
        if not classes or rows.labels is None:
            return {}
        return {"context": np.eye(classes, dtype=np.float32)[rows.labels]}


def _written(arrays: Mapping[str, Array]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **dict[str, Any](arrays))
    return file.getvalue()
