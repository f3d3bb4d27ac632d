"""What is copied of models behind a URI: versions to be served; what fails is held back alone."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.contracts import SourceStatus, VersionPolicy
from service.remote.cache import CacheEntry
from service.remote.fetch import fetch
from service.remote.index import INDEX_FILE
from service.remote.store import FILES_AT_ONCE
from service.repository.sources import options_for
from service.settings import Settings
from tests.service.remote.s3_server import BUCKET, Bucket, Handler

URI = f"s3://{BUCKET}/models"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait hardly between attempts."""
    monkeypatch.setattr("service.remote.transfer.DELAY_SECONDS", 0.01)


def put(bucket: Bucket, *folders: str, size: int = 1000) -> None:
    for folder in folders:
        bucket.objects[f"models/{folder}/config.json"] = b"{}"
        bucket.objects[f"models/{folder}/model.safetensors"] = folder.encode() * size


def say(bucket: Bucket, content: str, model: str = "moons") -> None:
    bucket.objects[f"models/{model}/serving.toml"] = content.encode()


def get(folder: Path, wanted: dict[str, VersionPolicy] | None = None, **given: Any) -> SourceStatus:
    settings = Settings(
        model_repository=(URI,), cache=folder, **{"fetch_timeout_seconds": 5.0, **given}
    )
    return fetch(URI, options_for(URI, settings, wanted))


def held(folder: Path) -> set[str]:
    """The versions, and the settings, that the cache serves."""
    link = CacheEntry.of(folder, URI).link
    paths = (path.relative_to(link) for path in link.rglob("*.*") if path.is_file())
    return {str(path.parent if path.name != "serving.toml" else path) for path in paths}


def asked(bucket: Bucket) -> set[str]:
    """The versions of which weights were asked for since the last call."""
    keys = [key for key in bucket.asked_bytes if key.endswith("model.safetensors")]
    found = {key.removeprefix("models/").rpartition("/")[0] for key in keys}
    bucket.asked_bytes.clear()
    return found


def test_only_the_versions_to_be_served_are_copied(bucket: Bucket, tmp_path: Path) -> None:
    put(bucket, "moons/1", "moons/2", "moons/10", "rings")
    assert get(tmp_path).is_ok
    assert bucket.asked_bytes.total() == sum(
        len(content)
        for key, content in bucket.objects.items()
        if key.startswith(("models/moons/10/", "models/rings/"))
    )
    assert held(tmp_path) == {"moons/10", "rings"}


@pytest.mark.parametrize(
    ("said", "given", "wanted", "expected"),
    [
        ("", {"version_policy": "all"}, {}, {"1", "2", "3"}),
        ('version_policy = "all"', {}, {}, {"1", "2", "3"}),
        ('version_policy = "latest"', {"version_policy": "all"}, {}, {"3"}),
        ("version_policy = [1, 2]", {}, {}, {"1", "2"}),
        ("version_policy = [1, 2]", {}, {"moons": VersionPolicy("latest")}, {"3"}),
        ("", {}, {"moons": VersionPolicy((1,))}, {"1"}),
        ("", {}, {"rings": VersionPolicy((1,))}, {"3"}),
    ],
)
def test_the_policy_says_which(
    said: str, given: Any, wanted: Any, expected: set[str], bucket: Bucket, tmp_path: Path
) -> None:
    put(bucket, "moons/1", "moons/2", "moons/3")
    if said:
        say(bucket, said)
    assert get(tmp_path, wanted, **given).is_ok
    assert asked(bucket) == {f"moons/{version}" for version in expected}


def test_what_was_served_stays_for_a_rollback_as_long_as_it_lies_there(
    bucket: Bucket, tmp_path: Path
) -> None:
    put(bucket, "moons/1")
    get(tmp_path)
    put(bucket, "moons/2")
    get(tmp_path)
    assert asked(bucket) == {"moons/1", "moons/2"}
    assert held(tmp_path) == {"moons/1", "moons/2"}
    say(bucket, "version_policy = [1]")
    assert get(tmp_path).is_ok
    assert asked(bucket) == set(), "it is in the cache"
    for key in [key for key in bucket.objects if "/2/" in key]:
        del bucket.objects[key]
    assert get(tmp_path).is_ok
    assert held(tmp_path) == {"moons/1", "moons/serving.toml"}


def refuses(part: str) -> Any:
    """Answer 403 where a key has this part."""

    def fault(handler: Handler, key: str, content: bytes) -> bool:
        if part in key:
            handler.send_response(403)
            handler.send_header("Content-Length", "0")
            # Else the client may ask again on this connection, which ends here.
            handler.send_header("Connection", "close")
            handler.end_headers()
        return part in key

    return fault


def test_what_fails_holds_back_its_version_alone(bucket: Bucket, tmp_path: Path) -> None:
    put(bucket, "moons/1", "rings/1", "dots")
    assert get(tmp_path).is_ok
    put(bucket, "moons/2", "rings/2", "fresh/1")
    put(bucket, "dots", size=2000)
    bucket.fault = refuses("moons/2/model")
    failed = get(tmp_path)
    assert not failed.is_ok
    assert [one.path for one in failed.held_back] == ["moons/2"]
    assert failed.reason == failed.held_back[0].reason
    assert failed.reason.startswith("moons/2/model.safetensors cannot be read")
    assert held(tmp_path) == {"moons/1", "rings/1", "rings/2", "fresh/1", "dots"}
    dots = CacheEntry.of(tmp_path, URI).link / "dots" / "model.safetensors"
    assert dots.stat().st_size == len("dots") * 2000
    bucket.asked_bytes.clear()
    get(tmp_path)
    assert {*bucket.asked_bytes} == {"models/moons/2/model.safetensors"}, (
        "the rest is not read anew"
    )
    bucket.fault = lambda *_: False
    assert get(tmp_path).held_back == ()
    assert "moons/2" in held(tmp_path)


def test_an_index_that_fails_holds_back_its_version_alone(bucket: Bucket, tmp_path: Path) -> None:
    put(bucket, "moons/1", "rings")
    assert get(tmp_path).is_ok
    put(bucket, "moons/2", "fresh")
    bucket.objects[f"models/moons/2/{INDEX_FILE}"] = b"{"
    failed = get(tmp_path)
    assert [one.path for one in failed.held_back] == ["moons/2"]
    assert INDEX_FILE in failed.reason
    assert held(tmp_path) == {"moons/1", "rings", "fresh"}


def test_settings_wait_for_the_versions_that_they_name(bucket: Bucket, tmp_path: Path) -> None:
    put(bucket, "moons/1")
    say(bucket, "version_policy = [1]")
    get(tmp_path)
    settings = CacheEntry.of(tmp_path, URI).link / "moons" / "serving.toml"
    put(bucket, "moons/2")
    say(bucket, "version_policy = [2]")
    bucket.fault = refuses("moons/2/")
    assert [one.path for one in get(tmp_path).held_back] == ["moons/2"]
    assert settings.read_text() == "version_policy = [1]"
    bucket.fault = lambda *_: False
    assert get(tmp_path).is_ok
    assert settings.read_text() == "version_policy = [2]"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("version_policy = [1, 7]", "moons/serving.toml: version_policy: expected versions that"),
        ("version_policy = ", "moons/serving.toml: cannot be read: Invalid value"),
        ("default_version = 1", "moons/serving.toml: default_version: expected a version that is"),
    ],
)
def test_settings_that_cannot_be_used_hold_back_their_model(
    said: str, reason: str, bucket: Bucket, tmp_path: Path
) -> None:
    put(bucket, "moons/1")
    get(tmp_path)
    put(bucket, "moons/2", "rings")
    say(bucket, said)
    failed = get(tmp_path)
    assert failed.reason.startswith(reason)
    assert [one.path for one in failed.held_back] == ["moons/serving.toml"]
    assert held(tmp_path) == {"moons/1", "rings"}


def test_settings_that_cannot_be_had_are_as_they_were(bucket: Bucket, tmp_path: Path) -> None:
    put(bucket, "moons/1", "moons/2")
    say(bucket, "version_policy = [1]")
    get(tmp_path)
    say(bucket, "version_policy = [2] ")
    bucket.fault = refuses("serving.toml")
    assert [one.path for one in get(tmp_path).held_back] == ["moons/serving.toml"]
    assert held(tmp_path) == {"moons/1", "moons/serving.toml"}


def test_a_first_copy_is_whole_unless_bad_models_are_skipped(
    bucket: Bucket, tmp_path: Path
) -> None:
    put(bucket, "moons/1", "rings/1")
    bucket.fault = refuses("moons/1/model")
    assert "moons/1/model.safetensors" in get(tmp_path).reason
    assert not CacheEntry.of(tmp_path, URI).is_filled
    skipped = get(tmp_path, on_bad_model="skip")
    assert [one.path for one in skipped.held_back] == ["moons/1"]
    assert held(tmp_path) == {"rings/1"}


def test_versions_removed_while_the_next_fails_are_served_on(
    bucket: Bucket, tmp_path: Path
) -> None:
    put(bucket, "moons/1")
    get(tmp_path)
    bucket.objects.clear()
    put(bucket, "moons/2")
    bucket.fault = refuses("moons/2/")
    assert not get(tmp_path).is_ok
    assert held(tmp_path) == {"moons/1"}


def test_files_are_copied_several_at_a_time(bucket: Bucket, tmp_path: Path) -> None:
    put(bucket, *(f"flow{number}" for number in range(FILES_AT_ONCE)))
    reading: set[str] = set()
    most = 0
    lock = threading.Lock()

    def waits(handler: Handler, key: str, part: bytes) -> bool:
        nonlocal most
        with lock:
            reading.add(key)
            most = max(most, len(reading))
        time.sleep(0.02)
        with lock:
            reading.remove(key)
        return False

    bucket.fault = waits
    assert get(tmp_path).is_ok
    assert FILES_AT_ONCE / 2 < most <= FILES_AT_ONCE
    assert len(held(tmp_path)) == FILES_AT_ONCE


def test_a_store_that_gives_nothing_any_more_is_not_asked_for_every_file(
    bucket: Bucket, tmp_path: Path
) -> None:
    """Else a look would take three times the limit for each version."""
    put(bucket, *(f"flow{number}" for number in range(8 * FILES_AT_ONCE)))
    end = threading.Event()

    def stalls(*_: object) -> bool:
        end.wait(3)
        return True

    bucket.fault = stalls
    began = time.monotonic()
    failed = get(tmp_path, fetch_timeout_seconds=0.05)
    end.set()
    # Two rounds of three attempts are 0.4 s, eight are 1.4.
    assert time.monotonic() - began < 1
    assert "and 61 more" in failed.reason


def test_what_all_versions_need_is_to_be_free(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bucket, "moons/1", "rings/1")
    free = 64 * 2**20 + 10_000
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    assert [one.path for one in get(tmp_path, on_bad_model="skip").held_back] == ["rings/1"]
    assert held(tmp_path) == {"moons/1"}


def test_without_settings_that_lie_there_no_version_is_chosen(
    bucket: Bucket, tmp_path: Path
) -> None:
    put(bucket, "moons/1", "moons/2", "rings/1")
    say(bucket, "version_policy = [1]")
    bucket.fault = refuses("serving.toml")
    assert [one.path for one in get(tmp_path, on_bad_model="skip").held_back] == [
        "moons/serving.toml"
    ]
    assert held(tmp_path) == {"rings/1"}


def test_settings_that_change_while_versions_are_read_are_held_back(
    bucket: Bucket, tmp_path: Path
) -> None:
    put(bucket, "moons/1", "moons/2")
    say(bucket, "version_policy = [1]")

    def fault(_: Handler, key: str, __: bytes) -> bool:
        if "model" in key.rpartition("/")[2]:
            say(bucket, "version_policy = [2]")
        return False

    bucket.fault = fault
    (one,) = get(tmp_path).held_back
    assert (one.path, "was changed while" in one.reason) == ("moons/serving.toml", True)
    assert held(tmp_path) == {"moons/1"}


def test_a_file_that_comes_while_the_others_are_read_holds_the_version_back(
    bucket: Bucket, tmp_path: Path
) -> None:
    put(bucket, "moons/1", "rings/1")

    def fault(_: Handler, key: str, __: bytes) -> bool:
        if key.startswith("models/rings/"):
            bucket.objects["models/rings/1/serving.toml"] = b""
        return False

    bucket.fault = fault
    (one,) = get(tmp_path, on_bad_model="skip").held_back
    assert (one.path, "was changed while" in one.reason) == ("rings/1", True)
