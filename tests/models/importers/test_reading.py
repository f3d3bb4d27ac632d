"""Files that are no checkpoints are named; nothing in a file ever runs."""

import argparse
import gzip
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import models
from models.importers.reading import read
from models.importers.report import ImportRefused, Report
from tests.models.importers.golden import load

ROSINALITY = load("rosinality_glow_b").checkpoint


class Canary:
    """Unpickling one makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", r"web page \(HTML\)"),
        (b"\n  <html lang='en'>", r"web page \(HTML\)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
        (gzip.compress(b"weights"), "gzip archive"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b'{"n_flow": 2}', "JSON text"),
        (b"just some words about a model\n", "not a checkpoint of torch.save"),
        (bytes(range(256)), "not a checkpoint of torch.save"),
    ],
    ids=["empty", "html", "html2", "lfs", "gzip", "hdf5", "json", "text", "bytes"],
)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = write(tmp_path / "model.pt", content)
    with pytest.raises(ImportRefused, match=message):
        models.import_checkpoint(path)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_truncated_files_are_named(tmp_path: Path, part: float, is_zip: bool) -> None:
    whole = tmp_path / "whole.pt"
    torch.save({"weight": torch.ones(999)}, whole, _use_new_zipfile_serialization=is_zip)
    data = whole.read_bytes()
    path = write(tmp_path / "model.pt", data[: int(part * len(data))])
    with pytest.raises(ImportRefused, match="truncated"):
        read(path, Report())


def test_damage_inside_a_file_is_found(tmp_path: Path) -> None:
    data = bytearray(ROSINALITY.read_bytes())
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(ImportRefused, match="damaged; download or copy it again"):
        read(write(tmp_path / "model.pt", bytes(data)), Report())


# Where the flags and the method stand in the two headers of an entry.
HEADERS = ((b"PK\x03\x04", 6, 8), (b"PK\x01\x02", 8, 10))


@pytest.mark.parametrize("fault", ["encrypted", "method", "packed"])
def test_zips_that_cannot_be_unpacked_are_named(tmp_path: Path, fault: str) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"lr": 1e-3}))
    data = bytearray((tmp_path / "model.pt").read_bytes())
    for start, flags, method in HEADERS:
        place = data.index(start)
        if fault == "encrypted":
            data[place + flags] |= 1
        elif fault == "method":
            data[place + method] = 99
    if fault == "packed":
        data[30 + len("archive/data.pkl")] ^= 0xFF
    with pytest.raises(
        ImportRefused, match=r"model\.pt: a zip file that cannot be unpacked \(.+\)"
    ):
        read(write(tmp_path / "model.pt", bytes(data)), Report())


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match="No such file"):
        read(tmp_path / "none.pt", Report())
    with pytest.raises(ImportRefused, match="got a folder"):
        read(tmp_path, Report())


def test_other_archives_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "arrays.npz", weight=np.zeros(3))
    with pytest.raises(ImportRefused, match=r"not one of torch\.save: it holds weight\.npy"):
        read(tmp_path / "arrays.npz", Report())


@pytest.mark.parametrize("form", ["zip", "legacy", "protocol 2", "protocol 4"])
def test_a_payload_is_named_and_does_not_run(tmp_path: Path, form: str) -> None:
    canary, path = tmp_path / "canary", tmp_path / "model.pt"
    content = {"state_dict": {"weight": torch.ones(2)}, "extra": Canary(canary)}
    if form.startswith("protocol"):
        path.write_bytes(pickle.dumps(Canary(canary), protocol=int(form[-1])))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(ImportRefused, match=r"asks for \w+\.mkdir, which is code"):
        read(path, Report())
    assert not canary.exists()
    # The canary sings where it is let: the test above would have noticed.
    pickle.loads(pickle.dumps(Canary(canary)))
    assert canary.is_dir()


def test_an_archive_writes_nothing_outside_itself(tmp_path: Path) -> None:
    path = tmp_path / "inner" / "model.pt"
    path.parent.mkdir()
    torch.save({"weight": torch.ones(2)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../slipped", "x")
    with pytest.raises(ImportRefused, match="damaged"):
        read(path, Report())
    assert [file.name for file in tmp_path.rglob("*")] == ["inner", "model.pt"]


def test_pickled_modules_are_named(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(ImportRefused, match=r"torch\.nn\.modules\.linear\.Linear"):
        read(tmp_path / "model.pt", Report())


def test_allow_pickle_reads_them_and_warns(tmp_path: Path) -> None:
    torch.save({"net": torch.nn.Linear(2, 2)}, tmp_path / "model.pt")
    report = Report()
    content = read(tmp_path / "model.pt", report, allow_pickle=True)
    assert isinstance(content["net"], torch.nn.Linear)
    assert [item.kind for item in report.items] == ["warning"]


def test_allow_pickle_changes_nothing_for_plain_files() -> None:
    report = Report()
    read(ROSINALITY, report, allow_pickle=True)
    assert [item.kind for item in report.items] == ["recognised"]


def test_namespaces_are_read(tmp_path: Path) -> None:
    torch.save({"args": argparse.Namespace(n_flow=2)}, tmp_path / "model.pt")
    assert read(tmp_path / "model.pt", Report()) == {"args": argparse.Namespace(n_flow=2)}


@pytest.mark.parametrize("name", ["model.safetensors", "model.bin"])
def test_safetensors_are_read_under_any_name(tmp_path: Path, name: str) -> None:
    save_file({"weight": torch.ones(2)}, tmp_path / name)
    assert torch.equal(read(tmp_path / name, Report())["weight"], torch.ones(2))


def test_broken_safetensors_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "model.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{broken}")
    with pytest.raises(ImportRefused, match="not a readable safetensors file"):
        read(path, Report())


def test_a_folder_of_shards_is_told_how_to_be_joined(tmp_path: Path) -> None:
    (tmp_path / ".metadata").touch()
    with pytest.raises(ImportRefused, match="format_utils dcp_to_torch"):
        read(tmp_path, Report("model"))
