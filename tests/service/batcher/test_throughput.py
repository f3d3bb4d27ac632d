"""What is known of an engine's speed, and the Retry-After of full queues."""

from service.batcher.throughput import ThroughputEstimator


def test_before_the_first_batch_nothing_is_known() -> None:
    throughput = ThroughputEstimator(10)
    assert throughput.seconds_for(1000) == 0
    assert throughput.retry_after(1000) == 1


def test_a_small_batch_alone_says_nothing() -> None:
    throughput = ThroughputEstimator(10)
    throughput.observe(1, 100.0)
    assert throughput.seconds_for(1000) == 0


def test_a_full_batch_gives_the_throughput() -> None:
    throughput = ThroughputEstimator(10)
    throughput.observe(10, 1.0)
    assert throughput.seconds_for(100) == 10
    assert throughput.retry_after(101) == 11


def test_a_small_batch_that_is_faster_counts() -> None:
    throughput = ThroughputEstimator(10)
    throughput.observe(10, 10.0)
    throughput.observe(4, 1.0)
    assert throughput.seconds_for(16) == 10.0


def test_slow_small_batches_say_nothing_of_a_backlog() -> None:
    throughput = ThroughputEstimator(10)
    throughput.observe(10, 1.0)
    for _ in range(100):
        throughput.observe(1, 1.0)
    assert throughput.seconds_for(100) == 10


def test_full_batches_that_slow_down_are_believed_in_time() -> None:
    throughput = ThroughputEstimator(10)
    throughput.observe(10, 1.0)
    for _ in range(40):
        throughput.observe(10, 2.0)
    assert 19.9 < throughput.seconds_for(100) < 20.1


def test_a_batch_that_took_no_time_is_ignored() -> None:
    throughput = ThroughputEstimator(10)
    throughput.observe(10, 0.0)
    assert throughput.seconds_for(100) == 0
