"""Networks over contexts: their notation, and how it is compared with the weights."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from models.importers.layouts.embedding import convert
from models.importers.report import HyperParametersMissing, ImportRefused
from models.importers.run import Request, run
from models.importers.weights import Weights
from tests.fixtures import case_folder
from tests.models.importers.golden import load

PREFIX = "_embedding_net."
NETWORKS = {
    "a linear layer": nn.Linear(3, 2),
    "without bias": nn.Sequential(nn.Linear(3, 2, bias=False), nn.Tanh()),
    "ends with a layer": nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 2)),
    "norms": nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4, eps=1e-3), nn.BatchNorm1d(4, eps=0.1)),
    "begins with an activation": nn.Sequential(nn.Softplus(), nn.Linear(3, 2)),
    "nested": nn.Sequential(
        nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(0.2)), nn.Dropout(0.5), nn.Linear(4, 2)
    ),
}


def stored(network: nn.Module) -> Weights:
    return Weights({f"{PREFIX}{key}": value for key, value in network.state_dict().items()})


def built(text: str, weights: Weights) -> nn.Module:
    from pydantic import TypeAdapter

    from models.families.embedding import EmbeddingSteps, build_embedding

    embedded = convert(weights, PREFIX, text, 3)
    steps = TypeAdapter(EmbeddingSteps).validate_json(json.dumps(embedded.steps))
    module = build_embedding(steps, 3)
    assert module is not None
    module.double().load_state_dict(embedded.state)
    return module


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_a_printed_network_computes_what_torchs_does(name: str) -> None:
    network = copy.deepcopy(NETWORKS[name]).double().eval()
    generator = torch.Generator().manual_seed(1)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype))
    weights = stored(network)
    context = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    ours = built(str(network), weights)(context)
    weights.finish()
    assert torch.allclose(ours, network(context), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    "text",
    [
        "Sequential(Linear(3, 4), SiLU, Linear(4, 2))",
        "nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 2))",
        "Sequential(Linear(in_features=3, out_features=4), torch.nn.SiLU(inplace=True), "
        "Linear(4, 2), Identity())",
        str(NETWORKS["ends with a layer"]),
    ],
)
def test_spellings_of_one_network(text: str) -> None:
    weights = stored(NETWORKS["ends with a layer"])
    embedded = convert(weights, PREFIX, text, 3)
    kinds = [step["kind"] for step in embedded.steps]
    assert kinds == ["linear", "activation", "linear"]
    assert embedded.steps[1]["name"] == "silu"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Sequential(Linear(3, 5), SiLU, Linear(5, 2))", r"has shape \(4, 3\): Linear\(3, 4\)"),
        ("Sequential(SiLU, Linear(3, 4), Linear(4, 2))", r"no _embedding_net\.1\.weight"),
        ("Sequential(Linear(3, 4), Mystery(), Linear(4, 2))", "Mystery is not known"),
        ("Sequential(Linear(3, 4), ELU(alpha=2.0), Linear(4, 2))", "alpha can only be 1.0"),
        ("Sequential(Linear(3, 4), 7, Linear(4, 2))", "7 is no module"),
        ("Sequential(Linear(3, 4), SiLU, Linear(4, 2)", "expected a network as torch prints it"),
        ("[1, 2]", r"got .\[1, 2\]"),
        ("FCEmbedding(output_dim=2)", "FCEmbedding takes input_dim"),
        ("", "expected a network as torch prints it"),
    ],
)
def test_other_descriptions_are_refused(text: str, message: str) -> None:
    with pytest.raises(ImportRefused, match=message):
        convert(stored(NETWORKS["ends with a layer"]), PREFIX, text, 3)


def test_a_module_that_is_left_out_is_an_error() -> None:
    weights = stored(NETWORKS["norms"])
    convert(weights, PREFIX, "Sequential(Linear(3, 4), LayerNorm(4))", 3)
    with pytest.raises(ImportRefused, match=r"_embedding_net\.2\.weight: not part"):
        weights.finish()


def test_what_stands_between_the_layers_is_asked_for() -> None:
    case = load("nflows_maf_embedding_a")
    config = {name: value for name, value in case.config.items() if name != "embedding_net"}
    with pytest.raises(HyperParametersMissing, match=r"Sequential\(Linear\(7, 16\), \.\.\., Lin"):
        run(case.checkpoint, Request(None, config, "none"))


def test_a_convolution_is_refused_with_the_way_out(tmp_path: Path) -> None:
    case = load("nflows_maf_embedding_a")
    state = torch.load(case.checkpoint, weights_only=True)
    state["_embedding_net.0.weight"] = torch.zeros(4, 1, 3)
    torch.save(state, tmp_path / "flow.pt")
    with pytest.raises(ImportRefused, match="send what it makes of a context as the context"):
        run(tmp_path / "flow.pt", Request(None, {}, "none"))


def test_a_pickled_posterior_gets_the_command_that_saves_its_estimator(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match=r"posterior_estimator\.state_dict\(\)") as refusal:
        run(case_folder("sbi", "posterior") / "posterior.pkl", Request(None, {}, "none"))
    command = str(refusal.value).split('python -c "')[1].split('";')[0]
    compile(command, "command", "exec")
    assert "DirectPosterior" in str(refusal.value)


def test_an_estimator_whose_bounds_are_lost_is_refused(tmp_path: Path) -> None:
    """Place 0 without tensors: a bijection from the prior's support."""
    case = load("sbi_zuko_maf_a")
    state = torch.load(case.checkpoint, weights_only=True)
    left = {key: value for key, value in state.items() if ".transforms.0." not in key}
    torch.save(left, tmp_path / "estimator.pt")
    with pytest.raises(ImportRefused, match="transform_to_unconstrained"):
        run(tmp_path / "estimator.pt", Request("sbi", {}, "none"))


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("sbi_maf_a", {"model": "nsf"}, 'the weights say "maf"'),
        ("sbi_maf_a", {"z_score_x": "structured"}, "shape of the deviations"),
        ("sbi_maf_a", {"z_score_y": "none"}, 'the weights say "independent"'),
        ("sbi_maf_a", {"num_transforms": 4}, "the weights say 5"),
        ("sbi_maf_a", {"activation": "relu"}, "sbi's builders fix it"),
        ("sbi_nsf_a", {"num_bins": 9}, "the weights say 10"),
        ("sbi_zuko_maf_a", {"model": "maf"}, "as the keys are zuko's, got maf"),
        ("sbi_zuko_maf_a", {"hidden_features": 40}, r"the weights say \[50"),
        ("sbi_zuko_nsf_a", {"num_bins": 5}, "the weights say 8"),
    ],
)
def test_arguments_of_sbis_builders_are_compared(
    name: str, given: dict[str, object], message: str
) -> None:
    case = load(name)
    with pytest.raises(ImportRefused, match=message):
        run(case.checkpoint, Request("sbi", {**case.config, **given}, "none"))
