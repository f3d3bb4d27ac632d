"""The blocks of FrEIA, recognised by their tensors, as layers of a `chain`.

Couplings of two sides move the first part by `subnet2` of the second, then the second by `subnet1`
of the new first. An AllInOneBlock keeps the first ceil(D/2) columns, scales all by a global factor,
and permutes them. In both, scales come before shifts in the output of a subnetwork.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.importers.layouts import chain_layers, networks
from models.importers.layouts.chain_layers import Part
from models.importers.layouts.networks import Linear, Net
from models.importers.layouts.nsf_parts import dense
from models.importers.report import ImportRefused
from models.importers.source import prefixed
from models.importers.weights import Weights

ALL_IN_ONE = "all_in_one"
TWO_SIDED = ("glow", "rnvp", "nice")
CLASSES = {
    ALL_IN_ONE: "AllInOneBlock",
    "glow": "GLOWCouplingBlock",
    "rnvp": "RNVPCouplingBlock",
    "nice": "NICECouplingBlock",
    "permutation": "PermuteRandom",
    "linear": "FixedLinearTransform",
}
# Names of subnetworks by the kind of block.
_SUBNETS = {
    ALL_IN_ONE: ("subnet",),
    "rnvp": ("subnet_s1", "subnet_t1", "subnet_s2", "subnet_t2"),
    "glow": ("subnet1", "subnet2"),
    "nice": ("F", "G"),
}
# A key of blocks that take images -> what they are.
_OF_IMAGES = {"haar_weights": "HaarDownsampling", "downsample_kernel": "IRevNetDownsampling"}
# What AllInOneBlock multiplies the output of its subnetwork by.
_DAMPING = 0.1
# The library's own approximation of 2 / pi.
_ATAN_FACTOR = 0.636


@dataclass(frozen=True, slots=True)
class Options:
    """What a block was given that its tensors do not show."""

    activation: str = "identity"
    affine_clamping: float = 2.0
    global_affine_type: str = "SOFTPLUS"
    gin_block: bool = False
    reverse_permutation: bool = False
    clamp: float = 2.0
    clamp_activation: str = "ATAN"
    split_len: float | int = 0.5


@dataclass(frozen=True, slots=True)
class Block:
    """One block.

    Attributes:
        name: the prefix of its keys.
        subnets: names of its subnetworks.
    """

    name: str
    kind: str
    subnets: tuple[str, ...] = ()

    def features(self, weights: Weights) -> int:
        """D as its tensors show it."""
        if self.kind == ALL_IN_ONE:
            return weights.shape(f"{self.name}global_scale")[1]
        if self.kind == "permutation":
            return weights.shape(f"{self.name}perm")[0]
        if self.kind == "linear":
            return weights.shape(f"{self.name}M")[0]
        outputs = {name: _sizes(weights, f"{self.name}{name}")[1] for name in self.subnets}
        if self.kind == "glow":
            return sum(outputs.values()) // 2
        if self.kind == "rnvp":
            return outputs["subnet_s1"] + outputs["subnet_s2"]
        return sum(outputs.values())

    def context(self, weights: Weights, features: int) -> int:
        """Length of the condition that its subnetworks take."""
        first, _ = _sizes(weights, f"{self.name}{self.subnets[0]}")
        if self.kind == ALL_IN_ONE:
            return first - (features - features // 2)
        other, _ = _sizes(weights, f"{self.name}{self.subnets[-1]}")
        return (first + other - features) // 2


def recognise(weights: Weights) -> list[Block]:
    """All blocks, in the order in which data go through them.

    Raises:
        ImportRefused: names a block that cannot be imported.
    """
    places = weights.indices(r"module_list\.(\d+)\.")
    return [_block(weights, f"module_list.{place}.") for place in places]


def warn_of_holes(weights: Weights) -> None:
    """Say which modules have no tensors, and that at the end they would leave no trace."""
    places = weights.indices(r"module_list\.(\d+)\.")
    for place in sorted({*range(places[-1])} - {*places}):
        weights.report.warning(
            f"module_list.{place}",
            "a module without tensors: taken as one that does nothing to vectors (Flatten, "
            "Reshape, Split, Concat, the nodes of a graph); if it is another, the numbers are "
            "wrong",
        )
    weights.report.warning(
        "module_list",
        f"modules without tensors behind the last one, module_list.{places[-1]}, leave no trace: "
        "taken as none, or as such that do nothing to vectors (Flatten, Reshape); if there is "
        "another, such as InvertibleSigmoid, the numbers are wrong",
    )


def has_activation(weights: Weights, block: Block) -> bool:
    """Whether a subnetwork has more than one linear layer."""
    return any(len(_layers(weights, f"{block.name}{name}")) > 1 for name in block.subnets)


def is_soft(weights: Weights, block: Block) -> bool:
    """Whether the permutation of an AllInOneBlock is a rotation."""
    key = next(key for key in ("w_perm", "w_0") if f"{block.name}{key}" in weights)
    return not _is_permutation(weights.peek(f"{block.name}{key}").flatten(1))


def householders(weights: Weights, block: Block) -> int:
    """How many learned reflections an AllInOneBlock has."""
    key = f"{block.name}vk_householder"
    return weights.shape(key)[0] if key in weights else 0


def convert(weights: Weights, block: Block, features: int, options: Options) -> list[Part]:
    """Turn a block into layers.

    Raises:
        ImportRefused: if its subnetworks are no stacks of linear layers, or fit no split.
    """
    makers: dict[str, Callable[[Weights, Block, int, Options], list[Part]]] = {
        ALL_IN_ONE: _all_in_one,
        "permutation": _permutation,
        "linear": _fixed_linear,
    }
    return makers.get(block.kind, _two_sided)(weights, block, features, options)


def _block(weights: Weights, name: str) -> Block:
    for kind, subnets in _SUBNETS.items():
        if all(weights.under(f"{name}{subnet}.") for subnet in subnets):
            if kind == ALL_IN_ONE and f"{name}global_scale" not in weights:
                continue
            return Block(name, kind, subnets)
    if f"{name}perm" in weights:
        return Block(name, "permutation")
    if f"{name}M_inv" in weights and len(weights.shape(f"{name}M")) == 2:
        return Block(name, "linear")
    for key, kind in _OF_IMAGES.items():
        if f"{name}{key}" in weights:
            raise ImportRefused(
                f"{name.rstrip('.')}: {kind}, of a flow over images; of FrEIA flows over vectors "
                "can be imported: no family here couples both sides of channels by networks of "
                "users' own"
            )
    keys = ", ".join(weights.under(name)[:3])
    raise ImportRefused(
        f"{name.rstrip('.')}: with keys such as {keys} not a block of FrEIA that can be imported; "
        f"these can: {', '.join(CLASSES.values())}"
    )


def _all_in_one(weights: Weights, block: Block, features: int, options: Options) -> list[Part]:
    moved = features // 2
    kept = features - moved
    linears = _layers(weights, f"{block.name}subnet")
    taken = [dense(weights, name) for name in linears]
    last = taken[-1].rows(_shift_first(moved))
    taken[-1] = Linear(_DAMPING * last.weight, _DAMPING * last.bias)
    net = networks.mlp(taken, _activations(linears, options.activation))
    weight = torch.full((moved,), options.affine_clamping, dtype=torch.float64)
    parts = [
        _coupling(range(kept), features, net, "tanh", weight, centred=options.gin_block),
        _global_affine(weights, block, features, options),
    ]
    permutation, inverse = _rotation(weights, block, features)
    return [*([inverse] if options.reverse_permutation else []), *parts, permutation]


def _global_affine(weights: Weights, block: Block, features: int, options: Options) -> Part:
    raw = weights.take(f"{block.name}global_scale", 1, features)[0]
    shift = weights.take(f"{block.name}global_offset", 1, features)[0]
    scales: dict[str, Callable[[Tensor], Tensor]] = {
        "SOFTPLUS": lambda value: 0.1 * F.softplus(value, beta=0.5, threshold=1000.0),
        "SIGMOID": lambda value: 10 * torch.sigmoid(value - 2),
        "EXP": torch.exp,
    }
    scale = torch.ones_like(raw) if options.gin_block else scales[options.global_affine_type](raw)
    layer = {"kind": "actnorm", "form": "scale_then_shift", "storage": "direct"}
    return Part(layer, {"scale": scale, "shift": shift})


def rotation_nats(weights: Weights, block: Block, options: Options) -> float:
    """What a rotation, rounded to float32, adds to log|det|; the library counts nothing.

    It stands at the end of a block, and transposed at its beginning too, with reverse_permutation.
    """
    matrix = _rotation_matrix(weights, block)
    return float(torch.linalg.slogdet(matrix)[1]) * (2 if options.reverse_permutation else 1)


def _rotation(weights: Weights, block: Block, features: int) -> tuple[Part, Part]:
    """The permutation at the end, and the one at the beginning that undoes it."""
    matrix = _rotation_matrix(weights, block)
    if matrix.shape != (features, features):
        raise ImportRefused(
            f"{block.name}w_perm: expected shape {(features, features)}, got {tuple(matrix.shape)}"
        )
    for key in ("w_perm", "w_0", "vk_householder"):
        if f"{block.name}{key}" in weights:
            weights.take(f"{block.name}{key}", *weights.shape(f"{block.name}{key}"))
    weights.skip(re.escape(f"{block.name}w_perm_inv"), "the transpose of w_perm")
    if _is_permutation(matrix):
        indices = matrix.argmax(1)
        undone = indices.argsort().tolist()
        return chain_layers.permute(indices.tolist()), chain_layers.permute(undone)
    return chain_layers.linear(matrix), chain_layers.linear(matrix.T.contiguous())


def _rotation_matrix(weights: Weights, block: Block) -> Tensor:
    if f"{block.name}w_perm" in weights:
        return weights.peek(f"{block.name}w_perm")
    matrix = weights.peek(f"{block.name}w_0")
    for vector in weights.peek(f"{block.name}vk_householder"):
        matrix = matrix - 2 * (matrix @ vector).outer(vector) / vector.dot(vector)
    return matrix


def _two_sided(weights: Weights, block: Block, features: int, options: Options) -> list[Part]:
    split = options.split_len
    first = round(split * features) if isinstance(split, float) else split
    sides = (range(first), range(first, features))
    # The first part is moved by what the second says, then the second by what the first says.
    names = {
        "rnvp": (("subnet_t2", "subnet_s2"), ("subnet_t1", "subnet_s1")),
        "nice": (("F",), ("G",)),
    }.get(block.kind, (("subnet2",), ("subnet1",)))
    return [
        _side(weights, block, features, options, moved, kept, own)
        for moved, kept, own in zip(sides, sides[::-1], names, strict=True)
    ]


def _side(
    weights: Weights,
    block: Block,
    features: int,
    options: Options,
    moved: range,
    kept: range,
    names: tuple[str, ...],
) -> Part:
    nets = []
    for name in names:
        linears = _layers(weights, f"{block.name}{name}")
        taken = [dense(weights, layer) for layer in linears]
        _check_split(block, name, taken, kept, moved, outputs=2 if len(names) == 1 else 1)
        if len(names) == 1 and block.kind != "nice":
            taken[-1] = taken[-1].rows(_shift_first(len(moved)))
        nets.append((taken, _activations(linears, options.activation)))
    if block.kind == "nice":
        net = networks.mlp(*nets[0])
        return chain_layers.coupling(list(kept), features, {"kind": "additive"}, net)
    scale, factor, stretch = {
        "ATAN": ("atan", _ATAN_FACTOR, 1.0),
        "TANH": ("tanh", 1.0, 1.0),
        # 2 (sigmoid(u) - 1/2) = tanh(u / 2).
        "SIGMOID": ("tanh", 1.0, 0.5),
    }[options.clamp_activation]
    if stretch != 1.0:
        nets[-1] = (_stretched(nets[-1][0], len(moved), stretch), nets[-1][1])
    built = [networks.mlp(*net) for net in nets]
    net = built[0] if len(built) == 1 else networks.pair(*built)
    weight = torch.full((len(moved),), options.clamp * factor, dtype=torch.float64)
    return _coupling(kept, features, net, scale, weight, centred=options.gin_block)


def _coupling(
    kept: Sequence[int],
    features: int,
    net: Net,
    scale: str,
    weight: Tensor,
    *,
    centred: bool = False,
) -> Part:
    elementwise: dict[str, Any] = {"kind": "affine", "scale": scale}
    if centred:
        elementwise["centred"] = True
    part = chain_layers.coupling(list(kept), features, elementwise, net)
    return Part(part.layer, {**part.state, **prefixed("elementwise.", {"scale_weight": weight})})


def _permutation(weights: Weights, block: Block, features: int, options: Options) -> list[Part]:
    weights.skip(re.escape(f"{block.name}perm_inv"), "the inverse of perm")
    return [chain_layers.permute(weights.take_integers(f"{block.name}perm", features).tolist())]


def _fixed_linear(weights: Weights, block: Block, features: int, options: Options) -> list[Part]:
    """y = x M + b."""
    matrix = weights.take(f"{block.name}M", features, features)
    bias = weights.take(f"{block.name}b", 1, features)[0] if f"{block.name}b" in weights else None
    weights.skip(re.escape(f"{block.name}") + "(M_inv|logDetM)", "M says the same")
    return [chain_layers.linear(matrix.T.contiguous(), bias)]


def _layers(weights: Weights, name: str) -> list[str]:
    """The linear layers of a subnetwork, in order.

    Raises:
        ImportRefused: if it has other tensors, as a convolution or a norm has.
    """
    keys = weights.under(f"{name}.")
    wrong = [key for key in keys if key.endswith("weight") and len(weights.shape(key)) != 2]
    wrong += [key for key in keys if not key.endswith(("weight", "bias"))]
    if wrong:
        raise ImportRefused(
            f"{wrong[0]}: shape {weights.shape(wrong[0])}: of subnetworks those that are linear "
            "layers with activations between can be imported, of flows those over vectors"
        )
    return [key.removesuffix(".weight") for key in keys if key.endswith("weight")]


def _activations(linears: Sequence[str], activation: str) -> list[str] | str:
    """The activation where there is room for one; layers side by side have none between."""
    places = [int(name.rpartition(".")[2]) for name in linears]
    gaps = [after - before for before, after in pairwise(places)]
    return [activation if gap > 1 else "identity" for gap in gaps]


def _sizes(weights: Weights, name: str) -> tuple[int, int]:
    """Inputs and outputs of a subnetwork."""
    linears = _layers(weights, name)
    return weights.shape(f"{linears[0]}.weight")[1], weights.shape(f"{linears[-1]}.weight")[0]


def _shift_first(moved: int) -> list[int]:
    """Rows of an output whose scales come first."""
    return [*range(moved, 2 * moved), *range(moved)]


def _stretched(linears: Sequence[Linear], moved: int, factor: float) -> list[Linear]:
    """Multiply the scales' outputs, the last `moved` ones, by a factor."""
    last = linears[-1]
    factors = torch.ones(len(last.bias), dtype=last.bias.dtype)
    factors[-moved:] = factor
    stretched = Linear(last.weight * factors[:, None], last.bias * factors)
    return [*linears[:-1], stretched]


def _check_split(
    block: Block, name: str, linears: Sequence[Linear], kept: range, moved: range, *, outputs: int
) -> None:
    """Compare split_len with the subnetwork's sizes.

    Raises:
        ImportRefused: if it is another split.
    """
    expected = len(moved) if block.kind == "nice" else outputs * len(moved)
    got = len(linears[-1].bias)
    if got != expected or linears[0].weight.shape[1] < len(kept):
        raise ImportRefused(
            f"split_len: with {len(kept)} columns kept and {len(moved)} moved {block.name}{name} "
            f"has {expected} outputs, but in the checkpoint {got}; correct split_len"
        )


def _is_permutation(matrix: Tensor) -> bool:
    is_binary = bool(((matrix == 0) | (matrix == 1)).all())
    return is_binary and bool((matrix.sum(0) == 1).all()) and bool((matrix.sum(1) == 1).all())
