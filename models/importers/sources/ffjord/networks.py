"""The networks of rtqichen/ffjord: which layers they have, and their weights as our dynamics' own.

A layer is recognised by its tensors: `_layer` alone is ignore, concat or concatcoord, by the inputs
it has beyond the layer before it (0, the time, or the time and two coordinates); `_hyper` is
squash, `_hyper_gate` with `_hyper_bias` concatsquash, `_layer0` with `_layer1` blend, `_hypernet`
hyper. Under spectral norm a weight is `weight_orig` over u^T W v, and the `weight` beside it may be
stale.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from models.importers.report import ImportRefused
from models.importers.source import Fragment, prefixed
from models.importers.weights import Weights

_EXTRA_INPUTS = {0: "ignore", 1: "concat", 3: "concatcoord"}


@dataclass(frozen=True, slots=True)
class CNF:
    """One CNF of a model.

    Attributes:
        scale: of a multi-scale model, else 0.
        place: in its chain.
        name: the prefix of its keys.
        net: the prefix of its network's keys.
        layers: the names of its layers.
        kind: the type of its layers.
        channels: D, or the channels of the image.
        hidden: outputs of the hidden layers.
    """

    scale: int
    place: int
    name: str
    net: str
    layers: tuple[str, ...]
    kind: str
    channels: int
    hidden: tuple[int, ...]
    is_conv: bool
    has_swish: bool

    @property
    def is_autoencoder(self) -> bool:
        """Whether it was made with --autoencode, which changes the trace's estimate alone."""
        return ".encoder_layers." in self.layers[0]


def find(weights: Weights) -> list[CNF]:
    """All CNFs of a model, in the order in which data go through them.

    Raises:
        ImportRefused: for models with --parallel.
    """
    pattern = re.compile(r"((?:transforms\.(\d+)\.)?chain\.(\d+))\.sqrt_end_time")
    found = [match for key in weights.under("") if (match := pattern.fullmatch(key))]
    if not found:
        raise ImportRefused("chain: expected CNFs with sqrt_end_time, got none")
    places = sorted((int(match[2] or 0), int(match[3]), match[1]) for match in found)
    return [_cnf(weights, scale, place, name) for scale, place, name in places]


def blocks_of(cnfs: Sequence[CNF]) -> int:
    """--num_blocks: of the last scale, which has no squeeze between its blocks.

    Raises:
        ImportRefused: if a scale has another number of blocks.
    """
    scales = [cnf.scale for cnf in cnfs]
    blocks = scales.count(scales[-1])
    for scale in range(scales[-1]):
        if scales.count(scale) != 2 * blocks:
            raise ImportRefused(
                f"transforms.{scale}: expected {2 * blocks} CNFs, {blocks} in front of the squeeze "
                f"and {blocks} behind it, got {scales.count(scale)}"
            )
    return blocks


def _cnf(weights: Weights, scale: int, place: int, name: str) -> CNF:
    nets = rf"{re.escape(name)}\.odefunc\.(odefunc\.)?(autoencoder_)?diffeq\."
    match = next((match for key in weights.under(name) if (match := re.match(nets, key))), None)
    if match is None:
        raise ImportRefused(f"{name}: expected a network (odefunc.diffeq), got none")
    net = match[0]
    if weights.has(rf"{re.escape(net)}models\..*"):
        raise ImportRefused(
            f"{name}: a model with --parallel sums networks at several scales and cannot be "
            "imported; models with --multiscale and of a single scale can"
        )
    layers = tuple(
        f"{net}{part}.{index}"
        for part in ("layers", "encoder_layers", "decoder_layers")
        for index in range(weights.count(rf"{re.escape(net)}{part}\.(\d+)\."))
    )
    shapes = [main_shape(weights, layer) for layer in layers]
    is_conv = len(shapes[0]) == 4 or (len(shapes[0]) == 2 and _is_hyper_conv(weights, layers[0]))
    outputs = _outputs(weights, layers)
    return CNF(
        scale=scale,
        place=place,
        name=name,
        net=net,
        layers=layers,
        kind=_kind(weights, layers[0], outputs[-1]),
        channels=outputs[-1],
        hidden=tuple(outputs[:-1]),
        is_conv=is_conv,
        has_swish=weights.has(rf"{re.escape(net)}activation_fns\.\d+\.beta"),
    )


def _is_hyper_conv(weights: Weights, layer: str) -> bool:
    return _key(weights, f"{layer}._hypernet.weight") in weights


def _key(weights: Weights, name: str) -> str:
    """The key under which a weight is trained."""
    return f"{name}_orig" if f"{name}_orig" in weights else name


def main_shape(weights: Weights, layer: str) -> tuple[int, ...]:
    """Shape of the weight that a layer cannot be without."""
    names = ("_layer.weight", "_layer0.weight", "_hypernet.weight", "_hypernet.2.weight")
    for name in names:
        key = _key(weights, f"{layer}.{name}")
        if key in weights:
            return weights.shape(key)
    raise ImportRefused(f"{layer}: not a layer of ffjord that can be imported")


def _outputs(weights: Weights, layers: Sequence[str]) -> list[int]:
    """Outputs of every layer; those of hyper layers follow from the ones before."""
    outputs: list[int] = []
    for layer in layers:
        for name in ("_layer.bias", "_layer0.bias"):
            if f"{layer}.{name}" in weights:
                outputs.append(weights.shape(f"{layer}.{name}")[0])
    if outputs:
        return outputs
    return _hyper_outputs(weights, layers)


def _hyper_outputs(weights: Weights, layers: Sequence[str]) -> list[int]:
    """Outputs n_1, ..., n_L = n_0 of hyper layers, whose numbers are n_l (n_(l-1) k^2 + 1).

    Raises:
        ImportRefused: if no widths fit.
    """
    sizes = [main_shape(weights, layer)[0] for layer in layers]
    is_conv = _is_hyper_conv(weights, layers[0])
    for first in range(1, sizes[0]):
        found = [first]
        for size in sizes:
            areas = (9, 16) if is_conv else (1,)
            fitting = [
                size // (found[-1] * area + 1)
                for area in areas
                if not size % (found[-1] * area + 1)
            ]
            if not fitting:
                break
            found.append(fitting[0])
        if len(found) == len(sizes) + 1 and found[-1] == first:
            return found[1:]
    raise ImportRefused(f"{layers[0]}: no widths fit hyper layers of {sizes} numbers")


def _kind(weights: Weights, layer: str, channels: int) -> str:
    for name, kind in (
        ("_hyper_gate.bias", "concatsquash"),
        ("_hyper.bias", "squash"),
        ("_layer0.bias", "blend"),
        ("_hypernet.bias", "hyper"),
        ("_hypernet.2.bias", "hyper"),
    ):
        if f"{layer}.{name}" in weights:
            return kind
    shape = main_shape(weights, layer)
    outputs = weights.shape(f"{layer}._layer.bias")[0]
    # A transposed convolution has its inputs first; the other axis is that of its outputs.
    candidates = [shape[1]] if len(shape) == 2 or shape[0] == outputs else []
    candidates += [shape[0]] if len(shape) == 4 and shape[2] == 4 and shape[1] == outputs else []
    for inputs in candidates:
        if inputs - channels in _EXTRA_INPUTS:
            return _EXTRA_INPUTS[inputs - channels]
    raise ImportRefused(
        f"{layer}: a weight of shape {shape} for {channels} channels; expected as many inputs, or "
        "1 or 3 more"
    )


def weight_of(weights: Weights, name: str, *, transposed: bool = False) -> Tensor:
    """A weight as the model applies it, whatever its shape.

    Args:
        name: ending in "weight".
        transposed: whether it belongs to a transposed convolution, whose outputs are axis 1.
    """
    if f"{name}_orig" not in weights:
        return weights.take(name, *weights.shape(name))
    weights.skip(re.escape(name), "a copy made by spectral norm; it is computed afresh")
    raw = weights.take(f"{name}_orig", *weights.shape(f"{name}_orig"))
    matrix = (raw.transpose(0, 1) if transposed else raw).flatten(1)
    left = weights.take(f"{name}_u", matrix.shape[0])
    right = weights.take(f"{name}_v", matrix.shape[1])
    return raw / (left @ matrix @ right)


def dense_layers(weights: Weights, cnf: CNF) -> list[Fragment]:
    """The layers of a network over vectors."""
    return [_dense(weights, layer, cnf.kind) for layer in cnf.layers]


def _dense(weights: Weights, layer: str, kind: str) -> Fragment:
    if kind == "hyper":
        return {
            **prefixed("hypernet.0.", affine(weights, f"{layer}._hypernet.0")),
            **prefixed("hypernet.2.", affine(weights, f"{layer}._hypernet.2")),
        }
    if kind == "blend":
        return {
            **prefixed("start.", affine(weights, f"{layer}._layer0")),
            **prefixed("end.", affine(weights, f"{layer}._layer1")),
        }
    return {
        **prefixed("linear.", affine(weights, f"{layer}._layer")),
        **gates(weights, layer, kind),
    }


def gates(weights: Weights, layer: str, kind: str) -> Fragment:
    """What squash and concatsquash layers have beside their main weights."""
    if kind == "squash":
        return prefixed("gate.", affine(weights, f"{layer}._hyper"))
    if kind == "concatsquash":
        return {
            **prefixed("gate.", affine(weights, f"{layer}._hyper_gate")),
            "shift.weight": weight_of(weights, f"{layer}._hyper_bias.weight"),
        }
    return {}


def affine(weights: Weights, name: str, *, transposed: bool = False) -> Fragment:
    """Weight and bias of a linear layer or a convolution."""
    return {
        "weight": weight_of(weights, f"{name}.weight", transposed=transposed),
        "bias": weights.take(f"{name}.bias", *weights.shape(f"{name}.bias")),
    }


def betas(weights: Weights, cnf: CNF) -> list[Fragment]:
    """The factors of swish, which all uses share."""
    if not cnf.has_swish:
        return []
    return [
        {"beta": weights.take(f"{cnf.net}activation_fns.{index}.beta")}
        for index in range(len(cnf.hidden))
    ]


def norm(weights: Weights, name: str, channels: int) -> Fragment:
    """A moving batch norm in evaluation form."""
    keys = ("weight", "bias", "running_mean", "running_var")
    return {key: weights.take(f"{name}.{key}", channels) for key in keys}
