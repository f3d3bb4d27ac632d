"""Rows in bulk, without a server: `Scorer`, and what the commands over files are made of."""

from pushforward.batch.scorer import Scorer

__all__ = ["Scorer"]
