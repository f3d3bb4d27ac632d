"""What is known of an engine's speed, and what full queues are told."""

from service.batcher.throughput import ThroughputEstimator


def test_before_the_first_batch_nothing_is_known() -> None:
    pace = ThroughputEstimator(10)
    assert pace.seconds_for(1000) == 0
    assert pace.retry_after(1000) == 1


def test_a_small_batch_alone_tells_nothing() -> None:
    pace = ThroughputEstimator(10)
    pace.observe(1, 100.0)
    assert pace.seconds_for(1000) == 0


def test_a_full_batch_tells_the_pace() -> None:
    pace = ThroughputEstimator(10)
    pace.observe(10, 1.0)
    assert pace.seconds_for(100) == 10
    assert pace.retry_after(101) == 11


def test_a_small_batch_that_is_faster_counts() -> None:
    pace = ThroughputEstimator(10)
    pace.observe(10, 10.0)
    pace.observe(4, 1.0)
    assert pace.seconds_for(16) == 10.0


def test_slow_small_batches_say_nothing_of_a_backlog() -> None:
    pace = ThroughputEstimator(10)
    pace.observe(10, 1.0)
    for _ in range(100):
        pace.observe(1, 1.0)
    assert pace.seconds_for(100) == 10


def test_full_batches_that_slow_down_are_believed_in_time() -> None:
    pace = ThroughputEstimator(10)
    pace.observe(10, 1.0)
    for _ in range(40):
        pace.observe(10, 2.0)
    assert 19.9 < pace.seconds_for(100) < 20.1


def test_a_batch_that_took_no_time_is_ignored() -> None:
    pace = ThroughputEstimator(10)
    pace.observe(10, 0.0)
    assert pace.seconds_for(100) == 0
