"""Harmless Python beside the weights is read as inert values; nothing a pickle names is called."""

import argparse
import collections
import contextlib
import copyreg
import datetime
import io
import os
import pathlib
import pickle
import random
import re
import struct
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.importers.inert import Array, Malformed, Record, as_mapping
from models.importers.pickles import Interpreter, Refused
from models.importers.reading import read
from models.importers.report import ImportRefused, Report
from models.importers.run import Request, run
from models.importers.torch_files import read_file
from tests.fixtures import case_folder, checkpoint_of
from tests.models.importers.golden import load

OMEGACONF = checkpoint_of(case_folder("omegaconf", "hyperparameters"))
CASE = load("nflows_realnvp_a")
STATE = torch.load(CASE.checkpoint, weights_only=True)
HISTORY = collections.defaultdict(list, {"loss": [1.5, 1.25]})
BESIDE: dict[str, Any] = {
    "numpy scalar": np.float32(1.5),
    "numpy integer": np.int64(3),
    "numpy flag": np.bool_(True),
    "numpy array": np.arange(6.0).reshape(2, 3),
    "numpy strings": np.array(["a", "b"]),
    "numpy objects": np.array([{"a": 1}, None], dtype=object),
    "numpy records": np.zeros(2, [("a", "f4"), ("b", "i8")]),
    "random states": (random.getstate(), np.random.get_state(), torch.get_rng_state()),
    "generator": np.random.default_rng(0),
    "path": pathlib.Path("runs/7"),
    "defaultdict": HISTORY,
    "counter": collections.Counter("aab"),
    "deque": collections.deque([1, 2], maxlen=3),
    "namespace": argparse.Namespace(lr=1e-3, out=pathlib.Path("runs")),
    "simple namespace": types.SimpleNamespace(lr=1e-3),
    "time": datetime.datetime(2026, 1, 2),
    "types": [torch.float32, torch.device("cpu"), torch.Size([2]), {1, 2}, 2j, bytearray(b"x")],
}


def dump(protocol: int) -> Callable[[Any, Path], None]:
    def write(value: Any, path: Path) -> None:
        path.write_bytes(pickle.dumps(value, protocol))

    return write


FORMS: dict[str, Callable[[Any, Path], None]] = {
    "zip": torch.save,
    "stream": lambda value, path: torch.save(value, path, _use_new_zipfile_serialization=False),
    "zip 4": lambda value, path: torch.save(value, path, pickle_protocol=4),
    "zip 5": lambda value, path: torch.save(value, path, pickle_protocol=5),
    "pickle 0": dump(0),
    "pickle 2": dump(2),
    "pickle 5": dump(5),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("beside", BESIDE)
def test_weights_beside_harmless_python_are_read(tmp_path: Path, beside: str, form: str) -> None:
    state = {"layer.weight": torch.arange(6.0).view(2, 3).T, "layer.steps": torch.tensor(7)}
    FORMS[form]({"state_dict": state, "beside": BESIDE[beside]}, tmp_path / "model.pt")
    content = read(tmp_path / "model.pt", Report())
    assert content["state_dict"].keys() == state.keys()
    for key, tensor in state.items():
        assert content["state_dict"][key].dtype == tensor.dtype
        assert torch.equal(content["state_dict"][key], tensor)


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ("numpy scalar", 1.5),
        ("numpy integer", 3),
        ("numpy flag", True),
        ("path", "runs/7"),
        ("defaultdict", {"loss": [1.5, 1.25]}),
        ("counter", {"a": 2, "b": 1}),
        ("deque", [1, 2]),
        ("namespace", argparse.Namespace(lr=1e-3, out="runs")),
        ("simple namespace", argparse.Namespace(lr=1e-3)),
    ],
)
@pytest.mark.parametrize("form", ["zip", "stream", "pickle 0", "pickle 5"])
def test_plain_values_are_what_they_were(
    tmp_path: Path, beside: str, expected: Any, form: str
) -> None:
    FORMS[form]({"x": torch.ones(1), "beside": BESIDE[beside]}, tmp_path / "model.pt")
    assert read_file(tmp_path / "model.pt").value["beside"] == expected


@pytest.mark.parametrize("form", ["zip", "pickle 5"])
def test_arrays_keep_their_numbers(tmp_path: Path, form: str) -> None:
    arrays = [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.eye(3, 2)),
        np.arange(3, dtype=">i4"),
    ]
    FORMS[form](arrays, tmp_path / "model.pt")
    for got, expected in zip(read_file(tmp_path / "model.pt").value, arrays, strict=True):
        assert isinstance(got, Array)
        np.testing.assert_array_equal(got.value, expected)


@pytest.mark.parametrize("form", FORMS)
def test_a_checkpoint_of_any_form_is_imported(tmp_path: Path, form: str) -> None:
    content = {"state_dict": STATE, "best_loss": np.float32(1.25), "epoch": 3}
    FORMS[form](content, tmp_path / "model.pt")
    flow, report = run(tmp_path / "model.pt", Request(None, CASE.config))
    assert torch.equal(flow.log_prob(CASE.arrays["x"]), CASE.flow().log_prob(CASE.arrays["x"]))
    (found,) = (item.detail for item in report.items if item.what == "file")
    assert "read without calling anything" in found


def test_arrays_of_numpy_are_taken_for_weights_where_there_are_no_tensors(tmp_path: Path) -> None:
    arrays = {key: value.numpy() for key, value in STATE.items()}
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"model": arrays}))
    flow, report = run(tmp_path / "model.pkl", Request(None, CASE.config))
    assert torch.equal(flow.log_prob(CASE.arrays["x"]), CASE.flow().log_prob(CASE.arrays["x"]))
    assert any("arrays of numpy" in item.detail for item in report.items)


def test_omegaconf_is_read_without_it(tmp_path: Path) -> None:
    path = OMEGACONF
    hparams = {"n_flow": 2, "img_size": 8, "n_bits": 8, "nested": {"lr": [1e-3, 2.0]}}
    assert as_mapping(read_file(path).value["hparams"]) == hparams
    assert "omegaconf" not in sys.modules


def test_arguments_of_omegaconf_are_used(tmp_path: Path) -> None:
    case = load("rosinality_glow_b")
    content = read_file(OMEGACONF).value
    node = content["hparams"]
    assert isinstance(node, Record)
    assert node.name.startswith("omegaconf.")
    state = torch.load(case.checkpoint, weights_only=True)
    torch.save({"hparams": as_mapping(node), "model": state}, tmp_path / "model.pt")
    _, report = run(tmp_path / "model.pt", Request())
    assert {item.name for item in report.settings if item.origin == "checkpoint"} >= {"img_size"}


class Canary:
    """Unpickling one makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def _call(path: str) -> bytes:
    return _text(path) + b"\x85R."


# Each ends in os.mkdir(path) or the like where Python's own unpickler reads it.
HOSTILE: dict[str, Callable[[str], bytes]] = {
    "reduce": lambda path: b"cposix\nmkdir\n" + _call(path),
    "inst": lambda path: b"(" + _text(path) + b"iposix\nmkdir\n.",
    "obj": lambda path: b"(cposix\nmkdir\n" + _text(path) + b"o.",
    "newobj": lambda path: b"\x80\x02cposix\nmkdir\n" + _text(path) + b"\x85\x81.",
    "newobj_ex": lambda path: b"\x80\x04cposix\nmkdir\n" + _text(path) + b"\x85}\x92.",
    "stack global": lambda path: (
        b"\x80\x04" + _text("posix") + _text("mkdir") + b"\x93" + _call(path)
    ),
    "name out of the memo": lambda path: (
        b"\x80\x04"
        + _text("mkdir")
        + b"q\x00"
        + _text("posix")
        + b"q\x010h\x01h\x00\x93"
        + _call(path)
    ),
    "dotted name": lambda path: (
        b"\x80\x04" + _text("collections") + _text("OrderedDict.__reduce__.__globals__") + b"\x93."
    ),
    "eval": lambda path: b"cbuiltins\neval\n" + _call(f"__import__('os').mkdir({path!r})"),
    "getattr": lambda path: b"cbuiltins\ngetattr\n(cos\npath\n" + _text("join") + b"tR.",
    "old builtins": lambda path: b"c__builtin__\nexec\n" + _call(f"import os; os.mkdir({path!r})"),
    "partial": lambda path: b"cfunctools\npartial\n(cposix\nmkdir\n" + _text(path) + b"tR.",
    "through torch": lambda path: (
        b"ctorch._tensor\n_rebuild_from_type_v2\n(cposix\nmkdir\nN(" + _text(path) + b"tNtR."
    ),
    "through copyreg": lambda path: (
        b"ccopyreg\n__newobj__\n(cposix\nmkdir\n" + _text(path) + b"tR."
    ),
    "factory": lambda path: b"ccollections\ndefaultdict\n(cposix\ngetcwd\ntR.",
    "hub": lambda path: b"ctorch.hub\nload\n" + _call(path),
    "extension": lambda path: b"\x80\x02\x82\xf0" + _call(path),
    "buffer": lambda path: b"\x80\x05\x97.",
    "inside an array": lambda path: pickle.dumps(np.array([Canary(Path(path))], dtype=object)),
    "state of a record": lambda path: (
        b"cdatetime\ndatetime\n)R(" + _text("x") + b"cposix\nmkdir\n" + _text(path) + b"\x85Rdb."
    ),
    "file inside": lambda path: (
        b"\x80\x04ctorch.storage\n_load_from_bytes\nB"
        + struct.pack("<I", len(inner := pickle.dumps(Canary(Path(path)))))
        + inner
        + b"\x85R."
    ),
}


@pytest.mark.parametrize("is_zip", [False, True], ids=["plain", "zip"])
@pytest.mark.parametrize("trick", HOSTILE)
def test_no_trick_calls_anything(tmp_path: Path, trick: str, is_zip: bool) -> None:
    canary, path = tmp_path / "canary", tmp_path / "model.pt"
    copyreg.add_extension("posix", "mkdir", 0xF0)
    assert (
        pickle.loads(b"\x80\x02\x82\xf0.") is os.mkdir
    )  # now cached: it is found without a look-up
    try:
        pickled = HOSTILE[trick](str(canary))
        if is_zip:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("archive/data.pkl", pickled)
                archive.writestr("archive/version", b"3\n")
        else:
            path.write_bytes(pickled)
        with pytest.raises(Refused):
            read_file(path)
        with pytest.raises(ImportRefused, match=r"asks for .*, which is code and not data"):
            read(path, Report())
    finally:
        copyreg.remove_extension("posix", "mkdir", 0xF0)  # from the cache too
    assert not canary.exists()


@pytest.mark.parametrize(
    "trick", ["reduce", "inst", "obj", "stack global", "eval", "inside an array"]
)
def test_the_canaries_sing_elsewhere(tmp_path: Path, trick: str) -> None:
    pickle.loads(HOSTILE[trick](str(tmp_path / "canary")))
    assert (tmp_path / "canary").is_dir()


def _nested(levels: int) -> bytes:
    """Tuples of two times the one before: 2^levels items to a walk."""
    return b"\x80\x02" + b"K\x01" + b"2\x86" * levels


MALFORMED: dict[str, bytes] = {
    "no value": b"\x80\x02.",
    "no end": b"\x80\x02K\x01",
    "unknown memo": b"h\x07.",
    "stack below": b"R.",
    "mark for a value": b"(.",
    "call of a number": b"K\x01)R.",
    "call of a record": b"cdatetime\ndatetime\n)R)R.",
    "arguments of no kind": b"cdatetime\ndatetime\nK\x01R.",
    "state of a number": b"K\x01}b.",
    "items of a number": b"K\x01K\x02a.",
    "keys of a list": b"]K\x01K\x02s.",
    "a list as a key": b"}]K\x01s.",
    "a deep tuple as a key": b"}" + b")" + b"\x85" * 5_000 + b"K\x01s.",
    "pairs with a key of many times itself": (
        b"\x80\x02ccollections\nOrderedDict\n](K\x01" + b"2\x86" * 60 + b"K\x01\x86e\x85R."
    ),
    "persistent id": b"K\x01Q.",
    "dtype": b"cnumpy\ndtype\n(K\x01K\x02tRK\x01b.",
    "bytes as long as the sky": b"\x8e" + b"\xff" * 7 + b"\x7fabc.",
    "memo as far as the sky": b"K\x01r\xff\xff\xff\xffh\x01.",
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_pickles_are_named(tmp_path: Path, case: str) -> None:
    (tmp_path / "model.pt").write_bytes(MALFORMED[case])
    with pytest.raises(Malformed):
        read_file(tmp_path / "model.pt")
    with pytest.raises(ImportRefused, match="truncated or damaged"):
        read(tmp_path / "model.pt", Report())


@pytest.mark.parametrize("pickled", [_nested(60) + b".", b"]q\x00h\x00a.", b"}q\x00K\x01h\x00s."])
def test_values_without_an_end_are_walked_to_an_end(tmp_path: Path, pickled: bytes) -> None:
    head = b"\x80\x02}" + _text("args")
    body = pickled.removeprefix(b"\x80\x02").removesuffix(b".")
    (tmp_path / "model.pt").write_bytes(head + body + b"s.")
    with pytest.raises(ImportRefused, match="expected a state dict"):
        run(tmp_path / "model.pt", Request())


def _tensor_of(offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """A file of torch.save whose tensor is cut like this out of a storage of four."""
    buffer = io.BytesIO()
    torch.save(torch.ones(4), buffer, _use_new_zipfile_serialization=False)
    parts = [b"K" + bytes([value]) for value in (offset, *size, *stride)]
    cut = parts[0] + b"(" + b"".join(parts[1 : 1 + len(size)]) + b"t("
    cut += b"".join(parts[1 + len(size) :]) + b"t"
    whole = re.compile(rb"K\x00K\x04\x85q.K\x01\x85q.", re.DOTALL)
    data, count = whole.subn(lambda _: cut, buffer.getvalue())
    assert count == 1
    return data


@pytest.mark.parametrize(
    "cut",
    [(1, (4,), (1,)), (0, (4,), (2,)), (0, (3, 2), (2, 1)), (0, (4,), (1, 1)), (5, (1,), (1,))],
)
def test_tensors_stay_inside_their_storage(tmp_path: Path, cut: Any) -> None:
    (tmp_path / "model.pt").write_bytes(_tensor_of(*cut))
    with pytest.raises(Malformed, match="a tensor"):
        read_file(tmp_path / "model.pt")
    (tmp_path / "model.pt").write_bytes(_tensor_of(0, (2, 2), (2, 1)))
    assert torch.equal(read_file(tmp_path / "model.pt").value, torch.ones(2, 2))


def test_storages_are_as_long_as_the_file(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(64), "b": np.float32(1)}, tmp_path / "good.pt")
    with (
        zipfile.ZipFile(tmp_path / "good.pt") as good,
        zipfile.ZipFile(tmp_path / "bad.pt", "w", zipfile.ZIP_DEFLATED) as bad,
    ):
        for name in good.namelist():
            bad.writestr(name, good.read(name))
    with pytest.raises(Malformed, match="not as long as it says"):
        read_file(tmp_path / "bad.pt")


def test_tensors_of_one_storage_share_it(tmp_path: Path) -> None:
    whole = torch.arange(8.0)
    # A deque, which torch's own reader refuses.
    content = {"views": [whole[:4], whole[2:], whole], "beside": collections.deque()}
    torch.save(content, tmp_path / "model.pt")
    views = read_file(tmp_path / "model.pt").value["views"]
    assert torch.equal(views[1], whole[2:])
    assert len({view.untyped_storage().data_ptr() for view in views}) == 1


def test_storages_together_are_no_longer_than_the_file(tmp_path: Path) -> None:
    """Persistent ids of a thousand floats each, in a file of a few thousand bytes."""
    name = b"(" + _text("storage") + b"ctorch\nFloatStorage\n"
    storages = [name + _text(key) + _text("cpu") + b"M\xe8\x03tQ" for key in "ab"]
    padding = b"B" + struct.pack("<I", 6_000) + b"\0" * 6_000 + b"0"
    one, two = (b"\x80\x02" + padding + b"".join(storages[:n]) + b"." for n in (1, 2))
    (tmp_path / "model.pt").write_bytes(one)
    assert read_file(tmp_path / "model.pt").value.shape == (1000,)
    (tmp_path / "model.pt").write_bytes(two)
    with pytest.raises(Malformed, match="storage b is longer than what is left of the file"):
        read_file(tmp_path / "model.pt")


def _damaged(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 8))):
        place = rng.randrange(len(changed))
        if rng.random() < 0.6:
            changed[place] = rng.randrange(256)
        else:
            changed[place:place] = rng.choice((b"(", b")", b"R", b"b", b"0", b"s", b"a", b"\x81"))
    return bytes(changed)


@pytest.mark.parametrize("form", ["stream", "pickle 2", "pickle 5"])
def test_damage_is_named_whatever_it_is(tmp_path: Path, form: str) -> None:
    path, rng = tmp_path / "model.pt", random.Random(7)
    FORMS[form]({"state_dict": {"w": torch.ones(2)}, "beside": list(BESIDE.values())}, path)
    whole = path.read_bytes()
    for _ in range(200):
        path.write_bytes(_damaged(whole, rng))
        with contextlib.suppress(Refused, Malformed):
            read_file(path)


def test_files_of_joblib_are_named(tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    arrays = {key: value.numpy() for key, value in STATE.items()}
    joblib.dump(arrays, tmp_path / "model.joblib")
    with pytest.raises(ImportRefused, match=r"a file of joblib\.dump, which keeps arrays outside"):
        read(tmp_path / "model.joblib", Report())
    joblib.dump(arrays, tmp_path / "small.joblib", compress=3)
    with pytest.raises(ImportRefused, match=r"a compressed file, as joblib\.dump"):
        read(tmp_path / "small.joblib", Report())


def test_nothing_listed_is_imported(tmp_path: Path) -> None:
    interpreter = Interpreter(lambda symbol, args: (symbol, args))
    before = set(sys.modules)
    interpreter.read(io.BytesIO(b"comegaconf.dictconfig\nDictConfig\n)R."))
    assert set(sys.modules) == before
