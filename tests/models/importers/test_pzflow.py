"""pzflow: its pickles are read without running anything, and what they hold beside numbers."""

import pickle
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.datasets.schema import feature_names
from models.importers.pytrees import is_flow
from models.importers.report import ImportRefused
from models.importers.run import Request, run
from tests.models.importers.golden import load

COUPLING = ("NeuralSplineCoupling", (2, 3.0, 0, 4, None, 0, False))


def tree(*bijectors: Any, latent: Any = ("Normal", (2,)), **more: Any) -> dict[str, Any]:
    """The state of a flow over two columns, as pzflow 3.0 pickles it."""
    numbers = np.random.default_rng(0)
    network = [(numbers.normal(size=(1, 5)), numbers.normal(size=5))]
    params = [network if name == COUPLING[0] else () for name, _ in bijectors]
    return {
        "class": "Flow",
        "data_columns": ("redshift", "u"),
        "conditional_columns": None,
        "data_error_model": None,
        "condition_error_model": None,
        "info": None,
        "bijector_info": ("Chain", tuple(bijectors)),
        "latent_info": latent,
        "params": ((), params),
        **more,
    }


def save(folder: Path, content: Any) -> Path:
    path = folder / "flow.pzflow.pkl"
    path.write_bytes(pickle.dumps(content))
    return path


class Harmful:
    """Creates a file when it is unpickled by Python."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_columns_are_the_names_of_features_and_of_the_context() -> None:
    case = load("pzflow_conditional")
    assert feature_names(case.flow().provenance) == ("a", "b", "c", "d")
    assert ("context", "the columns p, q, in this order") in [
        (item.what, item.detail) for item in case.report().items
    ]


def test_functions_by_name_and_objects_are_set_aside(tmp_path: Path) -> None:
    """An error model of the user's, and a note whose pickle runs code: neither does here."""
    target = tmp_path / "ran"
    content = tree(COUPLING, data_error_model=shlex.quote, info=Harmful(target))
    flow, report = run(save(tmp_path, content), Request())
    plain, _ = run(save(tmp_path, tree(COUPLING)), Request())
    x = torch.randn(4, 2).double()
    assert torch.equal(flow.log_prob(x), plain.log_prob(x))
    assert not target.exists()
    aside = {item.what: item.detail for item in report.items if item.kind == "ignored"}
    assert "shlex.quote: draws errors" in aside["data_error_model"]
    assert "no part of the density" in aside["info"]


def test_functions_in_other_pickles_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, {"weight": np.zeros(3), "model": shlex.quote})
    with pytest.raises(ImportRefused, match=r"asks for shlex\.quote, which is code"):
        run(path, Request())


def test_of_an_ensemble_one_flow_is_imported(tmp_path: Path) -> None:
    flows = {"Flow 0": tree(COUPLING), "Flow 1": tree(("Reverse", ()), COUPLING)}
    path = save(tmp_path, {"class": "FlowEnsemble", "ensemble": flows})
    with pytest.raises(ImportRefused, match=r"2 flows \(Flow 0, Flow 1\).*--prefix 'Flow 0'"):
        run(path, Request())
    found, _ = run(path, Request(prefix="Flow 1"))
    alone, _ = run(save(tmp_path, flows["Flow 1"]), Request())
    x = torch.randn(4, 2).double()
    assert torch.equal(found.log_prob(x), alone.log_prob(x))


@pytest.mark.parametrize("ensemble", [5, {"a": 1}, {("a",): {"params": ()}}])
def test_an_ensemble_of_something_else_is_no_flow(ensemble: Any) -> None:
    assert not is_flow({"state_dict": {}, "ensemble": ensemble})
    assert is_flow({"ensemble": {"Flow 0": tree(COUPLING)}})


@pytest.mark.parametrize("part", ["params", "bijector_info", "condition_means"])
def test_trees_that_unfold_without_an_end_are_refused(tmp_path: Path, part: str) -> None:
    doubled: Any = (1,)
    for _ in range(50):
        doubled = (doubled, doubled)
    with pytest.raises(ImportRefused, match=f"{part}: expected at most 100000 parts, got more"):
        run(save(tmp_path, tree(COUPLING, **{part: doubled})), Request())


def test_rows_outside_the_base_have_no_density(tmp_path: Path) -> None:
    bounds = ("ShiftBounds", (np.float32([-1, -2]), np.float32([1, 2]), 4.0))
    content = tree(bounds, COUPLING, latent=("Uniform", (2, 5)))
    flow, _ = run(save(tmp_path, content), Request())
    outside, inside = flow.log_prob(torch.tensor([[0.0, 2.6], [0.0, 2.4]]).double())
    assert outside == -torch.inf
    assert inside.isfinite()


PERIODIC = (COUPLING[0], (1, 3.0, 0, 4, None, 0, True))
CONDITIONED = (COUPLING[0], (2, 3.0, 0, 4, None, 2, False))
COLOURS = ("ColorTransform", (0, [0, 1]))
SCALER = ("StandardScaler", (np.zeros(2), np.ones(2)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tree(("Shuffle", ()), COUPLING), r"params\.1\.0: Shuffle draws its permutation"),
        (tree(PERIODIC), "2 bins or more of a periodic spline"),
        (tree(CONDITIONED), "n_conditions: expected at most 0"),
        (tree(("Mine", (1,)), COUPLING), "Mine is not a bijector"),
        (tree(COUPLING, ("UniformDequantizer", ([0],))), "expected it first"),
        (tree(COUPLING, ("InvSoftplus", (1, 1.0))), "InvSoftplus behind bijectors that change"),
        (tree(COUPLING, ("InvSoftplus", (0, 1.0))), "or depend on them"),
        (tree(COLOURS, ("InvSoftplus", (0, 1.0)), COUPLING), "or depend on them"),
        (tree(("StandardScaler", (0.0, [1.0, 0.0])), COUPLING), "positive scale for every column"),
        (
            tree(("StandardScaler", (0.0, [1.0, 1.0, 1.0])), COUPLING),
            "1 or 2 numbers, one a column, got 3",
        ),
        (tree(COUPLING, latent=("CentBeta", (2, 5))), "CentBeta: exponents that were trained"),
        (tree(COUPLING, latent=("Tdist", (2,))), "Tdist: a multivariate Student"),
        (tree(COUPLING, latent=("Normal", (3,))), "expected 3 different columns"),
        (tree(COUPLING, bijector_info=None), "never been trained"),
        (tree(("NeuralSplineCoupling", (2, 3.0))), "expected K, B, hidden_layers"),
        (tree(COUPLING, params=((), [[(np.array(["a"]), 1.0)]])), "expected an array of numbers"),
        (tree(COUPLING, params=((), [[(np.full((1, 5), np.nan), np.ones(5))]])), "not finite"),
    ],
)
def test_what_cannot_be_expressed_is_refused_with_the_reason(
    tmp_path: Path, content: Any, message: str
) -> None:
    with pytest.raises(ImportRefused, match=message):
        run(save(tmp_path, content), Request())


def test_a_softplus_behind_colours_of_other_columns_comes_first(tmp_path: Path) -> None:
    softplus = ("InvSoftplus", (0, 1.0))
    flows = [
        run(save(tmp_path, tree(*order, COUPLING)), Request())[0]
        for order in ((("ColorTransform", (1, [1])), softplus), (softplus,))
    ]
    x = torch.tensor([[0.7, 0.3], [2.0, -1.0]]).double()
    assert torch.allclose(*(flow.log_prob(x) for flow in flows), atol=1e-12)


def _coupling(*arguments: Any) -> Any:
    return (COUPLING[0], arguments)


@pytest.mark.parametrize(
    "bijector",
    [
        _coupling(4.0, 3.0, 0, 4, None, 0, False),
        _coupling([2], 3.0, 0, 4, None, 0, False),
        _coupling(2, float("inf"), 0, 4, None, 0, False),
        _coupling(2, 3.0, 0, 4, "2", 0, False),
        _coupling(2, 3.0, 0, 4, 0, 0, False),
        ("Roll", ()),
        ("Roll", (None,)),
        ("Reverse", (1,)),
        ("Scale", ("x",)),
        ("Scale", ()),
        ("ShiftBounds", (np.zeros(2), np.ones(2))),
        ("StandardScaler", (float("nan"), 1.0)),
        ("InvSoftplus", (9, 1.0)),
        ("InvSoftplus", (0.5, 1.0)),
        ("InvSoftplus", ([0, 1], [1.0, 2.0, 3.0])),
        ("ColorTransform", (0, 7)),
        ("UniformDequantizer", ("q",)),
        ("UniformDequantizer", ([2],)),
    ],
)
def test_arguments_of_other_types_are_refused(tmp_path: Path, bijector: Any) -> None:
    with pytest.raises(ImportRefused, match=r"params\.1\.0: .*expected .*, got "):
        run(save(tmp_path, tree(bijector, COUPLING)), Request())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"data_columns": 5}, "data_columns: expected names of columns, got 5"),
        ({"conditional_columns": 3}, "conditional_columns: expected names of columns, got 3"),
        (
            {"conditional_columns": ("c",), "condition_means": "ab", "condition_stds": [1.0]},
            "condition_means: expected numbers, got 'ab'",
        ),
        ({"latent": ("Uniform", (2, float("inf")))}, "a finite positive bound, got inf"),
        (
            {"latent": ("Joint", ("Joint info", (("Normal", (5,)), ("Normal", (-3,)))))},
            "expected a latent or more of each",
        ),
    ],
)
def test_structures_of_other_types_are_refused(
    tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ImportRefused, match=message):
        run(save(tmp_path, tree(COUPLING, **more)), Request())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data_columns": ["u", "redshift"]}, "data_columns: .* was given, but the weights say"),
        ({"latent": "Uniform(2, 5)"}, "latent"),
        ({"K": 16}, "K: 16 was given, but the weights say 2"),
        ({"bijector": "Chain(ShiftBounds, RollingSplineCoupling)"}, "bijector: .*ShiftBounds"),
    ],
)
def test_what_contradicts_the_file_is_refused(
    tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    path = save(tmp_path, tree(SCALER, COUPLING))
    with pytest.raises(ImportRefused, match=message):
        run(path, Request(config=given))
    fitting = {"K": 2, "latent": "Normal(2)", "n_conditions": 0, "D": 2}
    run(
        path, Request(config={**fitting, "bijector": "Chain(StandardScaler, NeuralSplineCoupling)"})
    )


def test_whole_numbers_are_dequantised_and_said_to_be(tmp_path: Path) -> None:
    content = tree(("UniformDequantizer", ([1],)), COUPLING)
    flow, report = run(save(tmp_path, content), Request())
    assert flow.facts.discrete == (1,)
    assert "noise" in [term["name"] for term in report.provenance()["likelihood"]["terms"]]
