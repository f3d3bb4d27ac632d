"""Continuous flows as graphs: the whole adaptive solve, every row its own, in onnxruntime."""

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from models.flow import Flow
from models.fold import fold
from models.fold.continuous import FoldedContinuous
from models.ode.call import SolveCall, SolveStatus, join_reports
from models.ode.solver import SolverSettings
from models.ode.transform import ContinuousTransform
from models.onnx.certificate import CertificateError, certify
from models.onnx.export import Export, ExportError, export
from models.onnx.graphs import build_graphs
from models.onnx.runtime import open_session
from models.registry import build
from tests.cases import CASES, make_flow, make_inputs

# One process for all: what they share takes longer to make than they take.
pytestmark = pytest.mark.xdist_group("graphs_with_loops")

PROMISE = 1e-4
NEIGHBOURS = 2e-5
DENSE = (
    "ffjord",
    "ffjord_flow_matching_classes",
    "ffjord_fourier_context",
    "ffjord_squash",
    "ffjord_stack",
)
UNET = "cnf_unet"
OTHERS = sorted(
    name for name, case in CASES.items() if case.continuous and name not in (*DENSE, UNET)
)

Arrays = dict[str, NDArray[Any]]


@cache
def exported(name: str) -> Export:
    return export(make_flow(name), random_rows=16)


def run(session: Any, **given: NDArray[Any]) -> Arrays:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, given), strict=True))


@pytest.mark.parametrize("name", DENSE)
def test_every_dense_case_is_certified(name: str) -> None:
    certificate = exported(name).certificate
    assert certificate.log_prob_relative_max <= PROMISE
    assert certificate.tolerance.log_prob == PROMISE
    assert certificate.is_batch_invariant


@pytest.mark.parametrize("name", DENSE)
def test_the_steps_are_those_of_torch(name: str) -> None:
    flow = make_flow(name).float()
    inputs = make_inputs(name, flow, 5)
    given: Arrays = {"x": inputs.x.float().numpy()}
    if inputs.context is not None:
        given["context"] = inputs.context.float().numpy()
    got = run(open_session(exported(name).graphs.encode.SerializeToString()), **given)
    call = SolveCall()
    with torch.no_grad():
        flow.encode(*map(torch.from_numpy, given.values()), call=call)
    report = join_reports(call.reports)
    assert report is not None
    assert got["status"].tolist() == report.status.tolist() == [SolveStatus.SOLVED] * 5
    # An error estimate on the edge of a decision may fall on the other side.
    np.testing.assert_allclose(got["evaluations"], report.evaluations, rtol=0.2)


@pytest.mark.parametrize("name", DENSE)
def test_values_alone_are_those_of_decode(name: str) -> None:
    made = exported(name)
    z = np.random.default_rng(3).normal(size=(9, make_flow(name).features)).astype(np.float32)
    given: Arrays = {"z": z}
    context = make_inputs(name, make_flow(name), 9).context
    if context is not None:
        given["context"] = context.float().numpy()
    assert made.graphs.generate is not None
    decoded = run(open_session(made.graphs.decode.SerializeToString()), **given)
    generated = run(open_session(made.graphs.generate.SerializeToString()), **given)
    assert generated.keys() == {"x", "status", "evaluations"}
    np.testing.assert_allclose(generated["x"], decoded["x"], rtol=1e-4, atol=1e-4)
    assert (generated["evaluations"] <= decoded["evaluations"]).all()
    assert made.certificate.generated is not None


def test_a_wrong_third_graph_is_found() -> None:
    flow = make_flow("ffjord").double()
    folded = fold(flow, dtype=torch.float32)
    graphs = build_graphs(folded, torch.float32)
    assert graphs.generate is not None
    wrong = onnx.ModelProto.FromString(graphs.generate.SerializeToString())
    (output,) = (node for node in wrong.graph.node if "x" in node.output)
    doubled = onnx.helper.make_node("Add", [output.input[0]] * 2, ["x"])
    output.CopyFrom(doubled)
    with pytest.raises(CertificateError, match="generate: x: off by"):
        certify(flow, folded, replace(graphs, generate=wrong), random_rows=4)


@pytest.mark.parametrize("name", OTHERS)
def test_other_fields_are_refused(name: str) -> None:
    with pytest.raises(ExportError, match="serve it with torch"):
        export(make_flow(name))


@torch.no_grad()
def test_a_unet_is_the_flow_alone_and_among_others() -> None:
    flow = make_flow(UNET).float()
    graphs = build_graphs(fold(flow), torch.float32)
    assert graphs.generate is not None
    inputs = make_inputs(UNET, flow, 7)
    assert inputs.context is not None
    x, context = inputs.x.float(), inputs.context.float()
    given: Arrays = {"x": x.numpy(), "context": context.numpy()}
    session = open_session(graphs.encode.SerializeToString())
    together = run(session, **given)
    np.testing.assert_allclose(together["log_prob"], flow.log_prob(x, context), atol=PROMISE)
    assert together["status"].tolist() == [SolveStatus.SOLVED] * 7
    for row in range(7):
        alone = run(session, **{name: values[row : row + 1] for name, values in given.items()})
        assert all(np.array_equal(alone[name][0], together[name][row]) for name in together)


def test_an_estimate_and_fixed_steps_are_refused_of_a_unet() -> None:
    config = {**CASES[UNET].config, "divergence": {"evaluation": "hutchinson"}}
    with pytest.raises(ExportError, match="Hutchinson's estimate, whose standard error"):
        export(build(UNET, config))
    with pytest.raises(ExportError, match="fixed_steps: expected a dense field, got a U-Net"):
        export(make_flow(UNET), fixed_steps=8)


@cache
def hard() -> Flow:
    """Six features, three hidden layers, weights three times as large as they start."""
    torch.manual_seed(0)
    flow = build("ffjord", {"event_shape": [6], "batch_norm": True}).eval()
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if "linear" in name:
                parameter *= 3
    return flow


@cache
def hard_graph() -> Any:
    return open_session(export(hard(), random_rows=16).graphs.encode.SerializeToString())


def hard_rows() -> NDArray[np.float32]:
    """Easy rows, and every twentieth far out, where the field is hard."""
    x = np.random.default_rng(0).normal(size=(1000, 6)).astype(np.float32)
    x[::20] *= 4
    return x


@pytest.fixture(scope="module")
def together() -> Arrays:
    return run(hard_graph(), x=hard_rows())


@torch.no_grad()
def test_hard_rows_are_within_the_promise(together: Arrays) -> None:
    rows = hard_rows()[:64]
    exact = copy.deepcopy(hard()).double()
    for part in exact.modules():
        if isinstance(part, ContinuousTransform):
            part.solver = SolverSettings(1e-10, 1e-10)
    wanted = exact.log_prob(torch.from_numpy(rows).double()).numpy()
    assert np.abs(together["log_prob"][:64] - wanted).max() < PROMISE
    assert len(set(together["evaluations"].tolist())) > 3


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_a_row_does_not_depend_on_its_neighbours(together: Arrays, size: int) -> None:
    x = hard_rows()
    for start in (0, 20, 500):
        part = slice(start, start + size)
        alone = run(hard_graph(), x=x[part])
        for name, values in alone.items():
            np.testing.assert_array_equal(values, together[name][part], err_msg=name)


def test_a_thousand_calls_give_one_answer() -> None:
    x = hard_rows()[:1]
    first = run(hard_graph(), x=x)["log_prob"]
    assert all(run(hard_graph(), x=x)["log_prob"] == first for _ in range(1000))


@pytest.mark.parametrize("scale", [10, 100])
def test_stiff_fields_give_statuses(scale: float) -> None:
    torch.manual_seed(0)
    config = {"event_shape": [2], "hidden_features": [16, 16], "nonlinearity": "softplus"}
    flow = build("ffjord", config | {"solver": {"max_evaluations": 600}}).eval()
    session = open_session(fold_and_trace(flow, scale))
    x = np.array([[0.1, 0.2], [1e30, -1e30], [3.0, 1.0], [np.nan, 0]], np.float32)
    got = run(session, x=x)
    failed = got["status"] != SolveStatus.SOLVED
    assert failed[3]
    assert (got["evaluations"] <= 600).all()
    np.testing.assert_array_equal(np.isnan(got["z"]).any(1), failed)
    np.testing.assert_array_equal(np.isnan(got["log_det"]), failed)
    alone = run(session, x=x[[0]])
    for name, values in alone.items():
        np.testing.assert_array_equal(values, got[name][[0]], err_msg=name)


def fold_and_trace(flow: Flow, scale: float) -> bytes:
    """A graph without certificate: there is no exact integral to hold it to."""
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if "linear" in name:
                parameter *= scale
    return bytes(build_graphs(fold(flow), torch.float32).encode.SerializeToString())


def operators(graph: onnx.GraphProto) -> set[str]:
    return {node.op_type for node in graph.node}


def test_steps_can_be_fixed_for_runtimes_without_loops() -> None:
    name = "ffjord_fourier_context"
    made = export(make_flow(name), random_rows=16, fixed_steps=8)
    assert all("Loop" not in operators(model.graph) for model in made.graphs.all)
    assert made.certificate.log_prob_relative_max <= PROMISE
    assert made.certificate.is_batch_invariant
    flow = make_flow(name).float()
    inputs = make_inputs(name, flow, 5)
    assert inputs.context is not None
    given = {"x": inputs.x.float().numpy(), "context": inputs.context.float().numpy()}
    fixed, free = (
        run(open_session(one.graphs.encode.SerializeToString()), **given)
        for one in (made, exported(name))
    )
    np.testing.assert_allclose(fixed["log_prob"], free["log_prob"], atol=PROMISE)
    assert fixed["evaluations"].tolist() == [1 + 6 * 8] * 5


@cache
def steep() -> Flow:
    torch.manual_seed(0)
    flow = build("ffjord", {"event_shape": [2], "hidden_features": [16, 16]}).eval()
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if "linear" in name:
                parameter *= 4
    return flow.double()


@torch.no_grad()
def test_rows_too_hard_for_fixed_steps_are_told() -> None:
    folded = fold(steep(), dtype=torch.float32)
    for part in folded.modules():
        if isinstance(part, FoldedContinuous):
            part.fixed_steps = 6
    session = open_session(build_graphs(folded, torch.float32).encode.SerializeToString())
    x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    x[7] = np.nan
    got = run(session, x=x)
    solved = got["status"] == SolveStatus.SOLVED
    assert got["status"][7] == SolveStatus.NON_FINITE
    assert set(np.delete(got["status"], 7).tolist()) == {0, SolveStatus.BUDGET_SPENT}
    np.testing.assert_array_equal(np.isnan(got["log_prob"]), ~solved)
    wanted = steep().log_prob(torch.from_numpy(x[solved]).double())
    np.testing.assert_allclose(got["log_prob"][solved], wanted, atol=PROMISE)
    alone = run(session, x=x[solved])
    np.testing.assert_array_equal(alone["log_prob"], got["log_prob"][solved])


@pytest.mark.parametrize(
    ("name", "steps", "message"),
    [
        ("ffjord", 0, r"fixed_steps: expected 1 \.\. 64, got 0"),
        ("realnvp", 8, "only continuous flows take steps"),
    ],
)
def test_fixed_steps_are_checked(name: str, steps: int, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        export(make_flow(name), fixed_steps=steps)


def test_too_few_steps_are_refused_with_advice() -> None:
    with pytest.raises(CertificateError, match="or take more than 2 steps"):
        export(steep(), random_rows=4, fixed_steps=2)


def test_solves_are_recorded_in_float64_too() -> None:
    made = export(steep(), precision="fp64", random_rows=4)
    assert (made.certificate.precision, made.certificate.networks) == ("float64", "float64")
