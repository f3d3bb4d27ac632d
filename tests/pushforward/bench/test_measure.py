"""A measurement from its load to its report, with loads that nobody sends."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pushforward.bench.endpoint import Endpoint
from pushforward.bench.load import Load, Measurement
from pushforward.bench.measure import Trial
from pushforward.bench.requests import RequestKind
from pushforward.bench.server_metrics import ServerCounts
from pushforward.bench.target import Target
from pushforward.bench.text import number
from pushforward.cli.bench_report import show, show_step
from tests.pushforward.bench.fake_loads import measurement, recorded

ENDPOINT = Endpoint("127.0.0.1", 1, "h", None, "")
CARD = {"name": "toy", "version": 1, "engine": "onnx"}
LOAD = Load(ENDPOINT, (b"",), 2.0, 0.0, 512, arrivals="constant")


class FakeServer:
    """A server of which 2,000 requests/s are answered at most; 5 ms each.

    It counts a batch a request. `status` is that of all answers, `given_up` of all loads.
    """

    def __init__(self) -> None:
        self.loads: list[Load] = []
        self.status, self.given_up = 200, ""
        self.latency, self.most = 0.005, 2000.0
        self.batches = 0
        self.start = 0.0

    def send(self, load: Load) -> Measurement:
        """Pretend to send a load."""
        self.loads.append(load)
        rate = load.rate or self.most
        due = np.arange(0, load.seconds, 1 / rate)
        self.batches += len(due)
        behind = due * max(0.0, rate / self.most - 1)
        recording = recorded(due, self.latency + behind, status=self.status)
        return measurement(recording, start=self.start, end=load.seconds, given_up=self.given_up)

    def counts(self, *_: Any) -> ServerCounts:
        """What its /metrics say."""
        count = float(self.batches)
        names = ("batch_rows", "compute_duration_seconds", "queue_duration_seconds")
        sums = {f"{name}_{part}": count for name in names for part in ("sum", "count")}
        return ServerCounts(sums)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    fake = FakeServer()
    monkeypatch.setattr("pushforward.bench.measure.send_load", fake.send)
    monkeypatch.setattr("pushforward.bench.measure.ask_counts", fake.counts)
    return fake


@pytest.fixture
def trial() -> Trial:
    target = Target("http://h", ENDPOINT, "toy", CARD, None)
    return Trial(target, RequestKind("log_prob", 1, "json"), (b"12",))


def test_a_knee_tells_what_the_server_counted_at_the_knee(
    server: FakeServer, trial: Trial, capsys: pytest.CaptureFixture[str]
) -> None:
    report = trial.find_knee(LOAD, 50.0, show_step)
    assert report["knee_per_second"] == pytest.approx(2000, rel=0.06)
    confirmed = server.loads[-1]
    assert confirmed.seconds == 3 * LOAD.seconds
    assert confirmed.rate == report["steps"][-1]["rate"]
    assert report["server_metrics"]["batches"] == report["knee"]["requests"]
    assert report["steps"][0]["server_metrics"]["batches"] == report["steps"][0]["requests"]
    show(report)
    said = capsys.readouterr()
    assert f"{report['knee']['requests']:,} batches of 1 rows" in said.out
    assert len(said.err.splitlines()) == len(report["steps"])


def test_a_load_that_cannot_succeed_is_sent_once(
    server: FakeServer, trial: Trial, capsys: pytest.CaptureFixture[str]
) -> None:
    server.status = 413
    report = trial.find_knee(LOAD, 50.0, show_step)
    assert len(server.loads) == 1
    assert (report["knee"], report["steps"], report["is_interrupted"]) == (None, [], False)
    reason = "no request of a first load was answered (overloaded: 4,000)"
    assert report["problem"] == reason
    assert report["warnings"] == [f"no rate was reached: {reason}"]
    show(report)
    assert f"No rate has a p99 below 50 ms: {reason}" in capsys.readouterr().out


def test_a_server_that_is_gone_is_not_told_as_an_interrupt(
    server: FakeServer, trial: Trial, capsys: pytest.CaptureFixture[str]
) -> None:
    server.given_up = "it is gone"
    report = trial.find_knee(LOAD, 50.0, show_step)
    assert len(server.loads) == 1
    assert (report["is_interrupted"], report["given_up"]) == (False, "it is gone")
    show(report)
    assert "The search was ended early: it is gone" in capsys.readouterr().out


def test_slow_rates_are_tried_until_they_have_requests_for_a_p99(
    server: FakeServer, trial: Trial
) -> None:
    server.latency, server.most = 0.06, 40.0
    report = trial.find_knee(replace(LOAD, seconds=3.0), 50.0, show_step)
    assert report["knee"] is None
    assert report["problem"] == "0.609/s: p99 60 ms"
    assert (server.loads[0].connections, server.loads[0].seconds) == (16, 2.0)
    assert [one.seconds for one in server.loads[1:]] == [60.0] * 4


def test_no_number_is_a_power_of_ten(
    server: FakeServer, trial: Trial, capsys: pytest.CaptureFixture[str]
) -> None:
    server.latency = 3.1416
    load = replace(LOAD, rate=0.5, seconds=4000.0)
    report = trial.measure(load)
    show(report)
    server.most = 20_000.0
    show(trial.find_knee(LOAD, 50_000.0, show_step))
    said = capsys.readouterr()
    assert "3,142" in said.out
    assert "answered in 4,000 s" in said.out
    assert "e+" not in said.out + said.err + " ".join(report["warnings"])


def test_the_processes_that_are_told_are_those_that_send(server: FakeServer, trial: Trial) -> None:
    load = replace(LOAD, connections=1, processes=4)
    assert trial.measure(load)["processes"] == 1
    assert trial.measure(replace(load, connections=9))["processes"] == 4
    assert trial.find_knee(load, 50.0, show_step)["processes"] == 1


def test_an_interrupt_behind_a_load_leaves_its_report(
    server: FakeServer, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a server that stalls does not tell its metrics either."""
    asked: list[None] = []

    def counts(*_: Any) -> ServerCounts:
        asked.append(None)
        if len(asked) > 1:
            raise KeyboardInterrupt
        return ServerCounts({})

    monkeypatch.setattr("pushforward.bench.measure.ask_counts", counts)
    report = trial.measure(replace(LOAD, rate=100.0))
    assert (report["requests"], report["is_interrupted"]) == (200, True)
    assert report["server_metrics"] == {"unavailable": "/metrics: interrupted"}


def test_a_picture_has_what_was_due_in_the_window(server: FakeServer, trial: Trial) -> None:
    server.start = 1.0
    report = trial.measure(replace(LOAD, rate=100.0))
    assert report["recording"].due.min() == 1.0
    assert len(report["recording"].due) == report["requests"] == 100


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (3.14e-5, "< 0.001"), (0.00314, "0.00314"), (3.1416, "3.14"),
        (99.96, "100"), (3141.6, "3,142"), (1234567.8, "1,234,568"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits_or_all_before_the_point(value: float, text: str) -> None:
    assert number(value) == text


def test_what_was_refused_is_told_where_the_limit_is(
    server: FakeServer, trial: Trial, capsys: pytest.CaptureFixture[str]
) -> None:
    server.status = 429
    show(trial.measure(replace(LOAD, rate=100.0)))
    assert "server: 200 of 200 requests have no numbers" in capsys.readouterr().out
