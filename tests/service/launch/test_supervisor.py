"""Which losses of a worker are made good, and when the service ends over them."""

import time
from typing import Any

import pytest

from service.launch import supervisor
from service.launch.exits import EXIT_FAILED
from service.launch.supervisor import Supervisor
from service.settings import Settings


class Lost:
    """A process that has ended."""

    pid = 1


@pytest.fixture
def crew() -> Supervisor:
    return Supervisor(Settings(), [None, None], lambda: None)  # type: ignore[list-item,arg-type,return-value]


def lose(crew: Supervisor, *, served_seconds: float = 0.0) -> float | None:
    """Lose the process of the first place.   -> after how long there will be another."""
    place: Any = crew._places[0]
    now = time.monotonic()
    place.again, place.begun = None, now - served_seconds
    crew._lose(Lost(), place, 1)  # type: ignore[arg-type]
    return None if place.again is None else place.again - now


def test_the_pause_grows_and_then_all_end(
    crew: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    for seconds in supervisor._BACK_OFF_SECONDS:
        assert lose(crew) == pytest.approx(seconds, abs=0.2)
    assert not crew._is_ending
    assert lose(crew) is None
    assert (crew._is_ending, crew._code) == (True, EXIT_FAILED)
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "CRITICAL"]
    assert "5 times in a row" in line


def test_a_sound_process_that_is_lost_is_the_first_again(crew: Supervisor) -> None:
    for _ in range(10):
        assert lose(crew, served_seconds=61) == pytest.approx(0.5, abs=0.2)
    assert not crew._is_ending
