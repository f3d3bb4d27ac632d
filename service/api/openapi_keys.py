"""The keys in OpenAPI: how a client shows one, and which calls need none."""

from typing import Any

from service.auth import OPEN_PATHS


def add_keys(document: dict[str, Any]) -> None:
    """Say how a client shows its key; Swagger UI then asks for it under Authorize."""
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    document["security"] = [{"bearer": []}, {"key": []}]
    for path in OPEN_PATHS & document["paths"].keys():
        for call in document["paths"][path].values():
            call["security"] = []
