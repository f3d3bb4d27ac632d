"""Networks over the context as libraries save them, in the notation that torch prints.

A state dict shows the linear layers and the places between them, not what stands there: that comes
as text, `Sequential(Linear(7, 16), Tanh(), Linear(16, 4))` or as `print(module)` has it, and is
compared with the weights, place by place. sbi's `FCEmbedding(input_dim=7, ...)` is one too.
"""

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from models.importers.layouts.networks import ActivationName, Linear
from models.importers.report import ImportRefused
from models.importers.source import Fragment, numbered
from models.importers.weights import Weights

FIELD = "embedding_net"

# As torch prints places of a Sequential: "(0): ", "(net): ".
_PLACE = re.compile(r"\((\w+)\): ")
# Modules that do nothing outside training, or nothing to a flat context.
_IDLE = ("Identity", "Dropout", "AlphaDropout", "Flatten")
_ACTIVATION: TypeAdapter[Any] = TypeAdapter(ActivationName)
# The one argument that changes what an activation computes, and the value that is expected.
_FIXED = {"elu": ("alpha", 1.0), "gelu": ("approximate", "none"), "softplus": ("beta", 1.0)}
_LAYER_NORM_EPS = 1e-5
_BATCH_NORM_EPS = 1e-5


@dataclass(frozen=True, slots=True)
class Embedding:
    """A network over the context as `context_embedding` of a family, with its weights.

    Attributes:
        steps: its description.
        state: its state dict.
    """

    steps: list[dict[str, Any]] = field(default_factory=list)
    state: Fragment = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Module:
    """A module in the notation: its class and its arguments."""

    name: str
    arguments: tuple[Any, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()

    def get(self, name: str, place: int, default: Any = None) -> Any:
        """An argument by its name or by its place."""
        options = dict(self.options)
        if name in options:
            return options[name]
        return self.arguments[place] if len(self.arguments) > place else default


def context_features(weights: Weights, prefix: str, embedded: int) -> int:
    """Length of the context that users give.

    Args:
        weights: of the source.
        prefix: of the network's keys, with its dot.
        embedded: length of what the layers take.
    """
    linears = _linears(weights, prefix)
    if linears:
        return weights.shape(f"{linears[0]}.weight")[1]
    means = [key for key in weights.under(prefix) if key.endswith("_mean")]
    return next((shape[0] for key in means if (shape := weights.shape(key))), embedded)


def has_gaps(weights: Weights, prefix: str) -> bool:
    """Whether the network may hold modules that its tensors do not show."""
    inner = _behind_standardise(weights, prefix).rstrip(".")
    return any(name != inner for name in _linears(weights, prefix))


def fitting(weights: Weights, prefix: str) -> str:
    """What may be given for a network with gaps: its linear layers, with `...` where a module is.

    Raises:
        ImportRefused: if it has tensors that are no linear layers or norms.
    """
    _refuse_others(weights, prefix)
    places = []
    for name in _linears(weights, prefix):
        outputs, inputs = weights.shape(f"{name}.weight")
        places.append(f"Linear({inputs}, {outputs})")
    shown = ", ..., ".join(places)
    return (
        f"the network over the context as torch prints it, Sequential({shown}, ...) with what "
        "stands at each ..., such as ReLU(), or at the end nothing; or sbi's FCEmbedding("
        "input_dim=..., output_dim=..., num_layers=..., num_hiddens=...)"
    )


def convert(weights: Weights, prefix: str, text: str | None, features: int) -> Embedding:
    """Take the network's tensors, and join them with what its description says.

    Args:
        weights: of the source.
        prefix: of its keys, with its dot.
        text: in the notation; None where the tensors leave nothing open.
        features: length of the context.

    Raises:
        ImportRefused: if the text cannot be read, or is another network than the weights.
    """
    found: list[tuple[dict[str, Any], Fragment]] = []
    inner = _behind_standardise(weights, prefix)
    if inner != prefix:
        found.append(_standardise(weights, f"{prefix}0.", features))
    if text is not None:
        module = _parse(text)
        if inner != prefix and _is_standardised(module):
            module = module.arguments[1]
        found += _Reader(weights).read(module, inner.rstrip("."), features)
    else:
        found += [_linear(weights, name) for name in _linears(weights, inner)]
    return Embedding([step for step, _ in found], numbered(state for _, state in found))


class _Reader:
    """Walks through a description and takes the tensors at every place."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def read(
        self, module: _Module, name: str, features: int
    ) -> list[tuple[dict[str, Any], Fragment]]:
        """Steps of a module whose keys begin with a name, for inputs of that many features."""
        makers: dict[str, Callable[[_Module, str, int], tuple[dict[str, Any], Fragment]]] = {
            "Linear": self._linear,
            "LayerNorm": self._layer_norm,
            "BatchNorm1d": self._batch_norm,
        }
        if module.name in _IDLE:
            return []
        if module.name in makers:
            return [makers[module.name](module, name, features)]
        if module.name == "Sequential":
            return self._sequence(module.arguments, name, features)
        if module.name == "FCEmbedding":
            printed = module.get("net", 0)
            if isinstance(printed, _Module):
                return self.read(printed, f"{name}.net", features)
            return self._sequence(_fc_embedding(module), f"{name}.net", features)
        return [(_activation(module), {})]

    def _sequence(
        self, modules: Sequence[Any], name: str, features: int
    ) -> list[tuple[dict[str, Any], Fragment]]:
        found: list[tuple[dict[str, Any], Fragment]] = []
        for place, module in enumerate(modules):
            if not isinstance(module, _Module):
                raise _unreadable(f"{module!r} is no module")
            for step, state in self.read(module, f"{name}.{place}", features):
                features = step.get("width", features)
                found.append((step, state))
        return found

    def _linear(self, module: _Module, name: str, features: int) -> tuple[dict[str, Any], Fragment]:
        given = (module.get("out_features", 1), module.get("in_features", 0))
        key = f"{name}.weight"
        if key not in self._weights:
            raise ImportRefused(
                f"{FIELD}: Linear{given[::-1]} was given, and the checkpoint has no {key}; correct "
                "the description"
            )
        shape = self._weights.shape(key)
        if None not in given and given != shape:
            raise ImportRefused(
                f"{FIELD}: Linear{given[::-1]} was given, but {key} has shape {shape}: "
                f"Linear{shape[::-1]}; correct the description"
            )
        return _linear(self._weights, name)

    def _layer_norm(
        self, module: _Module, name: str, features: int
    ) -> tuple[dict[str, Any], Fragment]:
        state = {
            part: self._weights.take(f"{name}.{part}", features) for part in ("weight", "bias")
        }
        eps = module.get("eps", 1, _LAYER_NORM_EPS)
        return {"kind": "layer_norm", "eps": float(eps)}, state

    def _batch_norm(
        self, module: _Module, name: str, features: int
    ) -> tuple[dict[str, Any], Fragment]:
        """With the running statistics it was saved with: a diagonal matrix and a bias."""
        self._weights.skip(re.escape(f"{name}.num_batches_tracked"), "a counter")
        mean, variance = (
            self._weights.take(f"{name}.running_{part}", features) for part in ("mean", "var")
        )
        weight, bias = (
            self._weights.take(f"{name}.{part}", features) for part in ("weight", "bias")
        )
        scale = weight / (variance + float(module.get("eps", 1, _BATCH_NORM_EPS))).sqrt()
        state = {"weight": scale.diag(), "bias": bias - mean * scale}
        return {"kind": "linear", "width": features}, state


def _parse(text: str) -> _Module:
    """Read the notation: torch's own, over several lines, or one call.

    Raises:
        ImportRefused: if it is no such text.
    """
    lines = [line.strip() for line in text.strip().splitlines()]
    joined = "".join(
        line
        if line.endswith("(") or index + 1 == len(lines) or lines[index + 1].startswith(")")
        else f"{line}, "
        for index, line in enumerate(lines)
    )
    try:
        tree = ast.parse(_PLACE.sub(_as_argument, joined), mode="eval").body
        return _as_module(tree)
    except (SyntaxError, ValueError, RecursionError):
        raise _unreadable(f"got {text[:60]!r}") from None


def _as_argument(place: re.Match[str]) -> str:
    return "" if place[1].isdigit() else f"{place[1]}="


def _as_module(node: ast.expr) -> _Module:
    if isinstance(node, ast.Name):
        return _Module(node.id)
    if isinstance(node, ast.Attribute):
        return _Module(node.attr)
    if not isinstance(node, ast.Call):
        raise _unreadable(f"expected modules, got {ast.unparse(node)[:40]!r}")
    arguments = tuple(_value(argument) for argument in node.args)
    options = tuple((str(option.arg), _value(option.value)) for option in node.keywords)
    return _Module(_as_module(node.func).name, arguments, options)


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name | ast.Attribute | ast.Call):
        return _as_module(node)
    return ast.literal_eval(node)


def _behind_standardise(weights: Weights, prefix: str) -> str:
    return f"{prefix}1." if f"{prefix}0._mean" in weights else prefix


def _is_standardised(module: _Module) -> bool:
    """Whether the description has sbi's own first step, Standardize, in it."""
    first = module.arguments[0] if module.arguments else None
    return (
        module.name == "Sequential"
        and len(module.arguments) == 2
        and isinstance(first, _Module)
        and first.name == "Standardize"
    )


def _fc_embedding(module: _Module) -> list[_Module]:
    """The layers of sbi's FCEmbedding: an activation behind the last of them too."""
    sizes = [module.get(name, place) for place, name in enumerate(("input_dim", "output_dim"))]
    inputs, outputs = sizes[0], 20 if sizes[1] is None else sizes[1]
    layers = module.get("num_layers", 2, 2)
    width = module.get("num_hiddens", 3, 50)
    if not all(isinstance(size, int) and size > 0 for size in (inputs, outputs, layers, width)):
        raise _unreadable("FCEmbedding takes input_dim, output_dim, num_layers and num_hiddens")
    norm = "LayerNorm" if module.get("enable_layer_norm", 4, False) else "Identity"
    activation = module.get("activation", 5, _Module("ReLU"))
    if not isinstance(activation, _Module):
        activation = _Module(str(activation))
    found: list[_Module] = []
    for before in [inputs, *[width] * (layers - 2)]:
        found += [_Module("Linear", (before, width)), _Module(norm, (width,)), activation]
    return [*found, _Module("Linear", (width, outputs)), activation]


def _activation(module: _Module) -> dict[str, Any]:
    try:
        name = _ACTIVATION.validate_python(module.name)
    except ValidationError:
        raise _unreadable(f"{module.name} is not known") from None
    step: dict[str, Any] = {"kind": "activation", "name": name}
    if name == "leaky_relu":
        step["negative_slope"] = float(module.get("negative_slope", 0, 0.01))
    if name in _FIXED:
        argument, wanted = _FIXED[name]
        given = module.get(argument, 0, wanted)
        if given != wanted:
            raise _unreadable(f"{module.name}: {argument} can only be {wanted!r}, got {given!r}")
    return step


def _standardise(weights: Weights, name: str, features: int) -> tuple[dict[str, Any], Fragment]:
    """Standardise of sbi, whose numbers may be one for all features."""
    mean, std = (
        weights.take(key, *weights.shape(key)).expand(features).clone()
        for key in (f"{name}_mean", f"{name}_std")
    )
    return {"kind": "standardise"}, {"mean": mean, "std": std}


def _linear(weights: Weights, name: str) -> tuple[dict[str, Any], Fragment]:
    outputs, inputs = weights.shape(f"{name}.weight")
    weight = weights.take(f"{name}.weight", outputs, inputs)
    step = {"kind": "linear", "width": outputs}
    if f"{name}.bias" not in weights:
        return {**step, "bias": False}, {"weight": weight}
    return step, Linear(weight, weights.take(f"{name}.bias", outputs)).state


def _linears(weights: Weights, prefix: str) -> list[str]:
    """Names of the linear layers, in the order of the file."""
    keys = [key for key in weights.under(prefix) if key.endswith("weight")]
    return [key.removesuffix(".weight") for key in keys if len(weights.shape(key)) == 2]


def _refuse_others(weights: Weights, prefix: str) -> None:
    wrong = [key for key in weights.under(prefix) if len(_shape(weights.peek(key))) > 2]
    if wrong:
        raise ImportRefused(
            f"{wrong[0]}: the network over the context is no stack of linear layers, as a "
            "convolution, a recurrent or a transformer network is not: it cannot be imported; save "
            "the flow without it and send what it makes of a context as the context"
        )


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _unreadable(reason: str) -> ImportRefused:
    return ImportRefused(
        f"{FIELD}: {reason}; expected a network as torch prints it, of Linear, LayerNorm, "
        "BatchNorm1d, activations, Dropout, Identity and Sequential, such as Sequential(Linear(7, "
        "16), Tanh(), Linear(16, 4)), or sbi's FCEmbedding(input_dim=7)"
    )
