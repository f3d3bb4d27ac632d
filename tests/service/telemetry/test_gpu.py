"""The memory of GPUs in /metrics: read when asked for, summed over processes where it adds up."""

from dataclasses import dataclass

from service.telemetry import Metrics
from service.telemetry.aggregation import merge
from tests.service.telemetry.test_aggregation import value

CARD = "pushforward_gpu_memory_bytes"
FREE = "pushforward_gpu_memory_free_bytes"
KEPT = "pushforward_gpu_memory_reserved_bytes"
MODEL = "pushforward_gpu_model_memory_bytes"


@dataclass
class Memory:
    """The memory of a card that is made up."""

    total: int
    free: int
    reserved: int

    def read(self) -> "Memory":
        return self


class LostCard:
    """A card that cannot be asked."""

    def read(self) -> Memory:
        raise RuntimeError("CUDA error: unspecified launch failure")


def lines(metrics: Metrics) -> list[str]:
    text = metrics.render().decode()
    return [line for line in text.splitlines() if line.startswith("pushforward_gpu_")]


def on_card(card: str, *, reserved: int = 10, taken: int = 7) -> Metrics:
    metrics = Metrics()
    metrics.gpu.watch("cuda:0", card, Memory(100, 60, reserved).read)
    metrics.gpu.serve("moons", "cuda:0", card, taken, version="1")
    return metrics


def test_on_a_cpu_there_are_none() -> None:
    metrics = Metrics()
    metrics.serve("moons", version="1", family="glow", engine="torch", device="cpu")
    assert lines(metrics) == []


def test_a_card_and_a_model_on_it_are_shown() -> None:
    assert lines(on_card("GPU-a")) == [
        'pushforward_gpu_memory_bytes{card="GPU-a",device="cuda:0"} 100.0',
        'pushforward_gpu_memory_free_bytes{card="GPU-a",device="cuda:0"} 60.0',
        'pushforward_gpu_memory_reserved_bytes{card="GPU-a",device="cuda:0"} 10.0',
        'pushforward_gpu_model_memory_bytes{card="GPU-a",device="cuda:0",model="moons",'
        'version="1"} 7.0',
    ]


def test_each_version_is_shown_and_a_retired_one_no_longer() -> None:
    metrics = on_card("GPU-a")
    metrics.gpu.serve("moons", "cuda:1", "GPU-b", 9, version="2")
    assert value(metrics.render(), MODEL, card="GPU-b", version="2") == 9
    assert value(metrics.render(), MODEL, card="GPU-a", version="1") == 7
    metrics.retire("moons", "1")
    (left,) = [line for line in lines(metrics) if line.startswith(MODEL)]
    assert 'version="2"' in left


def test_a_lost_card_is_left_out_and_the_others_are_shown() -> None:
    metrics = on_card("GPU-a")
    metrics.gpu.watch("cuda:1", "GPU-b", LostCard().read)
    assert len([line for line in lines(metrics) if line.startswith(CARD)]) == 1


def test_processes_on_one_card_share_it_and_each_has_its_part() -> None:
    parts = [on_card("GPU-a"), on_card("GPU-a", reserved=5), on_card("GPU-b", taken=8)]
    text = merge([part.render() for part in parts])
    assert value(text, CARD, card="GPU-a") == 100
    assert value(text, FREE, card="GPU-a") == 60
    assert value(text, KEPT, card="GPU-a") == 15
    assert value(text, MODEL, card="GPU-a") == 14
    assert value(text, MODEL, card="GPU-b") == 8
