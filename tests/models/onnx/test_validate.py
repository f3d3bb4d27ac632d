"""Graphs that come with a model are checked before anything runs them, and touch no other file."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import models
from models.checkpoints.folder import digest
from models.flow import Flow
from models.onnx.export import export, export_folder
from models.onnx.load import has_export, read_export
from models.onnx.validate import OPERATORS, GraphRefused
from tests.cases import make_flow, make_inputs

Change = Callable[[onnx.ModelProto], object]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with its graphs."""
    folder = tmp_path_factory.mktemp("gate") / "model"
    models.save(make_flow("realnvp").float(), folder)
    export_folder(folder).write(folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "model")


def read(folder: Path) -> Any:
    return read_export(folder, models.load(folder), digest(folder))


def change(folder: Path, act: Change, name: str = "encode.onnx") -> None:
    model = onnx.load(folder / name, load_external_data=False)
    act(model)
    (folder / name).write_bytes(model.SerializeToString())


def larger_constant(model: onnx.ModelProto) -> None:
    """Multiply the constant with the most numbers by 1.05."""
    constants = [one for one in model.graph.initializer if one.data_type == TensorProto.FLOAT]
    largest = max(constants, key=lambda one: len(one.raw_data))
    values = numpy_helper.to_array(largest) * np.float32(1.05)
    largest.CopyFrom(numpy_helper.from_array(values, largest.name))


def test_what_was_exported_is_taken(folder: Path) -> None:
    assert has_export(folder)
    found = read(folder)
    assert found.encode == (folder / "encode.onnx").read_bytes()
    assert found.decode == (folder / "decode.onnx").read_bytes()
    assert found.certificate["precision"] == "float32"


def test_a_folder_without_graphs_has_none(original: Path, tmp_path: Path) -> None:
    assert not has_export(tmp_path)


@pytest.mark.parametrize("name", ["glow_class_conditional_logit", "maf_resnet_added_context"])
def test_conditional_flows_are_taken_too(name: str, tmp_path: Path) -> None:
    models.save(
        make_flow(name).float(), tmp_path / "model", rows=make_inputs(name, make_flow(name))
    )
    export_folder(tmp_path / "model").write(tmp_path / "model")
    assert read(tmp_path / "model").certificate["log_prob_relative_max"] <= 1e-5


def external(location: str) -> Change:
    def act(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    return act


def with_node(operator: str, domain: str = "", **attributes: Any) -> Change:
    def act(model: onnx.ModelProto) -> None:
        model.graph.node.append(
            helper.make_node(operator, ["x"], ["q"], domain=domain, **attributes)
        )

    return act


def body(nodes: list[onnx.NodeProto]) -> onnx.GraphProto:
    flag = helper.make_tensor_value_info("go", TensorProto.BOOL, [])
    return helper.make_graph(
        nodes, "body", [helper.make_tensor_value_info("i", TensorProto.INT64, []), flag], [flag]
    )


def endless(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Loop", ["x", ""], [], body=body([])))


def nested(depth: int, trips: int) -> Change:
    def act(model: onnx.ModelProto) -> None:
        graph = body([])
        for _ in range(depth - 1):
            limit = numpy_helper.from_array(np.array(trips), "inner")
            outer = body([helper.make_node("Loop", ["inner", ""], [], body=graph)])
            outer.initializer.append(limit)
            graph = outer
        model.graph.initializer.append(numpy_helper.from_array(np.array(trips), "trips"))
        model.graph.node.append(helper.make_node("Loop", ["trips", ""], [], body=graph))

    return act


def absurd(dims: list[int]) -> Change:
    def act(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].ClearField("dims")
        model.graph.initializer[0].dims.extend(dims)

    return act


def huge_expansion(model: onnx.ModelProto) -> None:
    shape = numpy_helper.from_array(np.array([2**20, 2**20]), "huge")
    model.graph.initializer.append(shape)
    model.graph.node.append(helper.make_node("Expand", ["x", "huge"], ["q"]))


def constant_node(model: onnx.ModelProto) -> None:
    value = numpy_helper.from_array(np.zeros(2, np.float32))
    model.graph.node.append(helper.make_node("Identity", ["x"], ["q"], value=value))


def string_constant(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(helper.make_tensor("s", TensorProto.STRING, [1], [b"x"]))


def other_opset(domain: str, version: int) -> Change:
    def act(model: onnx.ModelProto) -> None:
        model.opset_import.append(helper.make_opsetid(domain, version))

    return act


def old_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 9


def function(model: onnx.ModelProto) -> None:
    model.functions.append(helper.make_function("", "F", ["a"], ["b"], [], []))


def fixed_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def extra_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(model.graph.output[0])
    model.graph.output[-1].name = "more"
    model.graph.node.append(helper.make_node("Identity", ["x"], ["more"]))


def dangling(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Add", ["x", "nowhere"], ["q"]))


def sparse_constant(model: onnx.ModelProto) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "sparse")
    place = numpy_helper.from_array(np.zeros(1, np.int64), "place")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, place, [4]))


def quantized(model: onnx.ModelProto) -> None:
    note = model.graph.quantization_annotation.add(tensor_name="x")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="x")


HOSTILE: dict[str, tuple[Change, str]] = {
    "external_above": (external("../config.json"), "its data are in another file"),
    "external_absolute": (external("/etc/passwd"), "its data are in another file"),
    "external_link": (external("link"), "its data are in another file"),
    "external_memory": (external("*/_ORT_MEM_ADDR_/*"), "its data are in another file"),
    "custom_operator": (with_node("Evil", "com.evil"), "operator com.evil::Evil"),
    "contrib_operator": (with_node("Gelu", "com.microsoft"), "operator com.microsoft::Gelu"),
    "unknown_operator": (with_node("Evil"), "operator Evil"),
    "random": (with_node("RandomNormalLike"), "operator RandomNormalLike"),
    "if": (with_node("If", then_branch=body([])), "operator If"),
    "endless_loop": (endless, r"Loop: expected at most \d+ trips, got no limit"),
    "deep_loops": (nested(3, 1), "loops: expected at most 2 inside each other"),
    "endless_loops": (nested(2, 2**16), r"Loop: expected at most \d+ trips, got \[4294967296\]"),
    "absurd_shape": (absurd([2**31, 2**31]), "bytes cannot have shape"),
    "negative_shape": (absurd([-1]), "bytes cannot have shape"),
    "huge_expansion": (huge_expansion, r"\[1048576, 1048576\] is too large for a shape"),
    "tensor_attribute": (constant_node, "attribute 'value' holds a tensor"),
    "sparse_constant": (sparse_constant, "constants: expected plain ones"),
    "quantized": (quantized, "constants: expected plain ones"),
    "strings": (string_constant, "expected numbers, got type 8"),
    "other_domain": (other_opset("com.evil", 1), "opset: expected one of"),
    "old_opset": (old_opset, "opset: expected one of"),
    "function": (function, "functions: expected none"),
    "fixed_batch": (fixed_batch, "inputs: expected"),
    "extra_output": (extra_output, "outputs: expected"),
    "dangling": (dangling, "not well-formed"),
}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The paths that are opened, as the interpreter's audit sees them."""
    seen: list[str] = []
    active = [True]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if active[0] and event == "open" and isinstance(arguments[0], str):
            seen.append(arguments[0])

    sys.addaudithook(hook)
    yield seen
    active[0] = False


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_graphs_are_refused_with_the_reason(
    name: str, folder: Path, opened: list[str]
) -> None:
    act, message = HOSTILE[name]
    (folder / "link").symlink_to("/etc/passwd")
    change(folder, act)
    flow, weights = models.load(folder), digest(folder)
    opened.clear()
    with pytest.raises(GraphRefused, match=rf"encode\.onnx: .*{message}"):
        read_export(folder, flow, weights)
    assert opened == [str(folder / "encode.onnx")]


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, -1])
def test_truncated_files_are_refused(kept: float, folder: Path) -> None:
    content = (folder / "decode.onnx").read_bytes()
    size = int(len(content) * kept) if isinstance(kept, float) else kept
    (folder / "decode.onnx").write_bytes(content[:size])
    with pytest.raises(GraphRefused, match=r"decode\.onnx: "):
        read(folder)


@pytest.mark.parametrize("content", [b"not a graph", b"\x80\x04K\x01.", b"\xff" * 1000])
def test_other_files_are_refused(content: bytes, folder: Path) -> None:
    (folder / "encode.onnx").write_bytes(content)
    with pytest.raises(GraphRefused, match=r"encode\.onnx: "):
        read(folder)


def test_files_that_are_too_large_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.onnx.validate.MAX_FILE_BYTES", 100)
    with pytest.raises(GraphRefused, match="expected at most 100 bytes"):
        read(folder)


def test_a_graph_far_larger_than_the_weights_is_refused_before_it_is_read(
    folder: Path, opened: list[str]
) -> None:
    flow, weights = models.load(folder), digest(folder)
    with (folder / "encode.onnx").open("r+b") as file:
        file.truncate(2**31 - 1)
    opened.clear()
    with pytest.raises(
        GraphRefused, match=r"encode\.onnx: cannot be read: expected at most \d{8} "
    ):
        read_export(folder, flow, weights)
    assert opened == []


@pytest.mark.parametrize("name", ["encode.onnx", "certificate.json"])
def test_a_pipe_is_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(GraphRefused, match="expected a file, got"):
        read(folder)


@pytest.mark.parametrize("name", ["encode.onnx", "decode.onnx"])
def test_a_graph_that_is_not_what_was_certified_is_refused(folder: Path, name: str) -> None:
    change(folder, larger_constant, name)
    with pytest.raises(GraphRefused, match=rf"{name}: its SHA-256 is not that in certificate"):
        read(folder)
    # Folders of before have no digests: there the golden rows on the engine are the proof.
    certificate = json.loads((folder / "certificate.json").read_text())
    assert set(certificate.pop("graphs_sha256")) == {"encode.onnx", "decode.onnx"}
    (folder / "certificate.json").write_text(json.dumps(certificate))
    assert "graphs_sha256" not in read(folder).certificate
    (folder / "certificate.json").unlink()
    read(folder)


def test_a_certificate_that_is_none_is_refused(folder: Path) -> None:
    for text in ("{", "[]", '{"graphs_sha256": 3}'):
        (folder / "certificate.json").write_text(text)
        with pytest.raises(GraphRefused, match=r"certificate\.json: "):
            read(folder)


def test_a_missing_graph_is_named(folder: Path) -> None:
    (folder / "decode.onnx").unlink()
    assert has_export(folder)
    with pytest.raises(GraphRefused, match=r"decode\.onnx: cannot be read"):
        read(folder)


def test_graphs_of_other_weights_are_stale(folder: Path) -> None:
    flow: Flow = models.load(folder)
    with torch.no_grad():
        next(flow.parameters()).add_(0.1)
    models.save(flow, folder.with_name("other"))
    for name in ("model.safetensors", "golden.safetensors"):
        shutil.copy(folder.with_name("other") / name, folder / name)
    with pytest.raises(GraphRefused, match=r"weights_sha256: expected .* other weights: export it"):
        read(folder)


def test_graphs_of_another_model_are_refused(folder: Path) -> None:
    export(make_flow("maf"), weights_digest=digest(folder)).write(folder)
    with pytest.raises(GraphRefused, match=r"family: expected realnvp, got maf"):
        read(folder)


def test_graphs_of_another_config_are_refused(folder: Path) -> None:
    flow = make_flow("realnvp_soft_clamp")
    models.save(flow, folder.with_name("other"))
    made = export(flow, weights_digest=digest(folder))
    made.write(folder)
    with pytest.raises(GraphRefused, match=r"(config_sha256|inputs): expected"):
        read(folder)


def test_graphs_of_two_exports_are_refused(folder: Path) -> None:
    def retold(model: onnx.ModelProto) -> None:
        (entry,) = (one for one in model.metadata_props if one.key == "certificate")
        entry.value = entry.value.replace("{", "{ ", 1)

    change(folder, retold)
    with pytest.raises(GraphRefused, match="are of two exports"):
        read(folder)


def test_the_list_of_operators_has_no_more_than_it_must() -> None:
    assert not OPERATORS & {"If", "Scan", "ConstantOfShape", "Tile", "Range", "Resize", "Constant"}
