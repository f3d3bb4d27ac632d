"""What a continuous flow's error is measured against, and the tolerance that keeps the promise."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import models
from models.checkpoints import golden
from models.checkpoints.promise import LOG_PROB_ERRORS, PROMISE, broken_promise
from models.checkpoints.reference import continuous_parts, reference
from models.checkpoints.tolerance import keep_promise, use_solver
from models.datasets import Dataset
from models.flow import Flow
from models.importers.report import Report
from models.importers.store import save_import
from models.ode.solver import Solution, SolverSettings, solve
from models.training.evaluate import evaluate
from models.training.loop import tighten_solver


def make(nonlinearity: str = "relu", scale: float = 3.0, **changes: Any) -> Flow:
    """A field with large kinks where the nonlinearity has them."""
    torch.manual_seed(0)
    # Loose, so that what is tighter is still fast.
    solver = {"rtol": 1e-5, "atol": 1e-5}
    given = {"event_shape": [2], "hidden_features": [8], "nonlinearity": nonlinearity}
    config = {**given, "solver": solver, **changes}
    flow = models.build("ffjord", config).eval()
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if "linear" in name:
                parameter *= scale
    return flow


def rows(count: int = 8) -> golden.Inputs:
    generator = torch.Generator().manual_seed(1)
    return golden.Inputs(torch.randn(count, 2, generator=generator, dtype=torch.float64))


def error(flow: Flow, x: torch.Tensor, dtype: torch.dtype) -> float:
    """Of log_prob in units of max(1, |log_prob|), against a solve at 1e-9 in float64."""
    served, exact = copy.deepcopy(flow).to(dtype), copy.deepcopy(flow).double()
    for part in continuous_parts(exact):
        part.solver = SolverSettings(1e-9, 1e-9, 10**6)
    with torch.no_grad():
        wanted = exact.log_prob(x)
        off = (served.log_prob(x.to(dtype)).double() - wanted).abs() / wanted.abs().clamp(min=1)
    return float(off.max())


def test_the_reference_sees_what_rounding_does_not() -> None:
    """Float64 at the same tolerance is off by the same as float32."""
    flow, x = make(), rows().x
    true = error(flow, x, torch.float32)
    with torch.no_grad():
        same = (flow.log_prob(x.float()) - copy.deepcopy(flow).double().log_prob(x)).abs().max()
        seen = (flow.log_prob(x.float()) - reference(flow).log_prob(x)).abs().max()
    assert true > PROMISE
    assert same < true / 10
    assert 0.5 * true < seen < 20 * true  # in nats, where |log_prob| may be above 1


def test_kinks_are_solved_tighter_until_the_promise_holds() -> None:
    flow = make()
    kept = keep_promise(flow, rows())
    assert kept.is_kept
    assert kept.is_tightened
    assert kept.error_before == pytest.approx(error(flow, rows().x, torch.float32), rel=0.2)
    assert f"{kept.error_before:.1e}" in kept.describe()
    use_solver(flow, kept.solver)
    assert flow.config["solver"]["rtol"] == kept.solver.rtol
    others = 1.5 * rows(24).x[8:]
    assert error(flow, others, kept.dtype) < PROMISE


def test_smooth_fields_stay_as_they_are() -> None:
    flow = make("tanh")
    kept = keep_promise(flow, rows())
    assert (kept.solver, kept.dtype) == (SolverSettings(1e-5, 1e-5), torch.float32)
    assert kept.describe() == ""


def test_a_promise_that_nothing_keeps_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.checkpoints.tolerance.TIGHTER_TOLERANCES", (9e-6,))
    kept = keep_promise(make(), rows())
    assert not kept.is_kept
    assert kept.solver == SolverSettings(1e-5, 1e-5)
    assert "is promised" in kept.describe()


def test_a_discrete_flow_has_no_tolerance() -> None:
    flow = models.build("nice", {"event_shape": [2]})
    with pytest.raises(ValueError, match="expected a continuous one"):
        keep_promise(flow, rows())


def test_a_folder_of_before_serves_the_same_bits_and_says_its_true_error(tmp_path: Path) -> None:
    flow = make()
    models.save(flow, tmp_path / "model", rows=rows(8))
    path = tmp_path / "model" / "config.json"
    manifest = json.loads(path.read_text())
    for key in LOG_PROB_ERRORS[1:]:
        del manifest["accuracy"][key]
    manifest["accuracy"]["log_prob_max_abs_error"] = 6.6e-7
    path.write_text(json.dumps(manifest))
    loaded = models.load(tmp_path / "model")
    x = rows().x.float()
    with torch.no_grad():
        assert torch.equal(loaded.log_prob(x), flow.log_prob(x))
    true = error(flow, rows(8).x, torch.float32)
    assert loaded.accuracy["log_prob_max_relative_error"] == pytest.approx(true, rel=0.2)
    assert loaded.accuracy["log_prob_max_abs_error"] > PROMISE
    assert "promised" in broken_promise(loaded.accuracy)


def test_a_folder_of_today_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.save(make(), tmp_path / "model", rows=rows(8))
    stored = json.loads((tmp_path / "model" / "config.json").read_text())["accuracy"]
    monkeypatch.setattr("models.checkpoints.loading.log_prob_errors", lambda *_: {})
    accuracy = models.load(tmp_path / "model").accuracy
    assert all(accuracy[key] == stored[key] > 0 for key in LOG_PROB_ERRORS)


def test_an_import_is_written_with_what_the_promise_takes(tmp_path: Path) -> None:
    flow = make(solver={"rtol": 1e-8, "atol": 1e-8}).double()
    flow.provenance = {"likelihood": {"source_number": {"factor": 1.0, "nats": 0.0, "name": ""}}}
    report = Report()
    written = save_import(flow, tmp_path / "model", report)
    assert [(item.kind, item.what) for item in report.items] == [("mended", "solver")]
    loaded = models.load(tmp_path / "model")
    assert loaded.dtype == torch.float64
    assert loaded.config == written.config
    assert loaded.accuracy["log_prob_max_relative_error"] < PROMISE / 5
    assert not broken_promise(loaded.accuracy)
    assert loaded.provenance["findings"] == report.items_as_json()


def test_a_smooth_import_is_solved_as_float32_resolves(tmp_path: Path) -> None:
    flow = make("tanh", solver={"rtol": 1e-8, "atol": 1e-8}).double()
    flow.provenance = {"likelihood": {"source_number": {"factor": 1.0, "nats": 0.0, "name": ""}}}
    loaded = models.load(save_import(flow, tmp_path / "m") and tmp_path / "m")
    assert (loaded.dtype, loaded.config["solver"]["rtol"]) == (torch.float32, 1e-6)


def test_training_ends_with_what_the_promise_takes() -> None:
    flow = make()
    data = Dataset("rows", rows(20).x.numpy())
    note = tighten_solver(flow, data)
    assert "is promised" in note
    assert flow.dtype == torch.float64
    assert flow.config["solver"]["rtol"] < 1e-6
    assert tighten_solver(make("tanh"), data) == ""


def test_figures_are_held_to_the_reference() -> None:
    flow = make()
    data = Dataset("rows", rows().x.float().numpy())
    assert evaluate(flow, data).float32_max_error > PROMISE


def test_a_folder_in_float64_is_solved_once_with_traces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.save(make("tanh", scale=1.0).double(), tmp_path / "model", rows=rows(8))
    stored = json.loads((tmp_path / "model" / "config.json").read_text())["accuracy"]
    widths: list[int] = []

    def counted(field: Any, state: torch.Tensor, *given: Any, **named: Any) -> Solution:
        widths.append(state.shape[1])
        return solve(field, state, *given, **named)

    monkeypatch.setattr("models.ode.transform.solve", counted)
    loaded = models.load(tmp_path / "model")
    # Golden rows with the trace beside x; the inverse and its finiteness without.
    assert sorted(widths) == [2, 2, 2, 3]
    assert loaded.accuracy["round_trip_max_abs_error"] == stored["round_trip_max_abs_error"] > 0


def test_no_tolerance_is_solved_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    solved: list[tuple[torch.dtype, float]] = []

    def counted(field: Any, state: torch.Tensor, *given: Any, **named: Any) -> Solution:
        solved.append((state.dtype, float(f"{named['settings'].rtol:.3g}")))
        return solve(field, state, *given, **named)

    monkeypatch.setattr("models.ode.transform.solve", counted)
    kept = keep_promise(
        make(solver={"rtol": 1e-6, "atol": 1e-6, "max_evaluations": 20_000}), rows()
    )
    assert kept.is_tightened
    assert len(solved) == len(set(solved))
    assert min(rtol for _, rtol in solved) == pytest.approx(kept.solver.rtol / 10)
    assert any(rtol == 1e-8 for _, rtol in solved)
