"""Layers of flows over vectors (B, D): their description and how each is built."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from models.conditioners.dense import Dense, Wiring
from models.conditioners.masked import Masked
from models.families.config import LARGEST, FamilyConfig, PositiveFloat, PositiveInt
from models.families.nets import ConditionerConfig, MLPConfig, build_conditioner
from models.transforms.actnorm import ActNorm, ScaleStorage
from models.transforms.affine import Scale
from models.transforms.autoregressive import MaskedAutoregressive, Swapped
from models.transforms.batchnorm import BatchNorm, NormScale, NormStatistics
from models.transforms.coupling import Coupling
from models.transforms.elementwise import (
    MIN_SCALE,
    Additive,
    Affine,
    AffineForm,
    Elementwise,
    ScaleFunction,
)
from models.transforms.linear import Diagonal, InvertibleLinear, LULinear, PlainLinear, QRLinear
from models.transforms.logistic import LogisticToNormal
from models.transforms.permute import Permute, reverse, shuffle
from models.transforms.pointwise import Pointwise
from models.transforms.spline import RationalQuadratic, SplineBounds
from models.transforms.split import GaussianPrior
from models.transforms.transform import Transform

Index = Annotated[int, Field(ge=0, le=LARGEST)]
Mask = tuple[Literal[0, 1], ...]
Order = tuple[Index, ...]


class AdditiveConfig(FamilyConfig):
    """y = x + t; see `Additive`."""

    kind: Literal["additive"] = "additive"


class AffineConfig(FamilyConfig):
    """y = x s + t and its variants; see `Affine`."""

    kind: Literal["affine"] = "affine"
    scale: ScaleFunction = "exp"
    form: AffineForm = "scale_then_shift"


class SplineConfig(FamilyConfig):
    """A rational-quadratic spline; see `RationalQuadratic`."""

    kind: Literal["spline"] = "spline"
    num_bins: PositiveInt = 8
    bound: PositiveFloat = 3.0
    bounds: SplineBounds = "floor"
    min_bin: PositiveFloat = MIN_SCALE
    min_slope: PositiveFloat = MIN_SCALE
    divisor: PositiveFloat = 1.0


ElementwiseConfig = Annotated[
    AdditiveConfig | AffineConfig | SplineConfig, Field(discriminator="kind")
]


class CouplingLayer(FamilyConfig):
    """Features with mask 1 are kept and say how the others move; see `Coupling`."""

    kind: Literal["coupling"] = "coupling"
    mask: Mask
    elementwise: ElementwiseConfig = AffineConfig()
    conditioner: ConditionerConfig = MLPConfig()


class AutoregressiveLayer(FamilyConfig):
    """Every feature moves as those of smaller order say; see `MaskedAutoregressive`.

    `one_pass` names the direction that takes one pass of the network: "encode" (MAF) or "decode"
    (IAF: the scalar map then goes from latents to data).
    """

    kind: Literal["autoregressive"] = "autoregressive"
    order: Order
    one_pass: Literal["encode", "decode"] = "encode"
    elementwise: ElementwiseConfig = AffineConfig()
    conditioner: ConditionerConfig = MLPConfig()


class PointwiseLayer(FamilyConfig):
    """Chosen features go through scalar maps with parameters of their own; see `Pointwise`."""

    kind: Literal["pointwise"] = "pointwise"
    chosen: tuple[Index, ...]
    elementwise: ElementwiseConfig = AffineConfig()


class PermuteLayer(FamilyConfig):
    """Features change places; "shuffle" is drawn once and saved with the weights."""

    kind: Literal["permute"] = "permute"
    indices: Literal["reverse", "shuffle"] | tuple[Index, ...] = "reverse"


class LinearLayer(FamilyConfig):
    """y = W x [+ b]; see `PlainLinear`, `LULinear` (with its `diagonal`) and `QRLinear`."""

    kind: Literal["linear"] = "linear"
    matrix: Literal["plain", "lu", "qr"] = "lu"
    diagonal: Diagonal = "softplus"
    bias: bool = True


class ActNormLayer(FamilyConfig):
    """A scale and shift a feature, first set from data; see `ActNorm`."""

    kind: Literal["actnorm"] = "actnorm"
    form: AffineForm = "shift_then_scale"
    storage: ScaleStorage = "log"


class BatchNormLayer(FamilyConfig):
    """Batch normalisation, a fixed affine map when serving; see `BatchNorm`."""

    kind: Literal["batch_norm"] = "batch_norm"
    scale: NormScale = "exp"
    eps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-5
    momentum: Annotated[float, Field(ge=0, le=1)] = 0.1
    statistics: NormStatistics = "batch"


class ScaleLayer(FamilyConfig):
    """y = exp(s) x; see `Scale`."""

    kind: Literal["scale"] = "scale"


class GaussianLayer(FamilyConfig):
    """A learned Gaussian base, one mean and deviation a feature; see `GaussianPrior`."""

    kind: Literal["gaussian"] = "gaussian"
    conditional: bool = False


class LogisticLayer(FamilyConfig):
    """A standard logistic base; see `LogisticToNormal`."""

    kind: Literal["logistic"] = "logistic"


Layer = Annotated[
    CouplingLayer
    | AutoregressiveLayer
    | PointwiseLayer
    | PermuteLayer
    | LinearLayer
    | ActNormLayer
    | BatchNormLayer
    | ScaleLayer
    | GaussianLayer
    | LogisticLayer,
    Field(discriminator="kind"),
]


def build_layer(layer: Layer, features: int, context_features: int) -> Transform:
    """Build one layer of a flow over D features, with a context vector or none (0).

    Raises:
        ValueError: if the layer does not fit D, or needs a context where there is none.
    """
    match layer:
        case CouplingLayer():
            return _coupling(layer, features, context_features)
        case AutoregressiveLayer():
            return _autoregressive(layer, features, context_features)
        case PointwiseLayer():
            elementwise = build_elementwise(layer.elementwise, len(layer.chosen))
            return Pointwise(features, layer.chosen, elementwise)
        case PermuteLayer():
            return _permute(layer, features)
        case LinearLayer():
            return _linear(layer, features)
        case ActNormLayer():
            return ActNorm(features, layer.form, layer.storage)
        case BatchNormLayer():
            return BatchNorm(
                features,
                layer.scale,
                eps=layer.eps,
                momentum=layer.momentum,
                statistics=layer.statistics,
            )
        case ScaleLayer():
            return Scale(features)
        case GaussianLayer():
            if layer.conditional and not context_features:
                raise ValueError("gaussian: conditional needs context_features or num_classes")
            conditioned_on = context_features if layer.conditional else None
            return GaussianPrior((features,), context_features=conditioned_on)
        case LogisticLayer():
            return LogisticToNormal()


def build_elementwise(config: ElementwiseConfig, features: int) -> Elementwise:
    """Build a scalar map for that many features."""
    match config:
        case AdditiveConfig():
            return Additive()
        case AffineConfig():
            return Affine(config.scale, config.form, weight_shape=(features,))
        case SplineConfig():
            return RationalQuadratic(
                config.num_bins,
                config.bound,
                config.bounds,
                min_bin=config.min_bin,
                min_slope=config.min_slope,
                divisor=config.divisor,
            )


def _coupling(layer: CouplingLayer, features: int, context_features: int) -> Transform:
    _check_length("mask", len(layer.mask), features)
    kept = sum(layer.mask)
    if kept in (0, features):
        raise ValueError(f"mask: expected some ones and some zeros, got {list(layer.mask)}")
    elementwise = build_elementwise(layer.elementwise, features - kept)

    def wire(num_params: int) -> Wiring:
        return Dense(kept, num_params * (features - kept), context_features)

    conditioner = build_conditioner(layer.conditioner, wire, elementwise.num_params)
    return Coupling(layer.mask, conditioner, elementwise)


def _autoregressive(layer: AutoregressiveLayer, features: int, context_features: int) -> Transform:
    _check_length("order", len(layer.order), features)
    elementwise = build_elementwise(layer.elementwise, features)
    wire = partial(Masked, layer.order, context_features=context_features)
    conditioner = build_conditioner(layer.conditioner, wire, elementwise.num_params)
    transform = MaskedAutoregressive(layer.order, conditioner, elementwise)
    return transform if layer.one_pass == "encode" else Swapped(transform)


_PERMUTATIONS: dict[str, Callable[[int], Permute]] = {"reverse": reverse, "shuffle": shuffle}


def _permute(layer: PermuteLayer, features: int) -> Transform:
    if isinstance(layer.indices, str):
        return _PERMUTATIONS[layer.indices](features)
    _check_length("indices", len(layer.indices), features)
    return Permute(layer.indices)


def _linear(layer: LinearLayer, features: int) -> Transform:
    makers: dict[str, Callable[[], InvertibleLinear]] = {
        "plain": lambda: PlainLinear(features, bias=layer.bias),
        "lu": lambda: LULinear(features, layer.diagonal, bias=layer.bias),
        "qr": lambda: QRLinear(features, bias=layer.bias),
    }
    return makers[layer.matrix]()


def _check_length(name: str, got: int, features: int) -> None:
    if got != features:
        raise ValueError(f"{name}: expected one entry a feature, {features}, got {got}")
