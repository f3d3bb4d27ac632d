"""`pushforward client`: files in, files out."""

import asyncio
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from typer.testing import CliRunner, Result

from pushforward.cli import app as cli
from pushforward.cli import client_rows
from pushforward.client import Client, clients
from tests.service.fake_repository import SCALE, FakeRepository, app_over

X = np.array([[0.5, 1.0, -2.0], [3.0, 0.25, 8.0]], np.float32)


class Blocking(httpx.BaseTransport):
    """An application asked from code that does not await."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def exchange() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            asynchronous = httpx.Request(
                request.method, request.url, headers=request.headers, content=request.read()
            )
            answer = await transport.handle_async_request(asynchronous)
            body = await answer.aread()
            return httpx.Response(answer.status_code, headers=answer.headers, content=body)

        return asyncio.run(exchange())


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    app = app_over(FakeRepository())
    plain = clients.httpx.Client

    def client(**options: Any) -> httpx.Client:
        return plain(**{**options, "transport": Blocking(app)})

    monkeypatch.setattr(clients.httpx, "Client", client)
    monkeypatch.setattr(clients.time, "sleep", lambda _: None)
    return lambda *arguments: CliRunner().invoke(
        cli.build(("client",)), ["client", *map(str, arguments)]
    )


def test_samples_of_a_seed_are_those_of_the_client(
    invoke: Callable[..., Result], tmp_path: Path
) -> None:
    options = ("-n", 700, "--seed", 7, "--temperature", 0.5, "--chunk-rows", 300, "--model", "line")
    result = invoke("sample", *options, "-o", tmp_path / "x.npy")
    assert result.exit_code == 0, result.output
    assert "line 3, seed 7" in result.stderr
    with Client("http://server", model="line") as client:
        expected = client.sample(700, seed=7, temperature=0.5).x
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), expected)


def test_rows_go_there_and_back_through_csv(invoke: Callable[..., Result], tmp_path: Path) -> None:
    np.savetxt(tmp_path / "x.csv", X, delimiter=",")
    z, back = tmp_path / "z.csv", tmp_path / "back.npy"
    encoded = invoke("encode", tmp_path / "x.csv", "--model", "line", "-o", z)
    assert encoded.exit_code == 0, encoded.output
    np.testing.assert_array_equal(np.loadtxt(z, delimiter=","), X / SCALE)
    assert invoke("decode", z, "--model", "line", "-o", back).exit_code == 0
    np.testing.assert_array_equal(np.load(back), X)


def test_scores_are_printed(invoke: Callable[..., Result], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    result = invoke("log-prob", tmp_path / "x.npy", "--model", "line")
    printed = np.loadtxt(io.StringIO(result.stdout), dtype=np.float32)
    with Client("http://server", model="line") as client:
        np.testing.assert_array_equal(printed, client.log_prob(X))


def test_anomalies_are_printed_and_counted(invoke: Callable[..., Result], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    asked = ("score", tmp_path / "x.npy", "--model", "line", "--threshold", 6, "--chunk-rows", 1)
    result = invoke(*asked)
    with Client("http://server", model="line") as client:
        scored = client.score(X, threshold=6)
    np.testing.assert_array_equal(np.loadtxt(io.StringIO(result.stdout)), scored.score)
    assert "1 of 2 rows are anomalies (threshold 6)" in result.stderr
    table = invoke(*asked, "--header").stdout.splitlines()
    assert table[0] == "score,log_prob,is_anomaly"
    assert [line.split(",")[2] for line in table[1:]] == ["0", "1"]
    assert invoke(*asked, "-o", tmp_path / "y.npz").exit_code == 0
    assert np.load(tmp_path / "y.npz")["is_anomaly"].tolist() == [False, True]
    np.save(tmp_path / "x.npy", np.where(np.eye(2, 3), np.nan, X))
    masked = (*asked, "--invalid", "null", "--failed", "mask", "-o", tmp_path / "y.npz")
    assert invoke(*masked).exit_code == 0
    assert np.load(tmp_path / "y.npz")["is_anomaly"].tolist() == [False, False]
    np.save(tmp_path / "x.npy", X)
    refused = invoke("score", tmp_path / "x.npy", "--model", "line", "--alpha", 0.1)
    assert refused.exit_code == 1
    assert "not_calibrated" in refused.output
    unexplained = invoke("score", tmp_path / "x.npy", "--model", "line", "--explain", 1)
    assert "explain: model line has no calibration" in unexplained.output
    undecided = invoke("score", tmp_path / "x.npy", "--model", "line")
    assert (undecided.exit_code, undecided.stderr) == (0, "")


def test_explanations_are_told_row_by_row(capsys: pytest.CaptureFixture[str]) -> None:
    far = {"feature": "mass", "value": 9.5, "expected": 0.25, "nats": 31.25}
    outside = {"feature": "1", "value": 7.0, "expected": 0.5, "nats": None}
    client_rows.report_explanation({"explanation": None})
    client_rows.report_explanation({"explanation": [None, [far, outside]] + [[far]] * 21})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "row 1: mass 9.5, expected 0.25 (31.2 nats); 1 7, expected 0.5 (inf nats)"
    assert lines[19] == "row 20: mass 9.5, expected 0.25 (31.2 nats)"
    assert lines[20:] == ["and 2 more; -o FILE.npz holds all"]


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_pictures_are_drawn_and_scored(invoke: Callable[..., Result], tmp_path: Path) -> None:
    png = tmp_path / "x.png"
    many = ("-n", 4, "--scale", 2)
    assert invoke("sample", *many, "--model", "grey", "-o", png).exit_code == 0
    assert size(png) == (20, 16)
    np.save(tmp_path / "z.npy", np.full((1, 20), 40.0))
    assert invoke("decode", tmp_path / "z.npy", "--model", "grey", "-o", png).exit_code == 0
    assert size(png) == (5, 4)
    result = invoke("encode", png, "--model", "grey")
    assert result.stdout == ",".join(["40"] * 20) + "\n"


def test_labels_and_contexts(invoke: Callable[..., Result], tmp_path: Path) -> None:
    np.savetxt(tmp_path / "context.csv", [[1.0, 2.0]], delimiter=",")
    steered = invoke("sample", "--model", "steered", "--context", tmp_path / "context.csv")
    assert steered.exit_code == 0, steered.output
    assert invoke("sample", "--model", "labelled", "--label", 3).exit_code == 0
    both = ("--label", 3, "--context", tmp_path / "context.csv")
    assert invoke("sample", "--model", "labelled", *both).exit_code == 2


def test_any_operation_is_called_by_name(invoke: Callable[..., Result], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    printed = invoke("call", "encode", f"x=@{tmp_path / 'x.npy'}", "--model", "line")
    assert printed.exit_code == 0, printed.output
    answer = json.loads(printed.stdout)
    assert set(answer) == {"model", "version", "z", "log_det"}
    assert (answer["model"], answer["version"]) == ("line", "3")
    np.testing.assert_array_equal(answer["z"], X / SCALE)
    draw = ("num_samples=2", "seed=7", "temperature=0.5", "model=line")
    written = invoke("call", "sample", *draw, "-o", tmp_path / "drawn.npz")
    assert (written.exit_code, written.stdout) == (0, "")
    with Client("http://server", model="line") as client:
        expected = client.sample(2, seed=7, temperature=0.5)
    with np.load(tmp_path / "drawn.npz") as drawn:
        assert sorted(drawn) == ["log_prob", "model", "seed", "version", "x"]
        assert (drawn["model"].item(), drawn["seed"].item()) == ("line", 7)
        np.testing.assert_array_equal(drawn["x"], expected.x)


def test_fields_of_a_call_are_json_text_or_files(invoke: Callable[..., Result]) -> None:
    listed = invoke("call", "log_prob", "x=[[0.5,1,-2]]", "model=line")
    assert listed.exit_code == 0, listed.output
    with Client("http://server", model="line") as client:
        np.testing.assert_allclose(json.loads(listed.stdout)["log_prob"], client.log_prob(X[:1]))


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("log_prob", "x"), 2, "expected NAME=VALUE"),
        (("log_prob", "=1"), 2, "expected NAME=VALUE"),
        (("log_prob", "x=@missing.npy"), 2, "missing.npy: No such file"),
        (("log_prob", "x=[[1,2,3]]", "-o", "x.npy"), 2, "expected .npz"),
        (("noise", "seed=1"), 1, "not_found"),
        (("sample", "num_samples=0", "model=line"), 1, "out_of_range"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_wrong_with_a_call_is_one_line(
    invoke: Callable[..., Result], arguments: tuple[str, ...], code: int, text: str
) -> None:
    result = invoke("call", *arguments)
    assert result.exit_code == code
    assert text in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("sample", "--model", "nobody"), 1, "model_not_found"),
        (("sample",), 1, "model_not_found"),
        (("log-prob", "x.npy", "--model", "wide"), 1, "shape_mismatch"),
        (("log-prob", "x.txt", "--model", "line"), 2, "expected .npy"),
        (("log-prob", "bad.npy", "--model", "line"), 2, "error"),
        (("encode", "x.npy", "--model", "line", "-o", "z.txt"), 2, "expected .npy"),
        (("encode", "missing.npy"), 2, "does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_goes_wrong_is_one_line(
    invoke: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    Path("x.txt").write_text("1,2,3")
    Path("bad.npy").write_bytes(b"nonsense")
    result = invoke(*arguments)
    assert result.exit_code == code
    assert text in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


def test_columns_of_a_table_are_matched_by_name(
    invoke: Callable[..., Result], tmp_path: Path
) -> None:
    plain, named, renamed = (tmp_path / f"{name}.csv" for name in ("plain", "named", "renamed"))
    plain.write_text("1,20\n3,-4\n")
    named.write_text("speed,note,mass\n20,a,1\n-4,b,3\n")
    renamed.write_text("pace,mass\n20,1\n")
    wanted = invoke("log-prob", plain, "--model", "wide")
    assert wanted.exit_code == 0, wanted.output
    assert invoke("log-prob", named, "--model", "wide").stdout == wanted.stdout
    assert invoke("log-prob", named, "--model", "wide@3").stdout == wanted.stdout
    refused = invoke("log-prob", renamed, "--model", "wide")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "needs the column 'speed'" in refused.stderr
    unknown = invoke("encode", named, "--model", "steered")
    assert unknown.exit_code == 2
    assert "the model does not know those of its columns" in unknown.stderr
    assert invoke("encode", named).exit_code == 2


@pytest.mark.parametrize(("rows", "told"), [(99, " of 99 rows"), (None, "")])
def test_anomalies_of_several_classes_have_no_one_number_of_calibration_rows(
    rows: int | None, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = {"is_anomaly": np.array([True, False]), "calibration": {"id": "0a1b", "rows": rows}}
    client_rows.report_anomalies(scored, {"alpha": 0.05})
    said = capsys.readouterr().err
    assert said == f"1 of 2 rows are anomalies (alpha 0.05, calibration 0a1b{told})\n"
