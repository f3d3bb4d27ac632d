"""`Scorer`: batches of columns, the bits of the server, one load a process, pickled by path."""

import asyncio
import multiprocessing
import pickle
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import pushforward.batch.session
from pushforward.batch import Scorer
from service.app import create_app
from service.repository import FolderRepository
from service.settings import Settings
from service.telemetry import Metrics

ZOO = Path(__file__).resolve().parents[3] / "models" / "zoo"
MOONS = ZOO / "moons"
X = np.random.default_rng(0).normal(size=(3000, 2))
BATCH = {"x1": X[:, 0], "x2": X[:, 1]}


def ask(operation: str, model: Path = MOONS, /, **fields: Any) -> dict[str, Any]:
    """The JSON that a server of a model answers."""

    async def exchange() -> httpx.Response:
        metrics, settings = Metrics(), Settings(model_repository=(model,), watch_models=False)
        repository = FolderRepository(settings, metrics)
        app = httpx.ASGITransport(create_app(settings, repository, metrics))
        await repository.start()
        try:
            async with httpx.AsyncClient(transport=app, base_url="http://test") as client:
                return await client.post(f"/{operation}", json=fields)
        finally:
            await repository.drain()

    answer = asyncio.run(exchange())
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("operation", "fields"),
    [("score", {"alpha": 0.05}), ("score", {"threshold": 3}), ("log_prob", {}), ("encode", {})],
)
def test_rows_have_the_bits_of_the_server(operation: str, fields: dict[str, float]) -> None:
    told = ask(operation, x=X[:200].tolist(), **fields)
    answer = Scorer(MOONS, operation, **fields)(BATCH)
    assert answer.keys() <= {*told, "status"}
    for name in answer.keys() - {"status"}:
        wanted = np.array(told[name], answer[name].dtype)
        assert np.array_equal(answer[name][:200], wanted), name
    assert not answer["status"].astype(bool).any()


def test_decode_takes_latents_and_sample_takes_row_numbers() -> None:
    z = X[:50].astype(np.float32)
    decoded = Scorer(MOONS, "decode")({"z": z})
    told = ask("decode", z=z.tolist())
    assert np.array_equal(decoded["x"], np.array(told["x"], np.float32))
    drawn = Scorer(MOONS, "sample", seed=3)({"id": np.array([7, 8, 9, 600, 2])})
    told = ask("sample", seed=3, num_samples=601)
    assert np.array_equal(drawn["x"], np.array(told["x"], np.float32)[[7, 8, 9, 600, 2]])


def test_numbers_of_rows_of_a_draw_may_be_unsigned() -> None:
    draw = Scorer(MOONS, "sample", seed=3)
    numbers = np.array([255, 0, 1, 200], np.uint8)  # 255 and one more is 0
    wanted = draw({"id": numbers.astype(np.int64)})["x"]
    assert np.array_equal(draw({"id": numbers})["x"], wanted)


def test_bad_rows_are_named_and_spoil_no_other() -> None:
    given = {name: values[:8].astype(object) for name, values in BATCH.items()}
    given["x1"][1:6] = [None, float("nan"), float("inf"), 1e300, "many"]
    answer = Scorer(MOONS, "score", alpha=0.05)(given)
    whole = Scorer(MOONS, "score", alpha=0.05)(BATCH)
    assert answer["status"].tolist() == [
        "",
        "invalid_input: missing",
        "invalid_input: nan",
        "invalid_input: infinite",
        "invalid_input: too_large",
        "invalid_input: text",
        "",
        "",
    ]
    for name in ("score", "log_prob", "p_value"):
        assert np.isnan(answer[name][1:6]).all()
        assert np.array_equal(answer[name][6:], whole[name][6:8])


def test_texts_of_a_column_are_read_as_in_a_file() -> None:
    given = {name: values[:6].astype(object) for name, values in BATCH.items()}
    given["x1"][1:6] = ["", " NA ", "0.5 ", "1_0", "+0.5"]
    answer = Scorer(MOONS, "log_prob")(given)
    missing, text = "invalid_input: missing", "invalid_input: text"
    assert answer["status"].tolist() == ["", missing, missing, "", text, ""]


def test_order_of_columns_extra_columns_and_other_names() -> None:
    wanted = Scorer(MOONS, "log_prob")(BATCH)["log_prob"]
    swapped = {"other": np.array(["a"] * len(X)), "x2": X[:, 1], "x1": X[:, 0]}
    assert np.array_equal(Scorer(MOONS, "log_prob")(swapped)["log_prob"], wanted)
    renamed = {"b": X[:, 1], "a": X[:, 0]}
    scorer = Scorer(MOONS, "log_prob", columns=["a", "b"])
    assert np.array_equal(scorer(renamed)["log_prob"], wanted)
    assert np.array_equal(Scorer(MOONS, "log_prob")({"x": X})["log_prob"], wanted)


def test_an_empty_batch_has_the_same_columns() -> None:
    scorer = Scorer(MOONS, "score")
    empty = scorer({name: values[:0] for name, values in BATCH.items()})
    full = scorer(BATCH)
    assert {name: (len(empty[name]), empty[name].dtype.kind) for name in empty} == {
        name: (0, full[name].dtype.kind) for name in full
    }


@pytest.mark.parametrize(
    ("scorer", "batch", "told"),
    [
        (Scorer(MOONS, "log_prob"), {"x1": X[:, 0], "X2": X[:, 1]}, "needs the column 'x2'"),
        (Scorer(MOONS, "log_prob"), {"x1": X[:2, 0], "x2": X[:3, 1]}, "columns of one length"),
        (Scorer(MOONS, "log_prob"), {"x1": X, "x2": X[:, 1]}, "expected numbers, one a row"),
        (Scorer(MOONS, "log_prob"), {"x": X[:, :1]}, "expected rows of shape"),
        (Scorer(MOONS, "score", alpha=2), BATCH, "alpha"),
        (Scorer(MOONS, "score", fdr=0.1), BATCH, "fdr: it decides over all rows together"),
        (Scorer(MOONS, "score", beta=2), BATCH, "score has no field 'beta'"),
        (Scorer(MOONS, "predict"), BATCH, "expected log_prob, score, encode, decode, sample"),
        (Scorer(MOONS, "sample"), {"id": np.arange(3)}, "seed: name one"),
        (Scorer(MOONS, "sample", seed=1), BATCH, "one column of whole numbers"),
        (Scorer(MOONS, "log_prob", context=["x1"]), BATCH, "it is unconditional"),
        (Scorer(ZOO, "log_prob"), BATCH, "expected the folder of one model, it holds"),
        (Scorer(ZOO / "nothing", "log_prob"), BATCH, "nothing: "),
    ],
)
def test_what_concerns_the_whole_batch_is_refused(
    scorer: Scorer, batch: dict[str, np.ndarray], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        scorer(batch)


def test_a_pickle_holds_the_path_and_the_arguments() -> None:
    scorer = Scorer(MOONS, "score", alpha=0.05)
    wanted = scorer(BATCH)
    sent = pickle.dumps(scorer)
    assert len(sent) < 1000
    answer = pickle.loads(sent)(BATCH)
    assert all(np.array_equal(answer[name], wanted[name]) for name in wanted)


def test_a_process_loads_a_model_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = []

    class Counted(pushforward.batch.session.Session):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            made.append(arguments)
            super().__init__(*arguments, **named)

    monkeypatch.setattr(pushforward.batch.session, "Session", Counted)
    link = tmp_path / "moons"
    link.symlink_to(MOONS)  # one model by two paths; its name is the folder's
    scorers = [Scorer(path, "log_prob", num_threads=1) for path in (MOONS, link) * 2]
    threads = [threading.Thread(target=scorer, args=(BATCH,)) for scorer in scorers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def _score_in_child(scorer: Scorer, connection: Any) -> None:
    connection.send(scorer(BATCH)["log_prob"])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_loads_its_own() -> None:
    scorer = Scorer(MOONS, "log_prob")
    wanted = scorer(BATCH)["log_prob"]
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    child = fork.Process(target=_score_in_child, args=(scorer, theirs))
    child.start()
    assert ours.poll(30), "the fork waits for threads that run in its parent"
    assert np.array_equal(ours.recv(), wanted)
    child.join()
