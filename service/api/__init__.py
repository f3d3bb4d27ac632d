"""Routers and OpenAPI: what the service says of itself and its models. No logic."""
