"""`pushforward push`, and commands that are given a URI for a model."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import Result

from service.remote.index import INDEX_FILE
from service.repository import zoo_folder
from tests.pushforward.cli import test_main
from tests.service.remote.s3_server import BUCKET, Bucket, s3_server

MOONS = zoo_folder() / "moons"


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with s3_server() as found:
        yield found


def invoke(*arguments: str | Path) -> Result:
    return test_main.invoke(*map(str, arguments))


def test_a_repository_is_pushed_and_read_from_its_uri(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUSHFORWARD_CACHE", str(tmp_path / "cache"))
    shutil.copytree(MOONS, tmp_path / "mine" / "moons" / "3")
    there = tmp_path / "there"
    done = invoke("push", tmp_path / "mine", there.as_uri(), "--json")
    assert done.exit_code == 0, done.output
    (told,) = json.loads(done.stdout)["models"]
    assert (told["path"], told["pushed"]) == ("moons/3", True)
    assert (there / INDEX_FILE).is_file()
    assert (there / "moons" / "3" / INDEX_FILE).is_file()
    assert not (there / "moons" / "3" / "samples.png").exists()
    again = invoke("push", tmp_path / "mine", there.as_uri())
    assert "moons/3: lies there already" in again.stdout
    (tmp_path / "mine" / "moons" / "3" / "README.md").write_text("other")
    refused = invoke("push", tmp_path / "mine", there.as_uri())
    assert (refused.exit_code, "another model lies there" in refused.output) == (2, True)


@pytest.mark.parametrize(("path", "is_told"), [("moons/3", True), ("moons", False)])
def test_it_is_told_who_does_not_learn_of_a_version(
    tmp_path: Path, path: str, is_told: bool
) -> None:
    for expected in (is_told, False):  # the second time nothing is new
        done = invoke("push", MOONS, (tmp_path / path).as_uri(), "--json")
        assert (done.exit_code, json.loads(done.stdout)["models"][0]["path"]) == (0, "")
        assert ("for readers over https:// push the folder" in done.stderr) is expected


def test_a_model_that_does_not_reproduce_itself_is_not_pushed(tmp_path: Path) -> None:
    shutil.copytree(MOONS, tmp_path / "moons")
    (tmp_path / "moons" / "golden.safetensors").unlink()
    refused = invoke("push", tmp_path / "moons", (tmp_path / "there").as_uri())
    assert (refused.exit_code, "golden.safetensors" in refused.output) == (2, True)
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("there", "expected s3://"),
        ("https://me:word@host/models", "https://host/models: nothing can be pushed"),
        ("unheard://of/models", "Protocol not known"),
        ("hf://name", "expected hf://ORGANISATION/NAME"),
    ],
)
def test_other_places_are_refused(uri: str, said: str) -> None:
    refused = invoke("push", MOONS, uri)
    assert (refused.exit_code, said in refused.output) == (2, True), refused.output


def test_a_command_takes_a_uri_for_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.setenv("PUSHFORWARD_CACHE", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    for path in MOONS.glob("*.*"):
        memory.pipe(f"/zoo/moons/{path.name}", path.read_bytes())
    told = invoke("inspect", "memory://zoo/moons", "--json")
    assert json.loads(told.stdout)["family"] == "realnvp"
    memory.rm("/zoo", recursive=True)
    warned = invoke("inspect", "memory://zoo/moons", "--json")
    assert (warned.exit_code, "what the cache holds" in warned.stderr) == (0, True)
    monkeypatch.setenv("PUSHFORWARD_OFFLINE", "true")
    refused = invoke("inspect", "memory://zoo/rings")
    assert (refused.exit_code, "--offline" in refused.output) == (1, True)
    assert invoke("inspect", MOONS.as_uri(), "--json").exit_code == 0


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("memory://nothing/here", "no model here"),
        ("memory://several", "it holds moons/1, moons/2: name one as URI/moons/2"),
        ("unheard://of/models", "Protocol not known"),
        ("hf://name", "expected hf://ORGANISATION/NAME"),
        (f"s3://{BUCKET}/models", "no model here"),
        ("s3://other/models", "NoSuchBucket"),
        ("{web}/models", "expected pushforward-index.json there"),
    ],
)
@pytest.mark.parametrize("command", ["inspect", "evaluate", "score"])
def test_a_uri_without_a_model_is_a_mistake_of_the_input(
    command: str,
    uri: str,
    said: str,
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import fsspec

    monkeypatch.setenv("PUSHFORWARD_CACHE", str(tmp_path))
    for name, value in bucket.variables.items():
        monkeypatch.setenv(name, value)
    for version in ("1", "2"):
        fsspec.filesystem("memory").pipe(f"/several/moons/{version}/config.json", b"{}")
    rest = {"inspect": (), "evaluate": ("rows.csv",), "score": ("rows.csv", "-o", "out.csv")}
    refused = invoke(command, uri.format(web=bucket.url), *rest[command])
    assert (refused.exit_code, said in refused.output.replace("\n", " ")) == (2, True), (
        refused.output
    )


def test_a_store_that_cannot_be_asked_is_no_mistake_of_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUSHFORWARD_CACHE", str(tmp_path))
    refused = invoke("inspect", "http://127.0.0.1:1/models")
    assert (refused.exit_code, "cannot be read" in refused.output) == (1, True), refused.output
