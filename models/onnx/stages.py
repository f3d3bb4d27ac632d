"""The stages of an export, for whoever waits for it."""

from collections.abc import Callable

# Takes what begins now, in a few words.
OnStage = Callable[[str], None]


def silent(stage: str) -> None:
    """Show nothing."""
