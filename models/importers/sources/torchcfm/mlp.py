"""torchcfm (conditional flow matching): `torchcfm.models.MLP`, a velocity field over vectors.

v(x, t) = net([x, t]) with SELU between linear layers, the time in the last column, noise at time 0
and data at time 1. Which matcher trained it and its sigma are no part of the model. SELU has a jump
in its slope, so the trace along a path has jumps: solvers agree to about 1e-3 nats, however exact.

Reference: github.com/atong01/conditional-flow-matching, torchcfm 1.0.7, models/models.py.
"""

import torch
from pydantic import Field

from models.importers.layouts import continuous
from models.importers.layouts.networks import ActivationName
from models.importers.likelihood import Reported, Term
from models.importers.report import ImportRefused
from models.importers.source import Conversion, Count, Inference, Source, SourceConfig
from models.importers.weights import Weights

# Every jump of SELU's slope on a row's path takes a dozen of small steps.
_MAX_EVALUATIONS = 100_000


class Config(SourceConfig):
    """Arguments of `MLP`, and where on the time axis the data are."""

    dim: Count
    w: Count
    time_varying: bool
    activation: ActivationName
    t_data: float = Field(default=1.0, description="the library's convention")
    t_noise: float = Field(default=0.0, description="the library's convention")


def infer(weights: Weights) -> Inference:
    """Read everything off the shapes.

    Raises:
        ImportRefused: for fields that are gradients.
    """
    places = weights.indices(r"net\.(\d+)\.weight")
    width, inputs = weights.shape(f"net.{places[0]}.weight")
    dim = weights.shape(f"net.{places[-1]}.weight")[0]
    if inputs not in (dim, dim + 1):
        raise ImportRefused(
            f"net: {inputs} inputs and {dim} outputs; expected as many outputs as inputs, or one "
            "less where the time is an input (GradModel, and fields with labels, cannot be "
            "imported)"
        )
    seen = Inference()
    seen.know("dim", dim, "outputs of the network")
    seen.know("w", width, "net.0")
    seen.know("time_varying", inputs == dim + 1, f"the network has {inputs} inputs")
    seen.suppose("activation", "selu", "the library's own")
    seen.show("model", "torchcfm.models.MLP", "MLP", reason="the keys")
    seen.show("depth", len(places) - 1, reason="hidden layers")
    return seen


def convert(config: Config, weights: Weights) -> Conversion:
    """Turn the weights into a continuous flow whose data are at the end of time."""
    if (config.t_noise, config.t_data) != (0.0, 1.0):
        raise ImportRefused(
            f"t_noise {config.t_noise:g}, t_data {config.t_data:g}: expected 0 and 1"
        )
    places = weights.indices(r"net\.(\d+)\.weight")
    linears = []
    for place in places:
        outputs, inputs = weights.shape(f"net.{place}.weight")
        weight = weights.take(f"net.{place}.weight", outputs, inputs)
        linears.append(continuous.linear_state(weight, weights.take(f"net.{place}.bias", outputs)))
    nonlinearity = continuous.nonlinearity(config.activation)
    activations = continuous.unit_swish(nonlinearity, len(linears) - 1)
    trace = Term(
        "trace", 0.0, "exact here; a Hutchinson estimate elsewhere varies from call to call"
    )
    solver = continuous.tolerance_term("the tutorials take 100 Euler steps, or dopri5 at 1e-4")
    return Conversion(
        family="ffjord",
        config={
            "event_shape": [config.dim],
            "hidden_features": [len(linear["linear.bias"]) for linear in linears[:-1]],
            "layer_type": "ignore",
            "nonlinearity": nonlinearity,
            "time_input": "last" if config.time_varying else "none",
            "data_time": "end",
            "solver": {**continuous.SOLVER, "max_evaluations": _MAX_EVALUATIONS},
        },
        layers=[continuous.block(torch.tensor(1.0), linears, activations=activations)],
        reported=Reported("log-likelihood of the tutorials' cnf_wrapper: nats", (solver, trace)),
        data="the inputs of the flow",
    )


SOURCE = Source(
    name="torchcfm",
    short_names=("atong01/conditional-flow-matching", "conditional-flow-matching"),
    signature=(r"net\.0\.weight$", r"net\.[24]\."),
    config=Config,
    infer=infer,
    convert=convert,
    training_only=frozenset({"sigma", "matcher", "divergence", "out_dim"}),
)
