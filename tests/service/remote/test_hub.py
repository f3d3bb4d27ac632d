"""Models on the Hugging Face Hub, by a small server that answers as the Hub does."""

import base64
import hashlib
import json
import logging
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from service.remote.cache import CacheEntry
from service.remote.fetch import FetchOptions, fetch
from service.remote.hub_store import HubName, parse_hub_name
from service.remote.index import INDEX_FILE, read_index
from service.remote.push import push
from service.remote.store import BadUri, StoreError, open_store

TOKEN = "hf_0123456789abcdef"
WEIGHTS = b"weights" * 100
CONFIG = json.dumps({"family": "planar", "numbers": [*range(20)]}).encode()
FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "run.py": b"evil"}
COMMIT = "c" * 40


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """One repository, org/flow, which is private; and org/mine, which a push makes."""

    calls: ClassVar[list[str]] = []
    pushed: ClassVar[dict[str, bytes]] = {}
    stored: ClassVar[dict[str, bytes]] = {}
    weights_digest = hashlib.sha256(WEIGHTS).hexdigest()
    # Answers with which it begins, instead of the configuration: body, and whether it has a length.
    busy: ClassVar[list[tuple[bytes, bool]]] = []
    ranges: ClassVar[list[str | None]] = []
    lists: ClassVar[list[str]] = []

    def log_message(self, *told: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        file = re.fullmatch(rf"/org/flow/resolve/{COMMIT}/(.+)", path)
        if path.startswith("/api/models/org/gated"):
            refused = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"}
            self.answer(403, b"{}", refused)
        elif path.startswith(("/api/models/org/missing", "/api/models/org/mine")):
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "secret"})
        elif path == "/api/models/org/flow/revision/v1.0":
            self.lists.append(path)
            siblings = [
                {
                    "rfilename": name,
                    "size": len(content),
                    "blobId": git_sha1(content),
                    **self.lfs(name),
                }
                for name, content in FILES.items()
            ]
            body = {"id": "org/flow", "sha": COMMIT, "siblings": siblings}
            self.answer(200, json.dumps(body).encode())
        elif file and file[1] in FILES:
            self.give(file[1])
        else:
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})

    def give(self, name: str) -> None:
        """A file, or what is asked for of it."""
        content, asked = FILES[name], self.headers.get("Range")
        if name == "config.json":
            self.ranges.append(asked)
            if self.busy:
                body, has_length = self.busy.pop()
                self.answer(200, body, has_length=has_length)
                return
        if asked is None:
            self.answer(200, content)
            return
        first = int(asked.removeprefix("bytes=").rstrip("-"))
        total = f"bytes {first}-{len(content) - 1}/{len(content)}"
        self.answer(206, content[first:], {"Content-Range": total})

    def do_POST(self) -> None:
        """What a push asks: to make the repository, how to upload, where to, and the commit."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        call = self.path.partition("?")[0].removeprefix("/api/models/org/mine/")
        self.calls.append(call)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(403, b'{"error": "You may not write here"}')
        elif call == "commit/main":
            for line in body.decode().splitlines():
                told = json.loads(line)
                value = told["value"]
                if told["key"] == "file":
                    self.pushed[value["path"]] = base64.b64decode(value["content"])
                elif told["key"] == "lfsFile":
                    self.pushed[value["path"]] = self.stored[value["oid"]]
            self.tell({"commitUrl": f"{self.url}/org/mine/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            asked = json.loads(body)
            self.tell(
                {
                    "/api/repos/create": lambda: {"url": f"{self.url}/org/mine"},
                    "preupload/main": lambda: {"files": [self.mode(one) for one in asked["files"]]},
                    "/org/mine.git/info/lfs/objects/batch": lambda: {
                        "transfer": "basic",
                        "objects": [self.place(one) for one in asked["objects"]],
                    },
                    "/verify": dict,
                }[call]()
            )

    def do_PUT(self) -> None:
        """Take a large file."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.calls.append("upload")
        self.stored[hashlib.sha256(content).hexdigest()] = content
        self.answer(200, b"")

    @property
    def url(self) -> str:
        return f"http://{self.headers['Host']}"

    def mode(self, file: dict[str, object]) -> dict[str, object]:
        is_large = str(file["path"]).endswith(".safetensors")
        mode = "lfs" if is_large else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}

    def place(self, one: dict[str, object]) -> dict[str, object]:
        actions = {
            "upload": {"href": f"{self.url}/upload/{one['oid']}"},
            "verify": {"href": f"{self.url}/verify"},
        }
        return {**one, "actions": actions}

    def tell(self, body: object) -> None:
        self.answer(200, json.dumps(body).encode())

    def lfs(self, name: str) -> dict[str, object]:
        if name != "model.safetensors":
            return {}
        size = len(FILES[name])
        return {"lfs": {"sha256": self.weights_digest, "size": size, "pointerSize": 100}}

    def answer(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        *,
        has_length: bool = True,
    ) -> None:
        self.send_response(status)
        length = {"Content-Length": str(len(body))} if has_length else {}
        for name, value in {**(headers or {}), **length}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(autouse=True)
def _hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        # Read from HF_ENDPOINT when the library is imported.
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        # Its own protocol is that of other servers; without it the library uploads by Git LFS.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        for kept in (Hub.calls, Hub.pushed, Hub.stored):
            kept.clear()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def test_a_revision_is_fetched_with_the_token_which_is_told_to_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    Hub.lists.clear()
    status = fetch("hf://org/flow@v1.0", FetchOptions(tmp_path, 5.0))
    assert status.is_ok, status
    link = CacheEntry.of(tmp_path, "hf://org/flow@v1.0").link
    assert link.name == "flow"
    assert {path.name for path in link.iterdir()} == {"config.json", "model.safetensors"}
    assert TOKEN not in caplog.text
    assert len(Hub.lists) == 1, "files with digests need not be listed again"
    assert all(TOKEN not in path.read_text() for path in tmp_path.rglob(".state.json"))


def test_a_digest_that_is_not_the_hubs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hub, "weights_digest", "0" * 64)
    status = fetch("hf://org/flow@v1.0", FetchOptions(tmp_path, 5.0))
    assert "model.safetensors: expected the SHA-256 000" in status.reason


@pytest.mark.parametrize(
    ("has_length", "asked"), [(True, [None, None]), (False, [None, "bytes=17-", None])]
)
def test_another_answer_is_not_a_part_of_a_file(
    has_length: bool, asked: list[str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file without SHA-256: the Hub is busy, and says so with status 200."""
    ranges: list[str | None] = []
    monkeypatch.setattr(Hub, "busy", [(b"<html>busy</html>", has_length)])
    monkeypatch.setattr(Hub, "ranges", ranges)
    status = fetch("hf://org/flow@v1.0", FetchOptions(tmp_path, 5.0))
    assert status.is_ok, status
    link = CacheEntry.of(tmp_path, "hf://org/flow@v1.0").link
    assert (link / "config.json").read_bytes() == CONFIG
    assert ranges == asked


@pytest.mark.parametrize(
    ("uri", "token", "said"),
    [
        ("hf://org/missing", TOKEN, "no such repository, or HF_TOKEN"),
        ("hf://org/flow@v2.0", TOKEN, "there is no such revision"),
        ("hf://org/flow@v1.0", "hf_another", "no such repository, or HF_TOKEN"),
        ("hf://org/gated", TOKEN, "access to it is granted on its page"),
    ],
)
def test_what_the_hub_refuses_is_told_with_what_to_do(
    uri: str, token: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    status = fetch(uri, FetchOptions(tmp_path, 5.0))
    assert said in status.reason
    assert status.is_misnamed
    assert token not in status.reason


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_bytes(b"{}")
    (tmp_path / "mine" / "model.safetensors").write_bytes(WEIGHTS)
    return tmp_path / "mine"


# Of the library itself, when it uploads a file.
@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")
def test_a_model_is_pushed_as_one_commit(model: Path) -> None:
    (done,) = push(model, open_store("hf://org/mine/1", 5.0), timeout_seconds=5.0, force=False)
    assert done.is_new
    assert Hub.calls == [
        *("/api/repos/create", "preupload/main", "/org/mine.git/info/lfs/objects/batch"),
        *("upload", "/verify", "commit/main"),
    ]
    index = Hub.pushed.pop(f"1/{INDEX_FILE}")
    assert Hub.pushed == {"1/config.json": b"{}", "1/model.safetensors": WEIGHTS}
    digests = {one.path: one.sha256 for one in read_index(index, INDEX_FILE)}
    assert digests["model.safetensors"] == Hub.weights_digest


def test_a_push_that_is_refused_or_stalls_is_one_line(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store("hf://org/mine/1", 0.1)
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(StoreError, match=r"cannot be written: .*403") as refused:
        store.upload([("config.json", model / "config.json")], [])
    assert "\n" not in str(refused.value)
    released = threading.Event()
    monkeypatch.setattr(Hub, "do_POST", lambda _: released.wait(5))
    try:
        with pytest.raises(StoreError, match=r"cannot be written: .*timed out"):
            store.upload([("config.json", model / "config.json")], [])
    finally:
        released.set()


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("hf://org/flow", HubName("org/flow", None, "")),
        ("hf://org/flow@v1.0/moons/2/", HubName("org/flow", "v1.0", "moons/2")),
        ("hf://org/flow@refs/pr/3/moons", HubName("org/flow", "refs/pr/3", "moons")),
        ("hf://org/flow@a%2Fb", HubName("org/flow", "a/b", "")),
        ("hf://org/flow/moons", HubName("org/flow", None, "moons")),
    ],
)
def test_a_uri_names_a_repository_a_revision_and_a_folder(uri: str, name: HubName) -> None:
    assert parse_hub_name(uri) == name


@pytest.mark.parametrize("uri", ["hf://flow", "hf://", "hf://org/", "hf://org/flow@"])
def test_other_uris_of_the_hub_are_refused(uri: str) -> None:
    with pytest.raises(BadUri, match="hf://ORGANISATION/NAME"):
        parse_hub_name(uri)
