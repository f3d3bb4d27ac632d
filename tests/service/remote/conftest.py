"""A bucket of S3 that the environment leads to."""

from collections.abc import Iterator

import pytest

from tests.service.remote.s3_server import Bucket, s3_server


@pytest.fixture(scope="module")
def s3() -> Iterator[Bucket]:
    with s3_server() as bucket:
        yield bucket


@pytest.fixture
def bucket(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket without faults."""
    for name, value in s3.variables.items():
        monkeypatch.setenv(name, value)
    s3.objects.clear()
    s3.requests.clear()
    s3.asked_bytes.clear()
    s3.fault = lambda *_: False
    return s3
