"""Statistics of models: Triton's numbers, made of the metrics that there are."""

import asyncio
import time
from pathlib import Path

import pytest

from service.telemetry import NO_MODEL, Metrics
from service.telemetry.aggregation import Peers
from service.telemetry.statistics import ModelStatistics, Spent, read_statistics


def use(metrics: Metrics, model: str) -> None:
    """Two answers and a failure, three batches of two operations."""
    encode, decode = (metrics.queue(model, op, "torch", version="1") for op in ("encode", "decode"))
    for queue, sizes in ((encode, (1, 3)), (decode, (4,))):
        queue.watch(lambda: 0, lambda: 0, lambda: 64)
        for rows in sizes:
            queue.batch(rows, 0.25, 0)
            queue.queued(0.125)
    metrics.request(model, "log_prob", 200, 0.5, version="1")
    metrics.request(model, "infer", 200, 1.0, version="1")
    metrics.request(model, "log_prob", 422, 0.0625, version="1")
    metrics.request(NO_MODEL, "log_prob", 404, 8.0)


def find(metrics: Metrics, model: str) -> ModelStatistics:
    return asyncio.run(read_statistics(metrics)).find(model, "1")


def test_each_number_is_that_of_the_metrics() -> None:
    metrics = Metrics()
    began = int(1000 * time.time())
    use(metrics, "moons")
    use(metrics, "moons2")
    found = find(metrics, "moons")
    assert began <= found.last_inference <= 1000 * time.time()
    assert (found.rows, found.batches) == (8, 3)
    assert found.success == Spent(2, 1_500_000_000)
    assert found.fail == Spent(1, 62_500_000)
    assert found.queue == Spent(3, 375_000_000)
    assert found.compute == Spent(3, 750_000_000)
    assert found.by_size == {1: Spent(1, 250_000_000), 4: Spent(2, 500_000_000)}


@pytest.mark.parametrize("seconds", [(2e9, 2e9 - 60), (2e9 - 60, 2e9)])
def test_the_last_inference_is_that_of_any_operation(
    seconds: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics()
    for op, now in zip(("encode", "decode"), seconds, strict=True):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        queue = metrics.queue("moons", op, "torch", version="1")
        queue.watch(lambda: 0, lambda: 0, lambda: 64)
        queue.batch(1, 0.25, 0)
    assert find(metrics, "moons").last_inference == 2_000_000_000_000


def test_a_model_that_nobody_asked_has_zeros() -> None:
    assert find(Metrics(), "moons") == ModelStatistics()


@pytest.mark.parametrize(("rows", "size"), [(16384, 16384), (16385, 32768), (50_000, 32768)])
def test_the_largest_batches_are_counted_as_one_size(rows: int, size: int) -> None:
    metrics = Metrics()
    metrics.queue("moons", "encode", "torch", version="1").batch(rows, 1.0, 0)
    assert find(metrics, "moons").by_size == {size: Spent(1, 1_000_000_000)}


def test_all_processes_are_summed(tmp_path: Path) -> None:
    async def play() -> ModelStatistics:
        own, peers = Metrics(Peers(tmp_path, 0, 2)), Peers(tmp_path, 1, 2)
        other = Metrics()
        for metrics in (own, other):
            use(metrics, "moons")
        await peers.open(other.render)
        found = (await read_statistics(own)).find("moons", "1")
        await peers.close()
        return found

    found = asyncio.run(play())
    assert (found.rows, found.success.count) == (16, 4)
    assert found.by_size == {1: Spent(2, 500_000_000), 4: Spent(4, 1_000_000_000)}
