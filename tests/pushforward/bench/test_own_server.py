"""Why a server that is started for a measurement did not start."""

import pytest

from pushforward.bench.own_server import reason_of_end


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("", "no output"),
        ("Traceback\n  File\nImportError: no\n", "ImportError: no"),
        ("12:00:00 INFO    settings: a\npushforward: port 1 is in use\n", "port 1 is in use"),
        ("pushforward: port 1 is in use\n12:00:00 INFO    settings: a\n", "port 1 is in use"),
    ],
)
def test_the_reason_is_the_line_that_says_so(log: str, reason: str) -> None:
    assert reason_of_end(log) == reason
