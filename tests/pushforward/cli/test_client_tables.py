"""`pushforward client` and tables: names there and back, many rows, rows without an answer."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from pushforward.cli import app as cli
from pushforward.client import clients
from tests.pushforward.cli.test_client import Blocking
from tests.pushforward.client.scripted import npz, rows_of
from tests.service.fake_repository import SCALE, FakeRepository, app_over

FRAME = pd.DataFrame({"speed": [20.0, -4.0], "note": ["a", "b"], "mass": [1.0, 3.0]})


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.build(("client",)), ["client", *map(str, arguments)])


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> Callable[[httpx.BaseTransport], None]:
    plain = clients.httpx.Client

    def use(transport: httpx.BaseTransport) -> None:
        monkeypatch.setattr(
            clients.httpx,
            "Client",
            lambda **options: plain(**{**options, "transport": transport}),
        )

    return use


@pytest.fixture
def repository(transport: Callable[[httpx.BaseTransport], None]) -> FakeRepository:
    served = FakeRepository()
    transport(Blocking(app_over(served)))
    return served


def write(path: Path) -> Path:
    suffix = "".join(path.suffixes)
    if suffix == ".parquet":
        FRAME.to_parquet(path)
    elif suffix == ".feather":
        FRAME.to_feather(path)
    else:
        FRAME.to_csv(path, index=False, sep=";" if "semicolon" in path.name else ",")
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "semicolon.csv", "t.parquet", "t.feather"])
def test_every_table_gives_the_same_numbers(
    repository: FakeRepository, tmp_path: Path, name: str
) -> None:
    np.save(tmp_path / "plain.npy", FRAME[["mass", "speed"]].to_numpy())
    expected = run("log-prob", tmp_path / "plain.npy", "--model", "wide")
    assert expected.exit_code == 0, expected.output
    result = run("log-prob", write(tmp_path / name), "--model", "wide")
    assert (result.exit_code, result.stdout) == (0, expected.stdout), result.output
    assert "columns that the model does not have: note" in result.stderr


def test_the_names_of_columns_are_sent(
    transport: Callable[[httpx.BaseTransport], None], tmp_path: Path
) -> None:
    columns: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            served = {"models": [{"name": "m", "feature_names": ["mass", "speed"]}]}
            return httpx.Response(200, json=served)
        columns.append(request.url.params["columns"])
        return npz(log_prob=rows_of(request)[:, 0])

    transport(httpx.MockTransport(answer))
    assert run("log-prob", write(tmp_path / "t.csv")).stdout == "1\n3\n"
    assert columns == ['["mass", "speed"]']


def test_options_of_a_file_stand_behind_it(repository: FakeRepository, tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet")
    dropped = run("log-prob", f"{path}?drop=note", "--model", "wide")
    assert (dropped.exit_code, dropped.stderr) == (0, "")
    nameless = run("encode", f"{path}?columns=mass,speed", "--model", "labelled", "--label", 0)
    assert nameless.exit_code == 0, nameless.output
    missing = run("encode", tmp_path / "none.parquet?drop=note", "--model", "wide")
    assert missing.exit_code == 2
    assert "does not exist" in missing.stderr


def test_many_rows_go_in_pieces(repository: FakeRepository, tmp_path: Path) -> None:
    x = np.arange(3.0 * 100_000, dtype=np.float32).reshape(-1, 3)
    np.save(tmp_path / "x.npy", x)
    result = run("encode", tmp_path / "x.npy", "--model", "line", "-o", tmp_path / "z.npy")
    assert (result.exit_code, result.output) == (0, "")
    np.testing.assert_array_equal(np.load(tmp_path / "z.npy"), x / SCALE)
    sizes = [len(rows) for rows, _ in repository.queue("line", "encode").calls]
    assert sizes == [1024] * 97 + [672]


def test_an_archive_holds_all_outputs_and_is_read_again(
    repository: FakeRepository, tmp_path: Path
) -> None:
    z, table = tmp_path / "z.npz", tmp_path / "x.parquet"
    assert run("encode", write(tmp_path / "t.csv"), "--model", "wide", "-o", z).exit_code == 0
    with np.load(z) as held:
        assert set(held) == {"z", "log_det", "model", "version"}
    assert run("decode", z, "--model", "wide", "-o", table).exit_code == 0
    found = pd.read_parquet(table)
    assert list(found) == ["mass", "speed", "log_det"]
    pd.testing.assert_frame_equal(found[["speed", "mass"]], FRAME[["speed", "mass"]])
    assert run("log-prob", table, "--model", "wide").exit_code == 0


def test_csv_may_begin_with_names(repository: FakeRepository, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv")
    result = run("log-prob", path, "--model", "wide", "--header")
    assert result.stdout.splitlines()[0] == "log_prob"
    encoded = run("encode", path, "--model", "wide", "--header")
    assert encoded.stdout.splitlines()[0] == "z_0,z_1,log_det"
    drawn = run("sample", "-n", 3, "--model", "wide", "--header", "-o", tmp_path / "x.csv")
    assert drawn.exit_code == 0, drawn.output
    assert list(pd.read_csv(tmp_path / "x.csv")) == ["mass", "speed", "log_prob"]
    line = run("sample", "-n", 3, "--model", "line", "--header")
    assert line.stdout.splitlines()[0] == "x_0,x_1,x_2,log_prob"


def test_a_table_is_a_field_of_a_call(repository: FakeRepository, tmp_path: Path) -> None:
    FRAME[["speed", "mass"]].to_parquet(tmp_path / "t.parquet")
    called = run("call", "encode", f"x=@{tmp_path / 't.parquet'}", "model=wide")
    assert called.exit_code == 0, called.output
    assert '"z": [[0.5, 10.0], [1.5, -2.0]]' in called.stdout


class Failing(httpx.BaseTransport):
    """A model that has no answer for the rows whose first number is NaN."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        x = rows_of(request)
        status = np.where(np.isnan(x[:, 0]), 2, 0)
        return npz(log_prob=np.where(status, np.nan, x[:, 1]), status=status)


@pytest.fixture
def failing(transport: Callable[[httpx.BaseTransport], None]) -> Failing:
    server = Failing()
    transport(server)
    return server


def test_rows_without_an_answer_are_told(failing: Failing, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("".join(f"{'' if row == 7 else row},{row}\n" for row in range(569)))
    asked = ("log-prob", path, "--invalid", "null", "--chunk-rows", 5)
    values, masked = run(*asked), run(*asked, "--failed", "mask")
    for result in (values, masked):
        assert result.exit_code == 0, result.output
        note = "1 of 569 rows have no answer: rows 7 (solver_failed: step_underflow)"
        assert " ".join(result.stderr.split()) == note
    assert values.stdout.splitlines()[6:9] == ["6", "nan", "8"]
    assert masked.stdout.splitlines()[6:9] == ["6", '""', "8"]
    assert {request.url.params["invalid"] for request in failing.requests} == {"null"}
    table = tmp_path / "scores.parquet"
    assert run(*asked, "--failed", "mask", "-o", table).exit_code == 0
    assert pd.read_parquet(table)["log_prob"].isna().to_numpy().nonzero()[0].tolist() == [7]


def test_rows_without_an_answer_may_end_the_command(failing: Failing, tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", [[1.0, 2.0], [np.nan, 3.0]])
    output = tmp_path / "scores.npy"
    result = run("log-prob", tmp_path / "t.npy", "--failed", "raise", "-o", output)
    assert (result.exit_code, result.stdout) == (3, "")
    assert "1 of 2 rows have no answer" in result.stderr
    assert not output.exists()


def test_a_terminal_is_shown_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich import console

    from pushforward.cli import client_progress

    shown = io.StringIO()

    def terminal(**_: Any) -> console.Console:
        return console.Console(file=shown, force_terminal=True, width=100)

    monkeypatch.setattr(client_progress, "Console", terminal)
    with client_progress.progress_bar("log_prob") as progress:
        progress(500, 2000)
        progress(1000, 2000)
        progress(2000, 2000)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue())
    assert "2000/2000" in text
    assert "rows/s" in text
    shown.truncate(0)
    with client_progress.progress_bar("log_prob") as progress:
        progress(10, 10)
    assert "10/10" not in shown.getvalue(), "what is done at once needs no bar"
