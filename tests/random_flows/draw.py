"""Draw configurations by walking the schemas of the families.

Literals, flags, optional parts and nested descriptions are drawn from the schema itself; sizes and
numbers from `_NUMBERS` and `_SHAPED`. An option with neither is an error (`NotCovered`), so that a
new option is tried from the day it exists.
"""

import random
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from models.families.embedding import EmbeddingStep
from models.families.layers import Layer
from models.registry import FAMILIES

CONTINUOUS = ("cnf_unet", "ffjord", "ffjord_image")
DISCRETE = tuple(sorted(set(FAMILIES) - set(CONTINUOUS)))
IMAGES = ("cnf_unet", "glow", "realnvp_image", "ffjord_image", "jet", "pixelcnn", "tarflow")

# Options that never change what is asked here, or would make it inexact, are fixed.
FIXED: dict[str, Any] = {"solver": {"rtol": 1e-7, "atol": 1e-7}, "evaluation": "exact"}
# Step-size control sees little of a jump in the slope: it takes more to solve across one.
_KINKED = ("relu", "elu", "selu")
_KINKED_SOLVER = {"rtol": 1e-9, "atol": 1e-9}

# Name of an option -> values it is drawn from, the same wherever the name stands.
_NUMBERS: dict[str, tuple[Any, ...]] = {
    "negative_slope": (0.0, 0.01, 0.3),
    "num_layers": (1, 2, 3),
    "num_couplings": (1, 2, 3),
    "num_steps": (1, 2),
    "num_blocks": (1, 2),
    "num_residual_blocks": (0, 1),
    "num_heads": (1, 2),
    "num_heads_up": (None, 1, 2),
    "head_channels": (None, 1, 2),
    "time_features": (2, 3),
    "num_groups": (1, 2),
    "num_bins": (1, 2, 5),
    "degree": (1, 4),
    "polynomials": (1, 3),
    "components": (1, 3),
    "margin": (0.0,),
    "signal": (1, 3),
    "soft_clip": (None, 12.0),
    "offset": (0.0, 0.1),
    "num_reflections": (None, 1, 3),
    "exponent": (1, 2, 13),
    "levels": (2, 4, 8),  # of so many bits
    "kernel": (1, 3),
    "min_bin": (1e-3, 0.05),
    "min_slope": (1e-3, 0.05),
    "divisor": (1.0, 2.5),
    "eps": (1e-5, 1e-2),
    "momentum": (0.0, 0.1, 1.0),
    "hidden_channels": (2, 3),
    "channels": (4, 8),
    "head_dim": (2, 4),
    "layers_per_block": (1, 2),
    "coupling_layers": (1, 2, 3),
    "block_depth": (1, 2),
    "block_width": (4, 8),
    "scale_factor": (2.0, 1.5),
    "patch_size": (1, 2),
    "mid_channels": (2, 3),
    "log_scale_factor": (None, 1.0, 3.0, -0.5),
    "end_time": (0.3, 1.0),
    "num_probes": (1, 3),
    "seed": (0, 5),
    "rtol": (1e-5, 1e-3),
    "atol": (1e-5, 1e-3),
    "kinetic": (0.0, 0.1),
    "jacobian": (0.0, 0.1),
}
# Sizes that a default would make too large to try thousands of.
_ALWAYS = frozenset(
    {
        "event_shape", "num_layers", "num_couplings", "num_steps", "num_levels", "num_scales",
        "hidden_channels", "mid_channels", "num_blocks", "hidden_features", "widths", "layers",
        "mask", "order", "chosen", "low", "high", "conditioner", "patch_size", "channels",
        "head_dim", "layers_per_block", "coupling_layers", "block_depth", "block_width",
        "num_heads", "width", "levels", "shift", "scale", "preprocessing", "kind", "solver",
        "divergence", "evaluation", "num_groups", "time_features",
    }
)  # fmt: skip


class NotCovered(AssertionError):
    """An option that nothing here knows how to draw."""


@dataclass(frozen=True)
class Drawn:
    """A configuration; `pixels` says that rows are values 0 .. 255."""

    family: str
    config: dict[str, Any]
    pixels: bool


def draw(family: str, seed: int) -> Drawn:
    """Draw one configuration of a family; the same seed gives the same one."""
    drawer = Drawer(family, random.Random(f"{family} {seed}"))
    config = drawer.model(FAMILIES[family].config)
    if config.get("nonlinearity") in _KINKED:
        config["solver"] = _KINKED_SOLVER
    return Drawn(family, config, drawer.pixels)


@dataclass
class Drawer:
    family: str
    rng: random.Random
    shape: list[int] = field(default_factory=list)
    pixels: bool = False

    @property
    def features(self) -> int:
        size = 1
        for side in self.shape:
            size *= side
        return size

    def model(self, kind: type[BaseModel]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, info in kind.model_fields.items():
            value = self._option(kind, name, info.rebuild_annotation(), found)
            asked = name in _ALWAYS or info.is_required() or self.rng.random() < 0.5
            if asked:
                found[name] = value
        return found

    def _option(self, kind: type[BaseModel], name: str, annotation: Any, so_far: Any) -> Any:
        if name in FIXED:
            return FIXED[name]
        if name in _SHAPED:
            return _SHAPED[name](self, kind, annotation, so_far)
        if name in _NUMBERS:
            return self.rng.choice(_NUMBERS[name])
        return self.draw_from(annotation, f"{kind.__name__}.{name}")

    def draw_from(self, annotation: Any, where: str) -> Any:
        origin = get_origin(annotation)
        if origin is Annotated:
            return self.draw_from(get_args(annotation)[0], where)
        if origin is Literal:
            return self.rng.choice(get_args(annotation))
        if origin in (Union, types.UnionType):
            return self.draw_from(self.rng.choice(get_args(annotation)), where)
        if annotation is bool:
            return self.rng.random() < 0.5
        if annotation is type(None):
            return None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return self.model(annotation)
        raise NotCovered(
            f"{where}: {annotation}: nothing draws this option; add it to "
            "tests/random_flows/draw.py"
        )

    def permutation(self) -> list[int]:
        return self.rng.sample(range(self.features), self.features)

    def mask(self) -> list[int]:
        flags = [self.rng.randint(0, 1) for _ in range(self.features)]
        # Some are kept and some move.
        flags[self.rng.randrange(self.features)] = 1
        if sum(flags) == self.features and self.features > 1:
            flags[self.rng.randrange(self.features)] = 0
        return flags

    def order(self) -> list[int]:
        places = self.rng.randint(1, self.features)
        order = [
            *range(places),
            *(self.rng.randrange(places) for _ in range(self.features - places)),
        ]
        self.rng.shuffle(order)
        return order


def _event_shape(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> list[int]:
    if d.family == "cnf_unet":
        d.shape = d.rng.choice([[1, 2, 4], [2, 2, 2]])
    elif d.family == "ffjord_image":
        d.shape = [d.rng.choice([1, 2]), *d.rng.choice([[2, 2], [4, 4], [2, 4]])]
    elif d.family in IMAGES:
        d.shape = d.rng.choice([[1, 4, 4], [2, 4, 4], [1, 4, 8], [3, 4, 4]])
    else:
        d.shape = d.rng.choice([[1], [2], [3], [5], [2, 2], [1, 2, 3]])
    return d.shape


def _preprocessing(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> list[dict[str, Any]]:
    if d.family == "pixelcnn":  # whose data lie in [0, 1]
        d.pixels = True
        bits = int(so_far["levels"]).bit_length() - 1
        scale = {"kind": "shift_scale", "scale": 2.0**-8}
        return [{"kind": "reduce_bits", "bits": bits}, {"kind": "dequantise"}, scale]
    channels = d.shape[0]
    many = d.rng.choice([1, channels])
    standardise = {
        "kind": "standardise",
        "mean": [d.rng.uniform(-1, 1) for _ in range(many)],
        "std": [d.rng.uniform(0.5, 2) for _ in range(many)],
    }
    shift_scale = {"kind": "shift_scale", "shift": d.rng.uniform(-1, 1), "scale": -0.7}
    if d.rng.random() < 0.5:
        columns = {"kind": "dequantise_columns", "columns": [channels - 1]}
        far = {"kind": "shift_scale", "shift": 30.0}
        positive = {"kind": "inverse_softplus", "columns": [channels - 1], "sharpness": [0.3]}
        back = {"kind": "standardise", "mean": [30.0], "std": [1.5]}
        ways = [[standardise], [shift_scale, standardise], [columns, standardise]]
        return d.rng.choice([[], *ways, [far, positive, back]])
    d.pixels = True
    steps: list[dict[str, Any]] = []
    if d.rng.random() < 0.5:
        steps.append({"kind": "reduce_bits", "bits": d.rng.randint(1, 8)})
    steps.append({"kind": "dequantise", "levels": 256})
    if d.rng.random() < 0.5:
        logit = {"kind": "logit", "alpha": d.rng.choice([0.01, 0.05, 0.2])}
        return [*steps, {"kind": "shift_scale", "scale": 2.0**-8}, logit, standardise]
    return [*steps, {"kind": "shift_scale", "scale": 2.0**-7, "shift": -1.0}]


def _scales(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> int:
    return d.rng.choice([1, 2])


def _widths(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> list[int]:
    least = 2 if kind.__name__ == "MonotoneNetworkConfig" else 1
    return [max(least, d.rng.randint(1, 8)) for _ in range(d.rng.randint(1, 3))]


def _hidden_channels(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> Any:
    if d.family == "glow":
        return d.rng.choice([2, 3])
    if d.family == "cnf_unet":
        return d.rng.choice([[4], [2, 4]])
    return [d.rng.choice([2, 3]) for _ in range(d.rng.randint(1, 2))]


def _attention_factors(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> list[int]:
    factors = [2**level for level in range(len(so_far["hidden_channels"]))]
    return d.rng.sample(factors, d.rng.randint(0, len(factors)))


def _strides(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> list[int] | None:
    hidden = len(so_far["hidden_channels"])
    return d.rng.choice([None, [2, -2] if hidden == 1 else [2, 1, -2]])


def _activation(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> Any:
    names = get_args(_named(annotation))
    if kind.__name__ == "MLPConfig" and d.rng.random() < 0.4:
        layers = len(so_far["widths"]) + d.rng.randint(0, 1)
        return [d.rng.choice(names) for _ in range(layers)]
    return d.rng.choice(names)


def _named(annotation: Any) -> Any:
    """The Literal inside an annotation."""
    if get_origin(annotation) is Literal:
        return annotation
    return next(_named(part) for part in get_args(annotation) if get_args(part))


def _turns(make: Callable[[Drawer], list[int]]) -> Any:
    def drawn(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> Any:
        words = get_args(_named(annotation))
        given = [make(d) for _ in range(d.rng.randint(1, 2))]
        return d.rng.choice([*words, given])

    return drawn


def _order(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> Any:
    if kind.__name__ == "AutoregressiveLayer":
        return d.order()
    return _turns(Drawer.permutation)(d, kind, annotation, so_far)


def _indices(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> Any:
    return d.rng.choice(["reverse", "shuffle", d.permutation()])


def _chosen(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> list[int]:
    return sorted(d.rng.sample(range(d.features), d.rng.randint(1, d.features)))


def _layers(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> list[Any]:
    layers = [d.draw_from(Layer, "ChainConfig.layers") for _ in range(d.rng.randint(1, 4))]
    # A box is a base: the last layer, and none that stops short of its ends comes before it.
    inner = [layer for layer in layers[:-1] if layer["kind"] not in ("uniform", "beta")]
    is_box = layers[-1]["kind"] in ("uniform", "beta")
    kept = [layer for layer in inner if not is_box or layer["kind"] != "soft_clip"]
    return [*kept, layers[-1]]


def _coupling_types(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> list[str]:
    # Patches of one value have no two halves.
    halved = d.shape[0] * so_far["patch_size"] ** 2 > 1
    kinds = ["channels", "spatial"] if halved else ["spatial"]
    return [d.rng.choice(kinds) for _ in range(d.rng.randint(1, 3))]


def _width(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> int:
    # Hidden channels stand for channels of the image, equally many for each.
    unit = d.shape[0] if kind.__name__ == "PixelCNNConfig" else 1
    return unit * d.rng.choice([1, 3])


def _dilations(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> list[int]:
    return [d.rng.choice([1, 2]) for _ in range(d.rng.randint(1, 2))]


def _passes(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> int | None:
    return d.rng.choice([None, d.rng.randint(1, d.features)])


def _context(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> int:
    return d.rng.choice([0, 2, 3])


def _classes(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> int | None:
    return None if so_far.get("context_features") else d.rng.choice([None, 2, 3])


def _embedding(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> list[Any]:
    if not (so_far.get("context_features") or so_far.get("num_classes")):
        return []
    steps = range(d.rng.randint(0, 3))
    return [d.draw_from(EmbeddingStep, "VectorConfig.context_embedding") for _ in steps]


def _bound(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> Any:
    if kind.__name__.startswith(("Circular", "Periodic")):
        return [50.0]  # Nothing is drawn outside a circle.
    # Latents beyond a clip have no data.
    return d.rng.choice([12.0, 20.0] if kind.__name__ == "SoftClipLayer" else [1.0, 3.0])


def _scale(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> Any:
    if kind.__name__ == "SumOfSquaresConfig":
        return d.rng.choice([3.0, 10.0])
    return d.draw_from(annotation, f"{kind.__name__}.scale")


def _shift(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> Any:
    if kind.__name__ == "CircularShiftLayer":
        so_far["bound"] = [50.0]
        return [d.rng.choice([0.0, 0.7, 50.0])]
    return d.draw_from(annotation, f"{kind.__name__}.shift")


def _circular(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> Any:
    if kind.__name__ == "CircularSplineConfig":
        so_far["bound"] = [50.0]
        return d.rng.choice([None, [0]])
    if d.pixels or d.rng.random() < 0.7:
        return []
    # Angles are neither scaled nor mixed.
    plain = {"preprocessing": [], "actnorm": None, "permutation": "none", "linear": None}
    so_far.update(plain, batch_norm=None, final_mixing=False, base="normal")
    return sorted(d.rng.sample(range(d.features), d.rng.randint(1, d.features)))


def _end(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> list[float]:
    # Nothing is drawn outside the box.
    return [d.rng.choice([50.0, 100.0]) * (1 if "low" in so_far else -1)]


def _decoding(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> str:
    # An inverse that is searched for is not searched for inside another search.
    one = so_far.get("elementwise", {}).get("kind", "affine")
    words = get_args(_named(annotation))
    if kind.__name__ == "NSFConfig" and so_far.get("structure") != "autoregressive":
        return "sequential"
    return d.rng.choice(words) if one in ("additive", "affine", "spline") else "sequential"


def _frequencies(d: Drawer, kind: Any, annotation: Any, so_far: Any) -> int:
    so_far.setdefault("num_frequencies", 2 if so_far.get("time_input") == "fourier" else 0)
    return so_far["num_frequencies"]


# Name of an option -> how it is drawn, where that depends on what was drawn before.
_SHAPED: dict[str, Callable[[Drawer, Any, Any, Any], Any]] = {
    "bound": _bound,
    "context_embedding": _embedding,
    "decoding": _decoding,
    "event_shape": _event_shape,
    "preprocessing": _preprocessing,
    "num_levels": _scales,
    "num_scales": _scales,
    "widths": _widths,
    "hidden_features": _widths,
    "hidden_channels": _hidden_channels,
    "scale": _scale,
    "strides": _strides,
    "activation": _activation,
    "attention_factors": _attention_factors,
    "mask": lambda d, *_: d.mask(),
    "masks": _turns(Drawer.mask),
    "order": _order,
    "indices": _indices,
    "chosen": _chosen,
    "angles": lambda d, *_: [0],
    "circular": _circular,
    "shift": _shift,
    "low": _end,
    "high": _end,
    "layers": _layers,
    "coupling_types": _coupling_types,
    "passes": _passes,
    "width": _width,
    "dilations": _dilations,
    "context_features": _context,
    "num_classes": _classes,
    "num_frequencies": _frequencies,
}
