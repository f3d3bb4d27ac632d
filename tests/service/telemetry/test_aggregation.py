"""The metrics of several processes, added up as each of them means."""

import asyncio
import gc
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry import Metrics
from service.telemetry.aggregation import Peers, merge


def used(requests: int, *, waiting: int = 0, is_ready: bool = True) -> Metrics:
    metrics = Metrics()
    metrics.serve("moons", version="1", family="glow", engine="torch", device="cpu")
    metrics.model_ready.labels("moons").set(is_ready)
    queue = metrics.queue("moons", "encode", "torch")
    queue.watch(lambda: waiting, lambda: 1, lambda: 8)
    for _ in range(requests):
        metrics.request("moons", "encode", 200, 0.1)
        queue.batch(rows=3, seconds=0.01, non_finite_rows=0)
    return metrics


def value(text: bytes, name: str, **labels: str) -> float:
    (found,) = [
        sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return found


def test_counts_and_backlogs_are_summed_and_facts_are_not() -> None:
    parts = [used(2, waiting=5), used(3, waiting=1, is_ready=False)]
    parts[1].keys.watch_file(lambda: False)
    text = merge([part.render() for part in parts])
    assert value(text, "pushforward_requests_total", op="encode") == 5
    assert value(text, "pushforward_rows_total", op="encode") == 15
    assert value(text, "pushforward_request_duration_seconds_bucket", le="0.1") == 5
    assert value(text, "pushforward_request_duration_seconds_bucket", le="0.05") == 0
    assert value(text, "pushforward_request_duration_seconds_sum") == pytest.approx(0.5)
    assert value(text, "pushforward_queue_rows", op="encode") == 6
    assert value(text, "pushforward_requests_running") == 2
    assert value(text, "pushforward_model_info") == 1
    assert value(text, "pushforward_model_ready") == 0
    assert value(text, "pushforward_key_file_ok") == 0


def test_one_process_alone_is_shown_as_it_is() -> None:
    text = used(2).render()
    families = [family.name for family in text_string_to_metric_families(text.decode())]
    merged = merge([text])
    assert [family.name for family in text_string_to_metric_families(merged.decode())] == families
    assert value(merged, "pushforward_requests_total", op="encode") == 2


def test_whoever_is_asked_answers_for_all(tmp_path: Path) -> None:
    async def play() -> None:
        async with AsyncExitStack() as stack:
            metrics = []
            for index in range(3):
                peers = Peers(tmp_path, index, 3)
                part = Metrics(peers)
                part.request("moons", "encode", 200, 0.1)
                await peers.open(part.render)
                stack.push_async_callback(peers.close)
                metrics.append(part)
            for part in metrics:
                text = await part.scrape()
                assert value(text, "pushforward_requests_total", op="encode") == 3

    asyncio.run(play())


def test_a_process_that_does_not_answer_is_not_left_out(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        asyncio.run(Metrics(Peers(tmp_path, 0, 2)).scrape())


def test_a_process_answers_after_a_garbage_collection(tmp_path: Path) -> None:
    async def play() -> None:
        near = Metrics(Peers(tmp_path, 0, 2))
        peers = Peers(tmp_path, 1, 2)
        far = Metrics(peers)
        far.request("moons", "encode", 200, 0.1)
        await peers.open(far.render)
        gc.collect()
        assert await near.workers() == (2, 2)
        assert value(await near.scrape(), "pushforward_requests_total", op="encode") == 1
        await peers.close()
        await asyncio.sleep(0.05)

    # On the loop of the service: it refers to no server that nobody else refers to.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(play())


def test_a_check_whether_a_process_is_alive_is_no_error(tmp_path: Path) -> None:
    errors: list[object] = []

    async def play() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, error: errors.append(error))
        peers = Peers(tmp_path, 1, 2)
        await peers.open(lambda: b"x")
        assert await Peers(tmp_path, 0, 2).count_alive() == 2
        await asyncio.sleep(0.05)
        await peers.close()

    asyncio.run(play())
    assert errors == []
