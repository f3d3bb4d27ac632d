"""What came, beside what the page shows; `…` stands for anything."""

import json
import re
from typing import Any

import pytest


def compare(came: str, shown: str) -> None:
    """Compare what a command printed with what its page shows.

    JSON is compared as JSON, its numbers but for rounding; an object may hold more than is shown.
    Anything else is compared as text.
    """
    if shown.startswith(("{", "[")):
        assert_alike(json.loads(came), json.loads(shown))
        return
    pattern = re.escape(shown).replace("…", ".*")
    assert re.fullmatch(pattern, came.strip(), re.S), f"shown:\n{shown}\ncame:\n{came}"


def assert_alike(got: Any, expected: Any) -> None:
    """Equal but for rounding, and for what is not shown."""
    match expected:
        case "…":
            return
        case dict():
            for key, value in expected.items():
                assert_alike(got[key], value)
        case list():
            shown = [value for value in expected if value != "…"]
            assert len(got) == len(expected) or len(shown) < len(expected)
            for one, other in zip(got, shown, strict=False):
                assert_alike(one, other)
        case float():
            assert got == pytest.approx(expected, rel=1e-3, abs=1e-3)
        case _:
            assert got == expected
