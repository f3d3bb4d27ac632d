"""Anomaly scores through the clients: in pieces, by each of three limits, with and without p."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from models.scoring import conformal
from models.scoring.calibration import Calibration
from pushforward.client import AsyncClient, RequestRefused, Scored, VersionChanged
from pushforward.client.score_calls import q_values
from tests.pushforward.client.scripted import blocking, npz, rows_of
from tests.service.fake_repository import URL, FakeRepository, app_over, card

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(100, 2)) * 3
CALIBRATION = Calibration(
    statistic="neg_log_prob",
    parameters={},
    weights="",
    dtype="float64",
    scores=np.sort(RANDOM.normal(3, 2, 199)),
    dataset="held-out rows",
    created="2026-11-28T12:00:00+00:00",
    grid=np.quantile(ROWS, np.linspace(0, 1, 16), axis=0),
)
CARDS = (
    card("table", (2,), dtype="float64", feature_names=("a", "b"), calibration=CALIBRATION),
    card("bounded", (2,), support=(0.0, 1.0), num_levels=256, calibration=CALIBRATION),
    card("line", (3,)),
    card(
        "classes",
        (2,),
        dtype="float64",
        context_shape=(3,),
        num_classes=3,
        calibration=replace(
            CALIBRATION,
            class_scores={0: CALIBRATION.scores[:99], 1: CALIBRATION.scores[50:]},
        ),
    ),
)


def ask(call: Callable[[AsyncClient], Any], model: str = "table", **limits: Any) -> Any:
    async def exchange() -> Any:
        transport = httpx.ASGITransport(app_over(FakeRepository(CARDS), **limits))
        async with AsyncClient(URL, model=model, transport=transport) as client:
            return await call(client)

    return asyncio.run(exchange())


def test_scores_come_with_p_values_and_flags() -> None:
    scored: Scored = ask(lambda client: client.score(ROWS, alpha=0.05))
    np.testing.assert_array_equal(scored.score, -scored.log_prob)
    np.testing.assert_array_equal(
        scored.p_value, conformal.p_values(CALIBRATION.scores, scored.score)
    )
    assert scored.is_anomaly is not None
    np.testing.assert_array_equal(scored.is_anomaly, scored.p_value <= 0.05)
    assert (scored.is_anomaly.dtype, scored.q_value) == (bool, None)
    assert 0 < scored.is_anomaly.sum() < 100
    assert scored.calibration == CALIBRATION.describe(0.05)
    assert (scored.model, scored.version) == ("table", "3")


def test_nothing_is_decided_by_default() -> None:
    scored: Scored = ask(lambda client: client.score(ROWS))
    assert scored.is_anomaly is None
    assert scored.p_value is not None


@pytest.mark.parametrize("decision", [{"alpha": 0.05}, {"fdr": 0.3}, {"threshold": 5}])
def test_pieces_give_what_one_request_gives(decision: dict[str, float]) -> None:
    whole: Scored = ask(lambda client: client.score(ROWS, **decision))
    pieces: Scored = ask(lambda client: client.score(ROWS, chunk_rows=7, **decision))
    for mine, theirs in zip(pieces, whole, strict=True):
        if isinstance(theirs, np.ndarray):
            np.testing.assert_array_equal(mine, theirs)
        else:
            assert mine == theirs
    assert whole.is_anomaly is not None
    assert whole.is_anomaly.any()


def test_q_values_are_those_of_the_server() -> None:
    for size in (0, 1, 2, 50):
        p = RANDOM.integers(1, 20, size) / 20
        p[RANDOM.random(size) < 0.2] = np.nan
        np.testing.assert_array_equal(q_values(p), conformal.q_values(p))


def test_a_stream_has_no_fdr() -> None:
    async def scores(client: AsyncClient) -> list[Scored]:
        return [part async for part in client.stream_score(ROWS, chunk_rows=40, alpha=0.05)]

    whole: Scored = ask(lambda client: client.score(ROWS, alpha=0.05))
    parts = ask(scores)
    assert [len(part.score) for part in parts] == [40, 40, 20]
    np.testing.assert_array_equal(np.concatenate([part.p_value for part in parts]), whole.p_value)
    with pytest.raises(ValueError, match="fdr: it is about all rows"):
        blocking(lambda request: npz()).stream_score(ROWS, fdr=0.1)


def test_a_data_frame_brings_the_names_of_its_columns() -> None:
    frame = pd.DataFrame({"b": ROWS[:, 1], "a": ROWS[:, 0]})
    named: Scored = ask(lambda client: client.score(frame))
    plain: Scored = ask(lambda client: client.score(ROWS))
    np.testing.assert_array_equal(named.score, plain.score)


def test_without_calibration_a_threshold_decides() -> None:
    rows = np.arange(30.0).reshape(10, 3)
    scored: Scored = ask(lambda client: client.score(rows, threshold=100, chunk_rows=4), "line")
    assert (scored.p_value, scored.calibration) == (None, None)
    np.testing.assert_array_equal(scored.is_anomaly, scored.score > 100)
    for decision in ({"alpha": 0.1}, {"fdr": 0.1}):
        with pytest.raises(RequestRefused, match="pushforward calibrate") as refused:
            ask(lambda client, chosen=decision: client.score(rows, chunk_rows=4, **chosen), "line")
        assert refused.value.code == "not_calibrated"


@pytest.mark.parametrize("failed", ["values", "mask", "raise"])
def test_a_row_outside_of_the_support_has_an_answer(failed: Any) -> None:
    rows = np.array([[0.0, 1.0], [0.0, 900.0]])
    scored: Scored = ask(
        lambda client: client.score(rows, alpha=0.05, failed=failed), model="bounded"
    )
    assert scored.is_anomaly is not None
    assert scored.p_value is not None
    assert scored.score[1] == np.inf
    assert (scored.p_value[1], scored.is_anomaly[1]) == (1 / 200, True)


def test_invalid_rows_are_masked_and_never_flagged() -> None:
    rows = ROWS.copy()
    rows[3, 1] = np.nan
    scored: Scored = ask(
        lambda client: client.score(rows, fdr=0.3, chunk_rows=30, invalid="null", failed="mask")
    )
    assert np.flatnonzero(np.ma.getmaskarray(scored.p_value)).tolist() == [3]
    others: Scored = ask(lambda client: client.score(np.delete(rows, 3, 0), fdr=0.3))
    assert scored.q_value is not None
    np.testing.assert_array_equal(scored.q_value.compressed(), others.q_value)
    assert not np.ma.getdata(scored.is_anomaly)[3]


def test_another_calibration_between_two_pieces_is_told() -> None:
    calls: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(1)
        rows = rows_of(request)[:, 0]
        said = f'{{"id":"{len(calls)}"}}'
        return npz(score=rows, log_prob=-rows, p_value=rows, calibration=said)

    with pytest.raises(VersionChanged, match="calibration 2"):
        blocking(answer).score(ROWS, chunk_rows=60)


@pytest.mark.parametrize(
    ("labels", "of_all", "named"),
    [
        ([0, 0, 1, 1], False, ["0", "1"]),
        ([0, 0, 2, 2], True, ["0"]),
        ([2, 2, 1, 1], True, ["1"]),
        ([0, 1, 1, 1], True, ["0", "1"]),
    ],
)
def test_pieces_of_several_classes_are_told_of_as_one_answer_is(
    labels: list[int], of_all: bool, named: list[str]
) -> None:
    def score(chunk_rows: int) -> Any:
        options: Any = {"alpha": 0.05, "context": labels, "chunk_rows": chunk_rows}
        return ask(lambda client: client.score(ROWS[:4], **options), "classes").calibration

    whole, joined = score(4), score(2)
    assert list(joined.pop("classes")) == named
    classes = whole.pop("classes")
    assert score(2)["classes"] == {label: classes[label] for label in named}
    unknown = dict.fromkeys(("rows", "threshold", "p_floor", "fpr_upper95"))
    assert joined == (whole if of_all else whole | unknown)


def test_pieces_of_one_class_are_told_of_as_one() -> None:
    def score(chunk_rows: int) -> Any:
        options: Any = {"context": 1, "chunk_rows": chunk_rows}
        return ask(lambda client: client.score(ROWS[:4], **options), "classes").calibration

    assert score(2) == score(4)
    assert score(2)["class"] == 1


def test_an_option_that_is_none_is_told() -> None:
    with pytest.raises(TypeError, match="contamination"):
        blocking(lambda request: npz()).score(ROWS, contamination=0.1)  # type: ignore[call-arg]


@pytest.mark.parametrize("decision", [{"alpha": 0.05}, {"fdr": 0.3}, {}])
def test_flagged_rows_are_explained(decision: dict[str, float]) -> None:
    scored: Scored = ask(lambda client: client.score(ROWS, explain=1, **decision))
    assert scored.explanation is not None
    assert scored.explained_nats is not None
    wanted = np.ones(100, bool) if scored.is_anomaly is None else scored.is_anomaly
    assert [named is not None for named in scored.explanation] == wanted.tolist()
    np.testing.assert_array_equal(np.isfinite(scored.explained_nats), wanted)
    row = int(np.flatnonzero(wanted)[0])
    (reason,) = scored.explanation[row] or ()
    assert reason["value"] == ROWS[row, ("a", "b").index(reason["feature"])]
    assert reason["nats"] == scored.explained_nats[row]


def test_explanations_come_in_pieces() -> None:
    whole: Scored = ask(lambda client: client.score(ROWS, explain=2, alpha=0.05))
    pieces: Scored = ask(lambda client: client.score(ROWS, explain=2, alpha=0.05, chunk_rows=7))
    halved: Scored = ask(lambda client: client.score(ROWS, explain=2), max_request_rows=100)
    assert pieces.explanation == whole.explanation
    np.testing.assert_array_equal(pieces.explained_nats, whole.explained_nats)
    assert halved.explanation is not None
    assert len(halved.explanation) == 100
    with pytest.raises(ValueError, match="explain: fdr is over all rows"):
        ask(lambda client: client.score(ROWS, explain=2, fdr=0.3, chunk_rows=7))


def test_nothing_is_explained_unasked() -> None:
    scored: Scored = ask(lambda client: client.score(ROWS, alpha=0.05))
    assert (scored.explanation, scored.explained_nats) == (None, None)
