"""Reading checkpoint files of other code without running anything that is in them.

`torch.load(weights_only=True)` and safetensors; what harmless Python stands beside the weights
(numbers and arrays of numpy, random states, paths, namespaces, omegaconf) is read by an interpreter
of our own, from an allow-list, as inert values. What is not a checkpoint is recognised and named.
"""

import argparse
import lzma
import pickle
import warnings
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from models.importers import pickled_modules
from models.importers.inert import Malformed
from models.importers.pickles import Refused
from models.importers.pytrees import is_flow
from models.importers.report import ImportRefused, Report
from models.importers.torch_files import Content, read_file

_PAGE_STARTS = (b"<!doctype", b"<html", b"<?xml", b"<head")
# First bytes of files that people take for checkpoints.
_OTHER_FORMATS = {
    b"version https://git-lfs": "a Git LFS pointer, not the file it points to: run `git lfs pull`",
    b"\x1f\x8b": "a gzip archive: unpack it and import the file inside",
    b"\x89HDF": "an HDF5 file (Keras or Lightning of another kind): export a torch state dict",
    b"\x93NUMPY": "a NumPy array: a checkpoint of torch or a .safetensors file is expected",
    b"%PDF": "a PDF document",
    **dict.fromkeys(
        (b"x\x01", b"x\x5e", b"x\x9c", b"x\xda", b"BZh", b"\xfd7zXZ", b"\x5d\x00\x00"),
        "a compressed file, as joblib.dump(compress=...) writes it: load it where it was made and "
        "torch.save the state dict",
    ),
}


def read(path: Path, report: Report, *, allow_pickle: bool = False) -> Any:
    """Read what a checkpoint file holds: tensors in dicts and lists, with plain values.

    Args:
        path: a file of `torch.save` or safetensors.
        report: where what was seen is noted.
        allow_pickle: run whatever code a pickle asks for, where the safe reader refuses. Only for
            files whose author is trusted.

    Returns:
        The content, of the classes that `models.importers.inert` lists; after a pickle that was
        allowed, of any.

    Raises:
        ImportRefused: says what the file is instead, or which class it asks for.
    """
    if path.is_dir() and (path / ".metadata").exists():
        raise ImportRefused(
            f"{path}: a folder of shards (torch.distributed.checkpoint); join them first: python "
            f"-m torch.distributed.checkpoint.format_utils dcp_to_torch {path} model.pt"
        )
    if path.is_dir():
        raise ImportRefused(
            f"{path}: expected a checkpoint file, got a folder (a model folder of ours needs no "
            "import: serve it)"
        )
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise ImportRefused(f"{path}: cannot be read: {error.strerror}") from None
    _refuse_other_formats(path, head)
    if path.suffix == ".safetensors" or _is_safetensors(head):
        report.recognised("file", "safetensors: holds tensors and nothing else")
        return _read_safetensors(path)
    _refuse_other_zips(path, head)
    return _read_torch(path, report, allow_pickle=allow_pickle)


def _refuse_other_formats(path: Path, head: bytes) -> None:
    if not head:
        raise ImportRefused(f"{path}: the file is empty; download or copy it again")
    if head.lstrip().lower().startswith(_PAGE_STARTS):
        raise ImportRefused(
            f"{path}: this is a web page (HTML) saved under the name of a checkpoint; download the "
            "file itself, not the page that shows it"
        )
    for start, name in _OTHER_FORMATS.items():
        if head.startswith(start):
            raise ImportRefused(f"{path}: this is {name}")
    if head.lstrip()[:1] in (b"{", b"[") and head.isascii():
        raise ImportRefused(f"{path}: this is JSON text; give the weights here, JSON to --config")


def _refuse_other_zips(path: Path, head: bytes) -> None:
    if not head.startswith(b"PK"):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise ImportRefused(
            f"{path}: the file is truncated or damaged ({error}); download or copy it again"
        ) from None
    except (RuntimeError, ValueError, zlib.error, lzma.LZMAError) as error:
        # Encrypted, packed by a method that Python has not, or damaged in what is packed.
        raise ImportRefused(
            f"{path}: a zip file that cannot be unpacked ({error}); download or copy it again, or "
            "save it as torch.save does, neither packed nor encrypted"
        ) from None
    if damaged is not None:
        raise ImportRefused(f"{path}: {damaged} inside it is damaged; download or copy it again")
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        raise ImportRefused(
            f"{path}: this is a TorchScript program; expected a state dict: load it where it was "
            "made and torch.save(module.state_dict(), ...)"
        )
    if not any(name.endswith("/data.pkl") for name in names):
        inside = ", ".join(names[:3]) or "nothing"
        raise ImportRefused(f"{path}: a zip file, but not one of torch.save: it holds {inside}")


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ImportRefused(f"{path}: not a readable safetensors file: {error}") from None


def _read_torch(path: Path, report: Report, *, allow_pickle: bool) -> Any:
    """Read by torch's own safe reader, and what it does not know, by ours, which calls nothing."""
    try:
        content = _load(path, weights_only=True)
    except pickle.UnpicklingError:
        pass
    except Exception as error:
        # RuntimeError, EOFError, KeyError, ...: of damaged files, and of pickles that torch did not
        # write, of which our own reader can say more.
        if zipfile.is_zipfile(path):
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise _unreadable(path, reason) from None
    else:
        report.recognised("file", "torch.save: read with weights_only=True")
        return content
    try:
        found = _read_inert(path)
    except (Malformed, zipfile.BadZipFile, OSError) as error:
        raise _unreadable(path, str(error) or "it is no pickle") from None
    except Refused as error:
        if not allow_pickle:
            raise _refusal(path, error.name) from None
        report.warning(
            "file", f"read with --allow-pickle: {error.name} was loaded and may run code"
        )
        return _run_pickle(path)
    names = ", ".join(sorted(name for name in found.names if not name.startswith("torch")))
    report.recognised("file", f"a pickle: read without calling anything{_beside(names)}")
    return found.value


def _read_inert(path: Path) -> Content:
    """Read by our own reader; in a flow with its structure any function may stand by its name."""
    try:
        return read_file(path)
    except Refused:
        with suppress(Malformed):
            found = read_file(path, every_name=True)
            if is_flow(found.value):
                return found
        raise


def _beside(names: str) -> str:
    return f"; {names} beside the tensors: inert values" if names else ""


def _refusal(path: Path, name: str) -> ImportRefused:
    if name.startswith("joblib."):
        return ImportRefused(
            f"{path}: a file of joblib.dump, which keeps arrays outside the pickle, where only "
            "joblib finds them; load it where it was made and torch.save the state dict"
        )
    if name.startswith(("torch.distributed.", "torch._utils._rebuild_wrapper_subclass")):
        return ImportRefused(
            f"{path}: tensors that are shards of several processes ({name}); expected a whole "
            "state dict: torch.distributed.checkpoint.state_dict.get_model_state_dict(model, "
            "options=StateDictOptions(full_state_dict=True, cpu_offload=True)), saved by rank 0"
        )
    return pickled_modules.refusal(path) or ImportRefused(
        f"{path}: the file asks for {name}, which is code and not data, so it was not "
        "read (and nothing in it ran). Save the state dict alone, or, if you trust who "
        "made the file, import it with --allow-pickle"
    )


def _run_pickle(path: Path) -> Any:
    try:
        return _load(path, weights_only=False)
    except Exception as error:
        raise ImportRefused(
            f"{path}: cannot be unpickled here: {type(error).__name__}: {error}; put the code that "
            "defines the class on PYTHONPATH, or save the state dict alone"
        ) from None


def _unreadable(path: Path, reason: str) -> ImportRefused:
    return ImportRefused(
        f"{path}: not a checkpoint of torch.save or pickle.dump, or a truncated or damaged one: "
        f"{reason}"
    )


def _load(path: Path, *, weights_only: bool) -> Any:
    with (
        warnings.catch_warnings(),
        torch.serialization.safe_globals([argparse.Namespace]),
    ):
        # Old files bring warnings about their format that a reader can do nothing about.
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=weights_only)
