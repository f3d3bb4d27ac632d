"""Checkpoints that are wrong, and what their reader is told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import models
from models.checkpoints.folder import CheckpointError, digest
from models.registry import FAMILIES
from tests.cases import CASES, make_flow

NAME = next(name for name in sorted(CASES) if CASES[name].family == "realnvp")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    models.save(make_flow(NAME), path)
    return path


def edit_config(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        content = json.loads(path.read_text())
        content.update(changes)
        path.write_text(json.dumps({k: v for k, v in content.items() if v != "(removed)"}))

    return edit


def edit_family_config(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())["config"]
        edit_config(config={**config, **changes})(folder)

    return edit


def edit_tensors(
    change: Callable[[dict[str, torch.Tensor]], None], file: str = "model.safetensors"
) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / file)
        change(tensors)
        save_file(tensors, folder / file)

    return edit


def write(file: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes(content) and None


def remove(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def truncate(file: str, size: int) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:size]) and None


def first_float(tensors: dict[str, torch.Tensor]) -> str:
    return next(key for key in sorted(tensors) if tensors[key].is_floating_point())


def drop_one(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[first_float(tensors)]


def add_one(tensors: dict[str, torch.Tensor]) -> None:
    tensors["optimizer.step"] = torch.zeros(1)


def reshape_one(tensors: dict[str, torch.Tensor]) -> None:
    key = first_float(tensors)
    tensors[key] = torch.cat((tensors[key], tensors[key]))


def halve_one(tensors: dict[str, torch.Tensor]) -> None:
    key = first_float(tensors)
    tensors[key] = tensors[key].half()


def poison_one(tensors: dict[str, torch.Tensor]) -> None:
    tensors[first_float(tensors)].view(-1)[0] = float("nan")


def shift_all(tensors: dict[str, torch.Tensor]) -> None:
    for tensor in tensors.values():
        if tensor.is_floating_point():
            tensor += 1e-3


def shift_log_prob(tensors: dict[str, torch.Tensor]) -> None:
    tensors["log_prob"] += 1e-6


HUGE_HEADER = (2**62).to_bytes(8, "little") + b"{}"
OVERLAP = (
    b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},'
    b'"b":{"dtype":"F32","shape":[4],"data_offsets":[8,24]}}'
)

MALFORMED: dict[str, tuple[Callable[[Path], None], str]] = {
    "no config": (remove("config.json"), "config.json: cannot be read"),
    "config is not JSON": (write("config.json", b"{"), "config.json: the file: Invalid JSON"),
    "config is not UTF-8": (write("config.json", b"\xff\xfe"), "config.json: cannot be read"),
    "config is a list": (write("config.json", b"[]"), "config.json: the file"),
    "config is huge": (write("config.json", b" " * (5 * 2**20)), "expected at most"),
    "a future format": (edit_config(format_version=2), "format_version: Input should be 1"),
    "an unknown key": (edit_config(pickle="x"), "pickle: Extra inputs"),
    "no family": (edit_config(family="(removed)"), "family: Field required"),
    "an unknown family": (edit_config(family="realnpv"), "did you mean 'realnvp'"),
    "an unknown argument": (edit_family_config(laers=3), "laers: no such argument"),
    "an argument of a wrong type": (edit_family_config(num_layers="3"), "num_layers: Input should"),
    "a negative size": (edit_family_config(num_layers=-3), "num_layers: Input should be greater"),
    "shapes that contradict": (edit_config(event_shape=[77]), "event_shape and context_shape"),
    "no weights": (remove("model.safetensors"), "not a readable safetensors file"),
    "truncated weights": (truncate("model.safetensors", 300), "not a readable safetensors file"),
    "empty weights": (write("model.safetensors", b""), "not a readable safetensors file"),
    "a header of 2^62 bytes": (
        write("model.safetensors", HUGE_HEADER),
        "not a readable safetensors file",
    ),
    "overlapping tensors": (
        write("model.safetensors", len(OVERLAP).to_bytes(8, "little") + OVERLAP + bytes(24)),
        "not a readable safetensors file",
    ),
    "a pickle": (write("model.safetensors", b"\x80\x04cos\nsystem\n."), "not a readable"),
    "a missing tensor": (edit_tensors(drop_one), "missing"),
    "a tensor too many": (edit_tensors(add_one), "optimizer.step: not part of this flow"),
    "a wrong shape": (edit_tensors(reshape_one), "expected shape"),
    "a wrong dtype": (edit_tensors(halve_one), "expected dtype float32 or float64"),
    "a NaN": (edit_tensors(poison_one), "1 of .* values are not finite"),
    "other weights": (edit_tensors(shift_all), "does not reproduce its golden rows"),
    "no golden rows": (remove("golden.safetensors"), "golden.safetensors: not a readable"),
    "golden rows of another flow": (
        edit_tensors(reshape_one, "golden.safetensors"),
        "expected golden rows of shapes",
    ),
    "golden answers that differ": (
        edit_tensors(shift_log_prob, "golden.safetensors"),
        "off by .*, at most",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_checkpoint_is_refused(folder: Path, case: str) -> None:
    damage, message = MALFORMED[case]
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        models.load(folder)


def test_a_saved_permutation_must_be_one(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    models.save(make_flow("glow_class_conditional_logit"), folder)

    def repeat(tensors: dict[str, torch.Tensor]) -> None:
        key = next(key for key in tensors if tensors[key].dtype == torch.int64)
        tensors[key].zero_()

    edit_tensors(repeat)(folder)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .*permutation"):
        models.load(folder)


def test_a_mask_that_breaks_the_inverse_is_refused(tmp_path: Path) -> None:
    flow = make_flow("maf")
    masks = [buffer for key, buffer in flow.named_buffers() if key.endswith("mask")]
    for mask in masks:
        mask.fill_(True)
    with pytest.raises(CheckpointError, match=r"not each other's inverse.*off by"):
        models.save(flow, tmp_path / "model")


def test_weights_may_be_wider_than_what_is_computed(folder: Path) -> None:
    flow = make_flow(NAME)
    models.save(flow, folder, dtype=torch.float32)
    narrow, wide = models.load(folder), models.load(folder, dtype=torch.float64)
    assert (narrow.dtype, wide.dtype) == (torch.float32, torch.float64)
    assert 0 < narrow.accuracy["log_prob_max_abs_error"] < 1e-3
    assert wide.accuracy["log_prob_max_abs_error"] == 0
    for key, tensor in flow.state_dict().items():
        assert torch.equal(wide.state_dict()[key], tensor)


def test_a_model_is_replaced_in_one_step_and_other_folders_are_left_alone(folder: Path) -> None:
    before = digest(folder)
    other = make_flow(NAME)
    with torch.no_grad():
        next(other.parameters()).mul_(2)
    models.save(other, folder)
    assert digest(folder) != before
    models.load(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    other_folder = folder.parent / "letters"
    other_folder.mkdir()
    (other_folder / "to_keep.txt").write_text("dear")
    with pytest.raises(CheckpointError, match="expected a model folder or none"):
        models.save(other, other_folder)
    assert (other_folder / "to_keep.txt").read_text() == "dear"


def test_a_flow_without_a_family_cannot_be_saved(tmp_path: Path) -> None:
    flow = make_flow(NAME)
    flow.family = ""
    with pytest.raises(ValueError, match=r"made by models\.build"):
        models.save(flow, tmp_path / "model")


def test_a_flow_that_is_not_finite_cannot_be_saved(tmp_path: Path) -> None:
    flow = make_flow(NAME)
    with torch.no_grad():
        next(flow.parameters()).fill_(float("nan"))
    with pytest.raises(CheckpointError, match="expected finite"):
        models.save(flow, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_unknown_families_are_named() -> None:
    with pytest.raises(ValueError, match=r"expected one of .*realnvp"):
        models.build("nothing", {})
    assert "realnvp" in FAMILIES


def test_all_files_are_readable_by_whom_the_umask_allows(folder: Path) -> None:
    """A model made by one user is served by another: containers run as a user of their own."""
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == dict.fromkeys(modes, modes["config.json"])
