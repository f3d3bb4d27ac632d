"""The benchmark harness on a clock of its own: every number below is exact."""

import gc
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.harness import Ratios, interleave, take_turns


class Clock:
    """Time passes only when a candidate works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> Callable[[], None]:
        def spend() -> None:
            self.now += seconds

        return spend


def test_speedup_is_the_ratio_to_the_first_candidate() -> None:
    clock = Clock()
    candidates = {"old": clock.work(0.25), "new": clock.work(0.125), "slow": clock.work(0.5)}
    ratios = interleave(candidates, rounds=3, turn_seconds=1.0, rows=8, clock=clock)
    assert ratios.baseline == "old"
    assert [ratios.speedup(name) for name in candidates] == [1.0, 2.0, 0.5]
    assert ratios.seconds["new"] == (0.125, 0.125, 0.125)
    assert ratios.noise == 0.0


def test_a_turn_lasts_as_long_as_asked() -> None:
    clock = Clock()
    calls: list[int] = []

    def call() -> None:
        calls.append(1)
        clock.now += 0.125

    interleave({"only": call}, rounds=1, turn_seconds=2.0, clock=clock)
    warm_up = 1 + 2 + 4 + 8
    assert len(calls) == warm_up + 2 * 16  # the baseline has two turns of 2 s / 0.125 s calls


def test_drift_between_rounds_does_not_move_the_ratio() -> None:
    drift = [1.0, 2.0, 16.0, 4.0]
    taken = {"old": 0, "new": 0}

    def measure(name: str, seconds: float, turns_a_round: int) -> Callable[[], float]:
        def turn() -> float:
            round_index = taken[name] // turns_a_round
            taken[name] += 1
            return seconds * drift[round_index]

        return turn

    ratios = take_turns({"old": measure("old", 3.0, 2), "new": measure("new", 1.0, 1)}, rounds=4)
    assert ratios.speedup("new") == 3.0
    assert ratios.spread("new") == (3.0, 3.0)
    assert ratios.seconds["new"] == (1.0, 2.0, 16.0, 4.0)


def test_noise_is_the_baseline_against_itself() -> None:
    ratios = Ratios("old", {"old": (1.0, 1.0, 1.0)}, baseline_again=(0.8, 1.25, 1.0))
    assert ratios.noise == pytest.approx(0.2)


def test_the_order_moves_on_each_round() -> None:
    order: list[str] = []

    def measure(name: str) -> Callable[[], float]:
        def turn() -> float:
            order.append(name)
            return 1.0

        return turn

    take_turns({"a": measure("a"), "b": measure("b")}, rounds=3)
    assert "".join(order) == "aba" + "baa" + "aab"


def test_the_collector_rests_during_a_turn_and_comes_back() -> None:
    clock = Clock()
    seen: list[bool] = []

    def call() -> None:
        seen.append(gc.isenabled())
        clock.now += 1.0

    interleave({"only": call}, rounds=1, turn_seconds=1.0, clock=clock)
    assert set(seen) == {False}
    assert gc.isenabled()


def test_the_collector_comes_back_after_a_failure() -> None:
    def fail() -> None:
        raise RuntimeError("the candidate broke")

    with pytest.raises(RuntimeError, match="the candidate broke"):
        interleave({"broken": fail})
    assert gc.isenabled()


def test_table_names_rates_and_noise() -> None:
    ratios = Ratios("old", {"old": (0.5, 0.5), "new": (0.25, 0.25)}, (0.5, 0.5), rows=100)
    table = ratios.table()
    assert "| old | 500 | 200 | 1 (baseline) |" in table
    assert "| new | 250 | 400 | 2.00 (2.00 to 2.00) |" in table
    assert "±0.0 %" in table


def test_write_keeps_every_number(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "fold.json"
    Ratios("old", {"old": (0.5,), "new": (0.25,)}, (0.5,), rows=4).write(path)
    written = json.loads(path.read_text("utf-8"))
    assert written["candidates"]["new"] == {
        "seconds": [0.25],
        "median_seconds": 0.25,
        "speedup": 2.0,
        "speedup_quartiles": [2.0, 2.0],
    }
    assert written["noise"] == 0.0
    assert written["machine"]["packages"]["numpy"]


@pytest.mark.parametrize(("names", "rounds"), [([], 3), (["a"], 0)], ids=["nobody", "no-round"])
def test_nothing_to_measure_is_refused(names: list[str], rounds: int) -> None:
    with pytest.raises(ValueError, match="expected candidates and rounds"):
        take_turns({name: lambda: 1.0 for name in names}, rounds=rounds)
