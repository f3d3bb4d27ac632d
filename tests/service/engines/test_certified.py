"""A model served by its graphs alone proves itself: any file that is another is noticed."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import models
from models.checkpoints.tensor_file import read_arrays
from models.onnx.export import export_folder
from service.engines.certified import open_certified
from service.engines.selection import EngineUnavailable
from tests.cases import make_flow, make_inputs
from tests.models.onnx.test_validate import change, larger_constant

WEIGHTS = "transforms.0.conditioner.layers.0.weight"
CASES = ("realnvp", "glow_class_conditional_logit", "maf_resnet_added_context", "ffjord")

# One process for all: what they share is made once.
pytestmark = pytest.mark.xdist_group("certified")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certified") / "model"
    models.save(make_flow("realnvp").float(), folder)
    export_folder(folder).write(folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "model")


def edit(path: Path, act: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text("utf-8"))
    act(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def move(path: Path, name: str) -> None:
    """Move the numbers of one tensor of a safetensors file a little."""
    arrays = {key: array.copy() for key, array in load_file(path).items()}
    arrays[name] = (arrays[name] * 1.01).astype(arrays[name].dtype)
    save_file(arrays, path)


@pytest.mark.parametrize("name", CASES)
def test_facts_and_answers_are_those_of_torch(name: str, tmp_path: Path) -> None:
    models.save(
        make_flow(name).float(), tmp_path / "model", rows=make_inputs(name, make_flow(name), 3)
    )
    export_folder(tmp_path / "model").write(tmp_path / "model")
    facts, selection = open_certified(tmp_path / "model", None, 1)
    flow = models.load(tmp_path / "model")
    support = flow.facts.support
    assert facts.family == flow.family
    assert facts.config == flow.config
    assert (facts.event_shape, facts.context_shape) == (flow.event_shape, flow.context_shape)
    assert (facts.num_classes, facts.num_levels) == (flow.facts.num_classes, flow.facts.num_levels)
    assert facts.support == (None if support is None else (support.low, support.high))
    assert facts.discrete == flow.facts.discrete
    assert facts.num_parameters == sum(one.numel() for one in flow.parameters())
    assert facts.accuracy.keys() == flow.accuracy.keys()
    assert selection.is_batch_invariant
    record, _ = read_arrays(tmp_path / "model" / "golden.safetensors")
    context = record.get("context")
    given = None if context is None else context.astype(np.float32)
    z, *_ = selection.engine.encode(record["x"].astype(np.float32), given)
    np.testing.assert_allclose(z, record["z"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: move(f / "model.safetensors", WEIGHTS), "model.safetensors"),
        (lambda f: move(f / "golden.safetensors", "log_prob"), "golden.safetensors"),
        (lambda f: move(f / "answers.safetensors", "log_prob"), "answers.safetensors"),
        (lambda f: change(f, larger_constant), "encode.onnx"),
        (lambda f: change(f, larger_constant, "decode.onnx"), "decode.onnx"),
        (
            lambda f: edit(f / "config.json", lambda c: c["config"].update(num_layers=77)),
            "config.json",
        ),
        (lambda f: edit(f / "config.json", lambda c: c.update(dtype="float64")), "config.json"),
        (lambda f: (f / "answers.safetensors").unlink(), "answers.safetensors"),
        (lambda f: (f / "decode.onnx").unlink(), "decode.onnx"),
        (lambda f: (f / "golden.safetensors").write_bytes(b"x"), "golden.safetensors"),
        (
            lambda f: edit(f / "certificate.json", lambda c: c.pop("model")),
            "run pushforward export --in-place",
        ),
        (
            lambda f: edit(f / "certificate.json", lambda c: c["model"].pop("support")),
            "model.support: Field required",
        ),
        (
            lambda f: edit(f / "certificate.json", lambda c: c["model"].update(num_levels=-3)),
            "model.num_levels",
        ),
        (lambda f: (f / "certificate.json").write_text("["), "cannot be read as a certificate"),
    ],
    # A function has no name that is the same in every process.
    ids=lambda value: value if isinstance(value, str) else "spoiled",
)
def test_a_folder_that_has_changed_is_not_served_by_its_graphs(
    spoil: Callable[[Path], object], message: str, folder: Path
) -> None:
    open_certified(folder, None, 1)
    spoil(folder)
    with pytest.raises(EngineUnavailable, match=message):
        open_certified(folder, None, 1)


def test_what_is_told_of_the_data_may_be_edited(folder: Path) -> None:
    edit(folder / "config.json", lambda c: c["provenance"].update(note="ours"))
    facts, _ = open_certified(folder, None, 1)
    assert facts.provenance["note"] == "ours"


def test_another_dtype_is_for_torch(folder: Path) -> None:
    assert open_certified(folder, "float32", 1)[1].engine.dtype == "float32"
    with pytest.raises(EngineUnavailable, match=r"graphs are in float32 .* served in float64"):
        open_certified(folder, "float64", 1)


@pytest.mark.parametrize("name", ["encode.onnx", "decode.onnx"])
def test_graphs_that_are_wrong_under_a_right_digest_are_seen(name: str, folder: Path) -> None:
    """Whoever writes the graphs writes the certificate too; the golden rows are still replayed."""
    change(folder, larger_constant, name)
    edit(folder / "certificate.json", lambda c: c["graphs_sha256"].update(digests(folder)))
    with pytest.raises(EngineUnavailable, match="do not reproduce the golden rows"):
        open_certified(folder, None, 1)


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.onnx")
    }


def test_a_config_with_its_defaults_left_out_is_served_too(tmp_path: Path) -> None:
    """As folders of an earlier version are: later arguments of the family are not in them."""
    folder = tmp_path / "model"
    models.save(make_flow("realnvp").float(), folder)
    edit(folder / "config.json", lambda c: c["config"].pop("context_features"))
    export_folder(folder).write(folder)
    facts, _ = open_certified(folder, None, 1)
    assert facts.config == models.load(folder).config
