"""What the log says of a start."""

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
