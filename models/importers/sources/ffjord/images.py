"""Convolutional models of rtqichen/ffjord: their strides, and how their scales nest."""

from collections.abc import Sequence
from typing import Any

from models.importers.layouts.continuous import block
from models.importers.report import ImportRefused
from models.importers.source import Fragment, Inference, numbered, prefixed
from models.importers.sources.ffjord import networks as ffjord_nets
from models.importers.sources.ffjord.networks import CNF
from models.importers.weights import Weights
from models.registry import build

_STRIDES = "comma-separated, one a layer: 1 keeps the size, 2 halves it, -2 doubles it"
_KERNEL_OF_ONE = 3


def infer(seen: Inference, first: CNF, weights: Weights) -> None:
    """Read off what images need: strides, where the kernels tell; the size must be given."""
    seen.suppose("D", None, "it follows from the size of the images")
    scales = len({cnf.scale for cnf in ffjord_nets.find(weights)})
    seen.ask("imagesize", f"a multiple of {2 ** (scales - 1)}; the --imagesize of the script")
    if scales > 1 or seen.found["multiscale"].value:
        seen.suppose("strides", None, "with --multiscale all strides are 1")
        seen.mark_idle("strides", "not used: with --multiscale all strides are 1")
        return
    strides = _strides(weights, first)
    if strides is None:
        seen.ask("strides", f"{_STRIDES}; the --strides of the script")
    else:
        seen.know("strides", ",".join(map(str, strides)), "shapes of the kernels")


def _strides(weights: Weights, cnf: CNF) -> list[int] | None:
    """The stride of every layer; None where a square kernel of 4 leaves two ways."""
    extra = {"concat": 1, "concatcoord": 3}.get(cnf.kind, 0)
    inputs = cnf.channels
    strides = []
    for layer, outputs in zip(cnf.layers, (*cnf.hidden, cnf.channels), strict=True):
        shape = ffjord_nets.main_shape(weights, layer)
        if len(shape) != 4:
            return None
        fitting = [
            stride
            for stride, expected in (
                (1, (outputs, inputs + extra, 3, 3)),
                (2, (outputs, inputs + extra, 4, 4)),
                (-2, (inputs + extra, outputs, 4, 4)),
            )
            if shape == expected
        ]
        if len(fitting) != 1:
            return None
        strides.append(fitting[0])
        inputs = outputs
    return strides


def describe(
    strides: str | None, cnfs: Sequence[CNF], shape: tuple[int, int, int]
) -> dict[str, Any]:
    """The configuration of the networks.

    Raises:
        ImportRefused: if CNFs differ, or the strides do not fit.
    """
    kinds = {(cnf.kind, cnf.hidden) for cnf in cnfs}
    if len(kinds) > 1:
        raise ImportRefused(f"expected CNFs of one architecture, got {sorted(map(str, kinds))}")
    described = {
        "event_shape": list(shape),
        "num_scales": cnfs[-1].scale + 1,
        "hidden_channels": list(cnfs[0].hidden),
        "layer_type": cnfs[0].kind,
    }
    if strides is not None and cnfs[-1].scale == 0:
        described["strides"] = _parse(strides, len(cnfs[0].layers))
    return described


def _parse(strides: str, layers: int) -> list[int]:
    parsed = [int(part) for part in strides.split(",")]
    if len(parsed) != layers or not set(parsed) <= {1, 2, -2}:
        raise ImportRefused(f"strides: expected {layers} numbers, {_STRIDES}; got {strides!r}")
    return parsed


def lay_out(
    weights: Weights, cnfs: Sequence[CNF], strides: str | None, described: dict[str, Any]
) -> list[Fragment]:
    """The state dicts of all transforms: blocks, and what is left for the coarser scales."""
    steps = described.get("strides") or [1] * len(cnfs[0].layers)
    blocks = [_block(weights, cnf, steps) for cnf in cnfs]
    scales = [[] for _ in range(cnfs[-1].scale + 1)]  # type: list[list[Fragment]]
    for cnf, fragment in zip(cnfs, blocks, strict=True):
        scales[cnf.scale].append(fragment)
    tail: list[Fragment] = [{}]
    if described["batch_norm"]:
        place = cnfs[-1].place + 1
        tail = [ffjord_nets.norm(weights, f"chain.{place}", cnfs[0].channels), {}]
    layers = [*scales[-1], *tail]
    for fragments in scales[-2::-1]:
        half = len(fragments) // 2
        rest = prefixed("rest.transforms.", numbered(layers))
        # The squeeze between the two halves, like the flattening at the end, has no tensors.
        layers = [*fragments[:half], {}, *fragments[half:], rest]
    return _with_probes(layers, described)


def _with_probes(layers: list[Fragment], described: dict[str, Any]) -> list[Fragment]:
    """Add the probes of traces that are too dear to be exact; they are part of a model."""
    built = build("ffjord_image", described).state_dict()
    for key, value in built.items():
        _, index, name = key.split(".", 2)
        if name.endswith("probes"):
            layers[int(index)][name] = value.double()
    return layers


def _block(weights: Weights, cnf: CNF, strides: Sequence[int]) -> Fragment:
    layers = [
        _hyper(weights, layer, outputs)
        if cnf.kind == "hyper"
        else _conv(weights, layer, cnf.kind, stride)
        for layer, outputs, stride in zip(
            cnf.layers, (*cnf.hidden, cnf.channels), strides, strict=True
        )
    ]
    return block(
        weights.take(f"{cnf.name}.sqrt_end_time").square(),
        layers,
        activations=ffjord_nets.betas(weights, cnf),
    )


def _conv(weights: Weights, layer: str, kind: str, stride: int) -> Fragment:
    transposed = stride < 0
    if kind == "blend":
        start, end = (
            ffjord_nets.affine(weights, f"{layer}._layer{index}", transposed=transposed)
            for index in (0, 1)
        )
        return {**prefixed("start.", start), **prefixed("end.", end)}
    main = ffjord_nets.affine(weights, f"{layer}._layer", transposed=transposed)
    return {**prefixed("conv.", main), **ffjord_nets.gates(weights, layer, kind)}


def _hyper(weights: Weights, layer: str, outputs: int) -> Fragment:
    """The numbers of the kernel; those of the bias behind them are never used by the source."""
    state = ffjord_nets.affine(weights, f"{layer}._hypernet")
    return {f"hypernet.{key}": value[:-outputs] for key, value in state.items()}
