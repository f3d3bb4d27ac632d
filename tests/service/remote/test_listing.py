"""Which files of a store are models: those that a loader knows, with the digests of an index."""

import hashlib

import pytest

from service.remote.index import INDEX_FILE, IndexEntry, write_index
from service.remote.listing import StoredFiles, is_model_file
from service.remote.store import BadUri, RemoteFile, StoreError

Files = dict[str, bytes]


def listed(files: Files) -> list[RemoteFile]:
    return [RemoteFile(path, len(content), "tag") for path, content in files.items()]


def chosen(files: Files) -> dict[str, str]:
    """The digest of each file that is chosen."""
    listing = StoredFiles(listed(files))
    for one in listing.indexes_of({path.rpartition("/")[0] for path in files}):
        listing.read_index(one, lambda one: files[one.path])
    found = []
    for model in listing.models():
        settings = listing.settings_of(model)
        found += [settings] if settings else []
        found += [one for folder in model.versions.values() for one in listing.files_in(folder)]
    return {one.path: one.sha256 for one in found}


def index(files: Files) -> bytes:
    return write_index(
        [
            IndexEntry(path, len(content), hashlib.sha256(content).hexdigest())
            for path, content in files.items()
        ]
    )


@pytest.mark.parametrize(
    "path",
    ["config.json", "2/config.json", "moons/encode.onnx", "moons/12/model.safetensors"],
)
def test_a_model_has_these_files(path: str) -> None:
    assert is_model_file(path)


@pytest.mark.parametrize(
    "path",
    [
        *("../config.json", "moons/../config.json", "/config.json", "//config.json"),
        *("./config.json", "moons//config.json", "..\\config.json", "moons/..", ""),
        *("moons/run.py", "moons/config.json/", ".git/config.json", "a b/config.json"),
        *("a/b/config.json", "1/2/config.json", "a/1/b/config.json", "1/moons/config.json"),
        "C:/config.json",
    ],
)
def test_other_paths_are_none_of_a_model(path: str) -> None:
    assert not is_model_file(path)


def test_folders_without_a_configuration_are_left_out() -> None:
    files = dict.fromkeys(
        ("moons/config.json", "moons/README.md", "README.md", "docs/README.md"), b"{}"
    )
    assert chosen(files) == {"moons/config.json": "", "moons/README.md": ""}
    versions = dict.fromkeys(("a/1/config.json", "a/serving.toml", "serving.toml"), b"")
    assert set(chosen(versions)) == {"a/1/config.json", "a/serving.toml"}


def test_no_model_is_told() -> None:
    with pytest.raises(BadUri, match=r"no model here; expected config\.json"):
        chosen({"README.md": b""})


def test_an_index_says_what_belongs_to_its_folder() -> None:
    own = {"config.json": b"{}", "model.safetensors": b"weights"}
    files = {f"moons/1/{name}": content for name, content in own.items()}
    files[f"moons/1/{INDEX_FILE}"] = index(own)
    files["moons/1/calibration.json"] = b"of the version before"
    files["rings/config.json"] = b"without index"
    digest = hashlib.sha256(b"weights").hexdigest()
    found = chosen(files)
    assert found["moons/1/model.safetensors"] == digest
    assert "moons/1/calibration.json" not in found
    assert found["rings/config.json"] == ""


def test_the_nearest_index_counts() -> None:
    old, new = {"1/config.json": b"old", "2/config.json": b"two"}, {"config.json": b"new!"}
    files = {"1/config.json": b"new!", "2/config.json": b"two"}
    files |= {INDEX_FILE: index(old), f"1/{INDEX_FILE}": index(new)}
    assert chosen(files)["1/config.json"] == hashlib.sha256(b"new!").hexdigest()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"config.json": b"{}", INDEX_FILE: index({"config.json": b"{ }"})}, "its index says 3"),
        ({"2/config.json": b"{}", INDEX_FILE: index({"1/config.json": b""})}, "is not there"),
    ],
)
def test_files_that_are_not_those_of_the_index_are_refused(files: Files, said: str) -> None:
    with pytest.raises(StoreError, match=said):
        chosen(files)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b'{"format_version": 2, "files": []}', index({}).replace(b"[]", b'[{"path": 1}]')],
)
def test_what_is_no_index_is_refused(content: bytes) -> None:
    with pytest.raises(StoreError, match=INDEX_FILE):
        chosen({"config.json": b"{}", INDEX_FILE: content})


def test_an_index_leads_nowhere_else() -> None:
    files = {"config.json": b"{}", INDEX_FILE: index({"config.json": b"{}", "../x": b""})}
    assert set(chosen(files)) == {"config.json"}
