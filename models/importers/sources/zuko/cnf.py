"""zuko's CNF: dx/dt = MLP([cos(w t), sin(w t), x, context]), data at time 0, latents at time 1.

Reference: github.com/probabilists/zuko 1.6.0, flows/continuous.py.
"""

import re

from models.importers.layouts import continuous
from models.importers.likelihood import Reported
from models.importers.report import ImportRefused
from models.importers.source import Conversion, Fragment, Inference
from models.importers.sources.zuko.layers import Layer
from models.importers.weights import Weights


def infer(weights: Weights, seen: Inference, layers: list[Layer]) -> None:
    """Read the sizes off the first network."""
    name = layers[0].name
    features, freqs = layers[0].features, weights.shape(f"{name}freqs")[0]
    inputs = weights.shape(f"{name}ode.0.weight")[1]
    seen.know("features", features, "outputs of the network")
    seen.know("freqs", freqs, f"{name}freqs")
    seen.know("context", inputs - features - 2 * freqs, f"inputs of the network: {inputs}")
    seen.know("bins", None, "there are no splines")
    seen.suppose("univariate", None, "there is none")
    seen.suppose("constructor", "CNF", "its transform")


def convert(weights: Weights, layers: list[Layer], context: int, activation: str) -> Conversion:
    """Turn the weights into a continuous flow.

    Raises:
        ImportRefused: if blocks differ, or the time does not begin at 0.
    """
    nonlinearity = continuous.nonlinearity(activation)
    features, freqs = layers[0].features, weights.shape(f"{layers[0].name}freqs")[0]
    blocks, widths = [], set()
    for layer in layers:
        linears = _linears(weights, f"{layer.name}ode")
        widths.add(tuple(len(linear["linear.bias"]) for linear in linears[:-1]))
        blocks.append(_block(weights, layer, linears, nonlinearity))
    if len(widths) > 1:
        raise ImportRefused(f"hidden_features: expected the same in all blocks, got {widths}")
    return Conversion(
        family="ffjord",
        config={
            "event_shape": [features],
            "context_features": context,
            "num_blocks": len(layers),
            "hidden_features": list(widths.pop()),
            "layer_type": "ignore",
            "nonlinearity": nonlinearity,
            "time_input": "fourier" if freqs else "none",
            "num_frequencies": freqs,
            "solver": continuous.SOLVER,
        },
        layers=blocks,
        reported=Reported(
            "log_prob of zuko's Flow: nats",
            (
                continuous.tolerance_term(
                    "CNF solves to atol 1e-6, rtol 1e-5, its trace 100 x less"
                ),
            ),
        ),
        data="the inputs of the flow",
    )


def _block(weights: Weights, layer: Layer, linears: list[Fragment], nonlinearity: str) -> Fragment:
    start, end = weights.take(f"{layer.name}times", 2)
    if start != 0 or end <= 0:
        raise ImportRefused(f"{layer.name}times: expected from 0 to T > 0, got {start} to {end}")
    freqs = weights.take(f"{layer.name}freqs", *weights.shape(f"{layer.name}freqs"))
    return continuous.block(
        end,
        linears,
        activations=continuous.unit_swish(nonlinearity, len(linears) - 1),
        dynamics={"frequencies": freqs} if len(freqs) else {},
    )


def _linears(weights: Weights, name: str) -> list[Fragment]:
    places = weights.indices(rf"{re.escape(name)}\.(\d+)\.weight")
    if places != list(range(0, 2 * len(places), 2)):
        raise ImportRefused(f"{name}: expected a zuko.nn.MLP without normalize, got {places}")
    linears = []
    for place in places:
        outputs, inputs = weights.shape(f"{name}.{place}.weight")
        weight = weights.take(f"{name}.{place}.weight", outputs, inputs)
        bias = weights.take(f"{name}.{place}.bias", outputs)
        linears.append(continuous.linear_state(weight, bias))
    return linears
