"""What the log says of a start."""

import socket
import subprocess
import sys

import pytest

from service.launch.main import as_flags
from service.settings import read

KEY = "0123456789abcdef"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({}, "all at their defaults"),
        ({"port": 8000, "api_keys": ""}, "all at their defaults"),
        (
            {"port": 0, "traces": True, "max_batch_delay_seconds": 0.5},
            "--port 0 --max-batch-delay-seconds 0.5 --traces true",
        ),
        (
            {"model_repository": "my models:other", "cors_origins": "http://a, http://b"},
            "--model-repository 'my models:other' --cors-origins http://a,http://b",
        ),
        ({"api_keys": KEY}, "--api-keys '**********'"),
    ],
)
def test_the_log_has_the_settings_that_are_not_the_defaults(
    given: dict[str, object], line: str
) -> None:
    assert as_flags(read(given)).removesuffix(" (--print-settings lists all)") == line


def test_why_it_does_not_start_is_the_last_line_of_the_log() -> None:
    """Behind what a thread writes; both streams are one, as containers have them."""
    with socket.create_server(("127.0.0.1", 0)) as used:
        code = f"""
import os, time
from service.launch.main import run
from service.settings import read
write = os.write
os.write = lambda file, data: (time.sleep(0.1), write(file, data))[1]
raise SystemExit(run(read({{"port": {used.getsockname()[1]}, "log_level": "info"}})))
"""
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    assert done.returncode == 3
    first, *_, last = done.stdout.splitlines()
    assert "settings: --" in first
    assert last.startswith("pushforward: ")
