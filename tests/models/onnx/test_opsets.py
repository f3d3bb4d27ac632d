"""Graphs of newer opsets are said in older ones with the nodes that they have."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from models.checkpoints.folder import digest, load_checkpoint
from models.onnx.load import read_export
from models.onnx.names import DEFAULT_OPSET, MAX_OPSET, MIN_OPSET
from models.onnx.opsets import in_opset
from models.onnx.validate import OPERATORS

ZOO = Path(__file__).resolve().parents[3] / "models" / "zoo"


@pytest.mark.parametrize("name", ["digits-nice", "magic", "moons"])
def test_graphs_of_before_are_of_their_flows_still(name: str) -> None:
    """An argument that a family has come to take does not make them those of another model."""
    flow = load_checkpoint(ZOO / name).flow
    assert read_export(ZOO / name, flow, digest(ZOO / name)).certificate["opset"] == DEFAULT_OPSET


def reduce_max(kind: int, opset: int) -> onnx.ModelProto:
    given = helper.make_tensor_value_info("x", kind, ["n"])
    found = helper.make_tensor_value_info("y", kind, [])
    graph = helper.make_graph(
        [helper.make_node("ReduceMax", ["x"], ["y"], keepdims=0)], "g", [given], [found]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_operators_have_only_come_to_take_more_types(name: str) -> None:
    forms = [
        onnx.defs.get_schema(name, max_inclusive_version=version)
        for version in (MIN_OPSET, MAX_OPSET)
    ]
    old, new = (
        (
            {key: (one.type, one.required) for key, one in form.attributes.items()},
            [(one.name, one.option) for one in form.inputs],
            [(one.name, one.option) for one in form.outputs],
        )
        for form in forms
    )
    # A cast to eight bits may round up (23); no graph of ours has such numbers.
    new[0].pop("round_mode", None)
    assert old == ({key: new[0][key] for key in old[0]}, *new[1:])
    assert set(new[0]) - set(old[0]) <= {"saturate"}


@pytest.mark.parametrize(("opset", "expected"), [(23, 19), (20, 19), (19, 19), (18, 18)])
def test_a_newer_opset_is_lowered_and_nothing_else(opset: int, expected: int) -> None:
    model = reduce_max(TensorProto.INT64, opset)
    lowered = in_opset(model, 19)
    assert lowered.opset_import[0].version == expected
    assert model.opset_import[0].version == opset
    assert lowered.graph == model.graph


def test_what_the_older_opset_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"operators of opset 19.*export .* --opset 19"):
        in_opset(reduce_max(TensorProto.BOOL, DEFAULT_OPSET), 19)
