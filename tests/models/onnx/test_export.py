"""Exported graphs are the flow, certified, standard, and blind to a row's neighbours."""

import copy
import hashlib
import json
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import models
from models.checkpoints.folder import digest
from models.flow import Flow
from models.fold import fold
from models.fold.coupling import HalfCouplings
from models.noise import base_log_prob_torch, base_noise
from models.onnx import validate
from models.onnx.certificate import CertificateError, certify
from models.onnx.export import ExportError, config_digest, export, export_folder
from models.onnx.graph import UnsupportedOperator
from models.onnx.graphs import build_graphs
from models.onnx.names import MAX_OPSET, MIN_OPSET
from models.onnx.runtime import RuntimeMissing, load_runtime, open_session
from models.transforms.affine import Scale
from models.transforms.transform import Transform, counts_evaluations
from tests.cases import DISCRETE, make_flow, make_inputs, perturb
from tests.models.onnx.exported_cases import GROUP, exported

# One process for all: what they share takes longer to make than they take.
pytestmark = pytest.mark.xdist_group(GROUP)

PROMISE = 1e-5
BATCHES = (1, 2, 7, 64, 1000)

Arrays = dict[str, NDArray[Any]]

discrete = pytest.mark.parametrize("name", sorted(DISCRETE))
directions = pytest.mark.parametrize("direction", ["encode", "decode"])


def inputs_of(name: str, direction: str, rows: int) -> Arrays:
    """What a graph of a case takes."""
    flow = make_flow(name)
    given = make_inputs(name, flow, rows)
    z = base_noise(rows, flow.features, seed=4).astype(np.float32)
    found: Arrays = {"x": given.x.float().numpy()} if direction == "encode" else {"z": z}
    if given.context is not None:
        found["context"] = given.context.float().numpy()
    return found


def run(model: onnx.ModelProto, inputs: Arrays) -> list[NDArray[Any]]:
    results: list[NDArray[Any]] = open_session(model.SerializeToString()).run(None, inputs)
    return results


@discrete
def test_every_case_keeps_the_promise(name: str) -> None:
    certificate = exported(name).certificate
    assert certificate.log_prob_relative_max <= PROMISE
    assert certificate.is_batch_invariant
    assert certificate.precision == "float32"


@discrete
@directions
@torch.no_grad()
def test_the_outputs_are_those_of_the_flow(name: str, direction: str) -> None:
    flow, graphs = make_flow(name), exported(name).graphs
    inputs = inputs_of(name, direction, rows=5)
    value, *context = (torch.from_numpy(array).double() for array in inputs.values())
    wanted, log_det = getattr(flow, direction)(value, *context)
    got = run(getattr(graphs, direction), inputs)
    np.testing.assert_allclose(got[0], wanted, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(got[1], log_det, rtol=1e-4, atol=1e-3)
    if direction == "encode":
        np.testing.assert_allclose(
            got[2], base_log_prob_torch(wanted) + log_det, rtol=1e-4, atol=1e-3
        )


@discrete
@directions
def test_a_row_has_the_same_bits_in_every_batch(name: str, direction: str) -> None:
    session = open_session(getattr(exported(name).graphs, direction).SerializeToString())
    inputs = inputs_of(name, direction, rows=max(BATCHES))
    whole = session.run(None, inputs)
    backwards = session.run(None, {key: array[::-1].copy() for key, array in inputs.items()})
    for outputs, same in zip(whole, backwards, strict=True):
        np.testing.assert_array_equal(outputs, same[::-1])
    for size in BATCHES[:-1]:
        for start in (0, 5, 500, max(BATCHES) - size):
            part = slice(start, start + size)
            found = session.run(None, {key: array[part] for key, array in inputs.items()})
            for got, wanted in zip(found, whole, strict=True):
                np.testing.assert_array_equal(got, wanted[part])


@discrete
@directions
def test_graphs_are_standard_and_self_contained(name: str, direction: str) -> None:
    model = getattr(exported(name).graphs, direction)
    onnx.checker.check_model(model, full_check=True)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 20)]
    assert not model.functions
    assert {node.domain for node in model.graph.node} == {""}
    assert {node.op_type for node in model.graph.node} <= validate.OPERATORS
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    flow = make_flow(name)
    first = {"encode": "x", "decode": "z"}[direction]
    sizes = {
        value.name: [one.dim_param or one.dim_value for one in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    data, latent = ["batch", *flow.event_shape], ["batch", flow.features]
    expected = {first: data if direction == "encode" else latent, "log_det": ["batch"]}
    expected |= {"z": latent, "log_prob": ["batch"]} if direction == "encode" else {"x": data}
    if flow.context_shape is not None:
        expected["context"] = ["batch", *flow.context_shape]
    if counts_evaluations(flow):
        expected |= {"status": ["batch"], "evaluations": ["batch"]}
    assert sizes == expected


def test_graphs_say_what_they_are_graphs_of() -> None:
    flow = make_flow("glow_class_conditional_logit")
    made = export(flow, weights_digest="abc")
    for model in (made.graphs.encode, made.graphs.decode):
        facts = {entry.key: entry.value for entry in model.metadata_props}
        assert facts["family"] == "glow"
        assert facts["weights_sha256"] == "abc"
        assert facts["config_sha256"] == config_digest(flow)
        assert json.loads(facts["event_shape"]) == [3, 4, 4]
        assert json.loads(facts["context_shape"]) == [3]
        assert "nats" in facts["units"]
        assert json.loads(facts["certificate"]) == json.loads(
            json.dumps(made.certificate.describe())
        )


def test_the_digest_of_a_config_does_not_depend_on_its_order() -> None:
    flow = make_flow("realnvp")
    turned = copy.copy(flow)
    turned.config = dict(reversed(flow.config.items()))
    assert config_digest(turned) == config_digest(flow)
    turned.config = {**flow.config, "num_layers": 77}
    assert config_digest(turned) != config_digest(flow)


def test_a_model_folder_is_exported_with_its_golden_rows(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    models.save(
        make_flow("realnvp").float(), folder, rows=make_inputs("realnvp", make_flow("realnvp"), 3)
    )
    made = export_folder(folder)
    assert made.certificate.rows["data"]["golden"] == 3
    made.write(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "answers.safetensors",
        "certificate.json",
        "config.json",
        "decode.onnx",
        "encode.onnx",
        "golden.safetensors",
        "model.safetensors",
    ]
    written = onnx.load(folder / "encode.onnx")
    facts = {entry.key: entry.value for entry in written.metadata_props}
    assert facts["weights_sha256"] == digest(folder)
    stated = json.loads((folder / "certificate.json").read_text("utf-8"))
    digests = stated.pop("graphs_sha256")
    model = stated.pop("model")
    assert model["weights_sha256"] == digest(folder)
    assert model["num_parameters"] == sum(one.numel() for one in make_flow("realnvp").parameters())
    assert stated == json.loads(facts["certificate"])
    for name in ("encode.onnx", "decode.onnx"):
        assert digests[name] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert str(tmp_path).encode() not in (folder / "encode.onnx").read_bytes()


def test_an_export_is_made_once() -> None:
    assert exported("realnvp") is exported("realnvp", "fp32")


def test_discrete_flows_have_two_graphs() -> None:
    assert exported("realnvp").graphs.generate is None


def test_a_graph_too_large_for_one_file_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.onnx.export.MAX_GRAPH_BYTES", 1000)
    with pytest.raises(ExportError, match=r"one file can hold 1000"):
        exported("realnvp").write(tmp_path / "model")
    assert list((tmp_path / "model").iterdir()) == []


@pytest.mark.parametrize("opset", [MIN_OPSET, MAX_OPSET])
def test_other_opsets(opset: int) -> None:
    made = export(make_flow("glow"), opset=opset)
    assert made.certificate.opset == opset


@pytest.mark.parametrize("opset", [MIN_OPSET - 1, MAX_OPSET + 1])
def test_opsets_out_of_range_are_refused(opset: int) -> None:
    with pytest.raises(ValueError, match=f"opset: expected {MIN_OPSET} .. {MAX_OPSET}"):
        export(make_flow("realnvp"), opset=opset)


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("fp16", r"fp16 is not offered: .*1e-3"),
        ("int8", r"int8 is not offered: .*slower"),
        ("bf16", r"expected one of fp32, fp64"),
    ],
)
def test_precisions_that_cost_too_much_are_refused(precision: str, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        export(make_flow("realnvp"), precision=precision)


def test_float64() -> None:
    made = export(make_flow("maf"), precision="fp64")
    assert made.certificate.precision == "float64"
    assert made.certificate.log_prob_relative_max <= 1e-12
    assert made.certificate.tolerance.log_prob == 1e-8


def test_flows_too_steep_for_float32_get_float64_networks() -> None:
    certificate = exported("nsf_unconditional_mixing").certificate
    assert (certificate.precision, certificate.networks) == ("float32", "float64")
    assert exported("nsf").certificate.networks == "float32"


@torch.no_grad()
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_wrong_graph_fails_and_names_the_layer(layer: int) -> None:
    flow = make_flow("maf")
    wrong = fold(flow, dtype=torch.float32)
    (chain,) = wrong.chain
    next(chain.transforms[layer].network.parameters()).add_(0.01)
    with pytest.raises(
        CertificateError,
        match=rf"encode: log_prob: off by .* rows, .*drifts: {layer} MaskedAutoregressive; serve",
    ):
        certify(flow, wrong, build_graphs(wrong, torch.float32))


@torch.no_grad()
def test_a_wrong_decode_fails_too() -> None:
    flow = make_flow("realnvp_resnet_context")
    folded = fold(flow, dtype=torch.float32)
    graphs = build_graphs(folded, torch.float32)
    other = fold(perturb(make_flow("realnvp_resnet_context"), 0.01), dtype=torch.float32)
    mixed = replace(graphs, decode=build_graphs(other, torch.float32).decode)
    with pytest.raises(CertificateError, match="decode: log_prob of samples: off by"):
        certify(flow, folded, mixed)


@torch.no_grad()
def test_layers_inside_factored_out_halves_are_named() -> None:
    flow = make_flow("glow")
    wrong = fold(flow, dtype=torch.float32)
    (chain,) = wrong.chain
    couplings = [part for part in chain.transforms[-1].modules() if isinstance(part, HalfCouplings)]
    next(couplings[0].parameters()).add_(0.1)
    with pytest.raises(CertificateError, match=r"drifts: \d+ FactorOut: rest: \d+ Coupling;"):
        certify(flow, wrong, build_graphs(wrong, torch.float32))


class Rolled(Transform):
    """Does what has no form in ONNX here."""

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.roll(1, 1), x.new_zeros(len(x))

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return y.roll(-1, 1), y.new_zeros(len(y))


class Noisy(Rolled):
    """Is not the same twice."""

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x + torch.rand_like(x), x.new_zeros(len(x))


class InPlace(Rolled):
    """Changes its input."""

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (x + 0).mul_(2), x.new_zeros(len(x))


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (Rolled(), r"aten\.roll\.default has no form in ONNX here"),
        (Noisy(), r"aten\.rand_like\.default is random"),
        (InPlace(), r"aten\.mul_\.Tensor changes a tensor in place"),
    ],
    ids=["unknown", "random", "in_place"],
)
def test_what_cannot_be_a_graph_is_named(transform: Transform, message: str) -> None:
    with pytest.raises(UnsupportedOperator, match=message):
        export(Flow([Scale(3), transform], (3,)))


def distribution_in(folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have these distributions installed, in folders of these names."""

    def distribution(name: str) -> Any:
        if name not in folders:
            raise PackageNotFoundError(name)
        return SimpleNamespace(locate_file=lambda _: f"/{folders[name]}")

    monkeypatch.setattr("importlib.metadata.distribution", distribution)


def test_two_onnxruntimes_may_be_installed_in_two_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    distribution_in({"onnxruntime": "one", "onnxruntime-gpu": "two"}, monkeypatch)
    load_runtime.cache_clear()
    assert load_runtime().get_available_providers()


@pytest.mark.parametrize(
    ("installed", "message"),
    [
        ({"onnxruntime", "onnxruntime-gpu"}, r"both installed in /one and overwrite each other"),
        (set(), r"needs the extra cpu or gpu: pip install --editable '\.\[cpu\]"),
    ],
    ids=["both", "neither"],
)
def test_one_onnxruntime_must_be_installed(
    installed: set[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution_in(dict.fromkeys(installed, "one"), monkeypatch)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    load_runtime.cache_clear()
    with pytest.raises(RuntimeMissing, match=message):
        load_runtime()
