"""Layers of flows over vectors (B, D): their description and how each is built."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from models.conditioners.dense import Dense, Wiring
from models.conditioners.masked import Masked
from models.families.circular import (
    CircularShiftLayer,
    CircularSplineConfig,
    build_circular_shift,
    build_circular_spline,
)
from models.families.config import (
    LARGEST,
    MOST_REPEATS,
    FamilyConfig,
    Index,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Repeats,
    UnitFloat,
)
from models.families.mixtures import (
    GaussianMixtureLayer,
    NormalMixtureConfig,
    build_gaussian_mixture,
    build_normal_mixture,
    start_at_first_params,
)
from models.families.nets import ConditionerConfig, HiddenWidths, MLPConfig, build_conditioner
from models.families.options import (
    ActNormStorage,
    AffineScale,
    Bound,
    Bounds,
    HiddenActivation,
    MapForm,
    MinBin,
    MinSlope,
    NegativeSlope,
    NumBins,
)
from models.monotone.gaussianization import Gaussianization
from models.monotone.network import MonotoneIntegral, MonotoneNetwork
from models.monotone.planar import Planar, PlanarActivation
from models.monotone.polynomial import Bernstein, SumOfSquares
from models.monotone.solver import Monotone
from models.transforms.actnorm import ActNorm
from models.transforms.affine import Scale
from models.transforms.autoregressive import MaskedAutoregressive, Swapped
from models.transforms.batchnorm import BatchNorm, NormScale, NormStatistics
from models.transforms.beta import BetaToNormal
from models.transforms.coupling import Coupling
from models.transforms.elementwise import MIN_SCALE, Additive, Affine, Elementwise
from models.transforms.jacobi import Decoding
from models.transforms.linear import (
    Diagonal,
    HouseholderLinear,
    InvertibleLinear,
    LULinear,
    PlainLinear,
    QRLinear,
    SVDLinear,
)
from models.transforms.logistic import LogisticToNormal
from models.transforms.permute import Permute, reverse, shuffle
from models.transforms.pointwise import Pointwise
from models.transforms.radial import Radial
from models.transforms.softclip import SoftClip
from models.transforms.spline import RationalQuadratic
from models.transforms.split import GaussianPrior
from models.transforms.transform import Transform
from models.transforms.uniform import UniformToNormal

Mask = tuple[Literal[0, 1], ...]
Order = tuple[Index, ...]
# A single unit is bounded on one side, and then latents beyond have no data.
TwoWayWidths = Annotated[
    tuple[Annotated[int, Field(ge=2, le=LARGEST)], ...],
    Field(min_length=1, max_length=MOST_REPEATS),
]
Ends = Annotated[
    tuple[Annotated[float, Field(allow_inf_nan=False)], ...],
    Field(
        min_length=1,
        description="Ends of the intervals, one number for all chosen features or one each.",
    ),
]


class AdditiveConfig(FamilyConfig):
    """y = x + t."""

    kind: Literal["additive"] = "additive"


class AffineConfig(FamilyConfig):
    """y = x s + t and its variants."""

    kind: Literal["affine"] = "affine"
    scale: AffineScale = "exp"
    form: MapForm = "scale_then_shift"
    centred: bool = Field(
        False,
        description="Take the mean of log s over the features away: the volume is kept (GIN). Not "
        "in autoregressive maps.",
    )


class SplineConfig(FamilyConfig):
    """A monotone rational-quadratic spline."""

    kind: Literal["spline"] = "spline"
    num_bins: NumBins = 8
    bound: Bound = 3.0
    bounds: Bounds = "floor"
    min_bin: MinBin = MIN_SCALE
    min_slope: MinSlope = MIN_SCALE
    divisor: PositiveFloat = Field(1.0, description="Of raw widths and heights of bins.")


class SumOfSquaresConfig(FamilyConfig):
    """The integral of a mean of squared polynomials; its inverse is solved for."""

    kind: Literal["sum_of_squares"] = "sum_of_squares"
    degree: Repeats = Field(4, description="Of the polynomials that are squared.")
    polynomials: Repeats = Field(3, description="How many.")
    min_slope: MinSlope = MIN_SCALE
    scale: PositiveFloat = Field(10.0, description="What the argument is divided by.")


class BernsteinConfig(FamilyConfig):
    """A Bernstein polynomial on an interval, a line outside; its inverse is solved for."""

    kind: Literal["bernstein"] = "bernstein"
    degree: Repeats = Field(16, description="Free coefficients, less one.")
    bound: Bound = 5.0


class GaussianizationConfig(FamilyConfig):
    """A mixture of normals becomes a normal; the inverse is solved for."""

    kind: Literal["gaussianization"] = "gaussianization"
    components: Repeats = Field(8, description="Of the mixture.")
    margin: UnitFloat = Field(
        0.0,
        description="Probabilities are squeezed to [margin / 2, 1 - margin / 2] (zuko: 1e-6); with "
        "0 every latent has its x.",
    )


class MonotoneNetworkConfig(FamilyConfig):
    """A network with positive weights for every feature; its inverse is solved for."""

    kind: Literal["monotone_network"] = "monotone_network"
    signal: PositiveInt = Field(16, description="Numbers that the conditioner gives a feature.")
    widths: TwoWayWidths = Field(
        (64, 64),
        description="Of the networks' hidden layers, 2 or more: one half of the units goes on "
        "upwards, the other downwards.",
    )


class MonotoneIntegralConfig(FamilyConfig):
    """The integral of a positive network for every feature; its inverse is solved for."""

    kind: Literal["monotone_integral"] = "monotone_integral"
    signal: PositiveInt = Field(16, description="Numbers that the conditioner gives a feature.")
    widths: HiddenWidths = Field((64, 64), description="Of the networks' hidden layers.")
    activation: HiddenActivation = "elu"


ElementwiseConfig = Annotated[
    AdditiveConfig
    | AffineConfig
    | SplineConfig
    | CircularSplineConfig
    | SumOfSquaresConfig
    | BernsteinConfig
    | GaussianizationConfig
    | MonotoneNetworkConfig
    | MonotoneIntegralConfig
    | NormalMixtureConfig,
    Field(discriminator="kind"),
]
# Arguments of layers.
ElementwiseMap = Annotated[ElementwiseConfig, Field(description="The map of each moving feature.")]
OnePass = Annotated[
    Literal["encode", "decode"],
    Field(
        description="The direction that takes one pass of the network; decode makes it an IAF, "
        "fast to sample and slow to score."
    ),
]
Formula = Annotated[
    Literal["encode", "decode"],
    Field(
        description="The direction in which the formula holds; the other one is its inverse. "
        "encode: from data to latents; decode: from latents to data (Rezende & Mohamed, normflows)."
    ),
]
Bend = Annotated[
    PlanarActivation, Field(description="h. The inverse of tanh is solved for, at about 8 steps.")
]
DecodingOption = Annotated[
    Decoding,
    Field(
        description="How the direction that takes many passes of the network is computed. "
        "sequential: feature by feature, when served with no more of the network than each needs; "
        "jacobi: all at once, again until nothing changes (Song et al. 2021): fewer passes, and "
        "answers can say how many; passes: D whole passes, the same bits as jacobi."
    ),
]


class CouplingLayer(FamilyConfig):
    """Features with mask 1 are kept and say how the others move."""

    kind: Literal["coupling"] = "coupling"
    mask: Mask = Field(description="One number a feature; some of each.")
    elementwise: ElementwiseMap = AffineConfig()
    conditioner: ConditionerConfig = Field(
        MLPConfig(), description="The network from kept features to the map's parameters."
    )


class AutoregressiveLayer(FamilyConfig):
    """Every feature moves as those of smaller order say."""

    kind: Literal["autoregressive"] = "autoregressive"
    order: Order = Field(
        description="One place a feature, from 0; features that share one do not see each other."
    )
    one_pass: OnePass = "encode"
    elementwise: ElementwiseMap = AffineConfig()
    decoding: DecodingOption = "sequential"
    conditioner: ConditionerConfig = Field(
        MLPConfig(), description="The masked network that gives the map's parameters."
    )


class PointwiseLayer(FamilyConfig):
    """Chosen features go through scalar maps with parameters of their own."""

    kind: Literal["pointwise"] = "pointwise"
    chosen: tuple[Index, ...] = Field(description="Which features, from 0.")
    elementwise: ElementwiseMap = AffineConfig()


class PlanarLayer(FamilyConfig):
    """y = x + u h(w x + b): space moves along u, by a bend across one hyperplane."""

    kind: Literal["planar"] = "planar"
    activation: Bend = "tanh"
    negative_slope: NegativeSlope = 0.01
    formula: Formula = "encode"


class RadialLayer(FamilyConfig):
    """y = x + beta (x - c) / (a + |x - c|): space is drawn towards a point, or pushed away."""

    kind: Literal["radial"] = "radial"
    formula: Formula = "encode"


class PermuteLayer(FamilyConfig):
    """Features change places."""

    kind: Literal["permute"] = "permute"
    indices: Literal["reverse", "shuffle"] | tuple[Index, ...] = Field(
        "reverse",
        description="Which feature comes where; shuffle is drawn once and saved with the weights.",
    )


class LinearLayer(FamilyConfig):
    """y = W x [+ b], with W invertible.

    See `PlainLinear`, `LULinear`, `QRLinear`, `SVDLinear` and `HouseholderLinear`.
    """

    kind: Literal["linear"] = "linear"
    matrix: Literal["plain", "lu", "qr", "svd", "householder"] = Field(
        "lu",
        description="W itself; as L U (with P, see `diagonal`); as Q R; as Q diag(d) P; or Q alone "
        "(Q and P: products of Householder reflections).",
    )
    diagonal: Diagonal = Field(
        "softplus",
        description="Of lu and svd: softplus or exp of what is trained. lu starts at the identity "
        "with softplus (nflows), at a random rotation, with a permutation P, with exp (Glow).",
    )
    num_reflections: Repeats | None = Field(
        None, description="In each product of qr, svd and householder; null: one a feature."
    )
    bias: bool = Field(True, description="Whether b is added.")


class ActNormLayer(FamilyConfig):
    """A scale and shift a feature, first set from data, then trained."""

    kind: Literal["actnorm"] = "actnorm"
    form: MapForm = "shift_then_scale"
    storage: ActNormStorage = "log"


class BatchNormLayer(FamilyConfig):
    """Batch normalisation, a fixed affine map when serving."""

    kind: Literal["batch_norm"] = "batch_norm"
    scale: NormScale = Field(
        "exp", description="How the weight w makes the scale: e^w, or log(1 + e^w) + eps (nflows)."
    )
    eps: NonNegativeFloat = Field(1e-5, description="Added to the variance.")
    momentum: float = Field(
        0.1, ge=0, le=1, description="Weight of a new batch in the running statistics."
    )
    statistics: NormStatistics = Field(
        "batch", description="Used in training: those of the batch (RealNVP), or running (FFJORD)."
    )


class ScaleLayer(FamilyConfig):
    """y = exp(s) x, with one s a feature."""

    kind: Literal["scale"] = "scale"


class GaussianLayer(FamilyConfig):
    """A learned Gaussian base, one mean and deviation a feature."""

    kind: Literal["gaussian"] = "gaussian"
    conditional: bool = Field(False, description="They depend on the context.")


class SoftClipLayer(FamilyConfig):
    """y = x / (1 + |x / bound|)."""

    kind: Literal["soft_clip"] = "soft_clip"
    bound: PositiveFloat = Field(11.0, description="What |y| stays below.")


class LogisticLayer(FamilyConfig):
    """A standard logistic base."""

    kind: Literal["logistic"] = "logistic"


class UniformLayer(FamilyConfig):
    """A uniform base for some features; the others keep theirs."""

    kind: Literal["uniform"] = "uniform"
    chosen: tuple[Index, ...] = Field(description="Which features, from 0.")
    low: Ends = (-1.0,)
    high: Ends = (1.0,)


class BetaLayer(FamilyConfig):
    """A symmetric beta base for some features; the others keep theirs."""

    kind: Literal["beta"] = "beta"
    chosen: tuple[Index, ...] = Field(description="Which features, from 0.")
    low: Ends = (-1.0,)
    high: Ends = (1.0,)
    exponent: int = Field(13, ge=1, le=64, description="Both exponents; 1 is a uniform base.")


Layer = Annotated[
    CouplingLayer
    | AutoregressiveLayer
    | PointwiseLayer
    | PlanarLayer
    | RadialLayer
    | PermuteLayer
    | LinearLayer
    | ActNormLayer
    | BatchNormLayer
    | ScaleLayer
    | SoftClipLayer
    | GaussianLayer
    | GaussianMixtureLayer
    | LogisticLayer
    | CircularShiftLayer
    | UniformLayer
    | BetaLayer,
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
        case PlanarLayer():
            slope = layer.negative_slope
            planar = Planar(features, layer.activation, negative_slope=slope)
            return _in_direction(planar, layer.formula)
        case RadialLayer():
            return _in_direction(Radial(features), layer.formula)
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
        case SoftClipLayer():
            return SoftClip(layer.bound)
        case GaussianLayer():
            if layer.conditional and not context_features:
                raise ValueError("gaussian: conditional needs context_features or num_classes")
            conditioned_on = context_features if layer.conditional else None
            return GaussianPrior((features,), context_features=conditioned_on)
        case GaussianMixtureLayer():
            return build_gaussian_mixture(layer, features, context_features)
        case LogisticLayer():
            return LogisticToNormal()
        case CircularShiftLayer():
            return build_circular_shift(layer, features)
        case UniformLayer():
            return UniformToNormal(features, layer.chosen, layer.low, layer.high)
        case BetaLayer():
            return BetaToNormal(
                features, layer.chosen, layer.low, layer.high, exponent=layer.exponent
            )


def build_elementwise(config: ElementwiseConfig, features: int) -> Elementwise:
    """Build a scalar map for that many features."""
    match config:
        case AdditiveConfig():
            return Additive()
        case AffineConfig():
            shape = (features,)
            return Affine(config.scale, config.form, weight_shape=shape, centred=config.centred)
        case SplineConfig():
            return RationalQuadratic(
                config.num_bins,
                config.bound,
                config.bounds,
                min_bin=config.min_bin,
                min_slope=config.min_slope,
                divisor=config.divisor,
            )
        case CircularSplineConfig():
            return build_circular_spline(config, features)
        case SumOfSquaresConfig():
            return SumOfSquares(
                config.degree,
                config.polynomials,
                min_slope=config.min_slope,
                scale=config.scale,
            )
        case BernsteinConfig():
            return Bernstein(config.degree, bound=config.bound)
        case GaussianizationConfig():
            return Gaussianization(config.components, margin=config.margin)
        case MonotoneNetworkConfig():
            return MonotoneNetwork(features, config.signal, config.widths)
        case MonotoneIntegralConfig():
            return MonotoneIntegral(features, config.signal, config.widths, config.activation)
        case NormalMixtureConfig():
            return build_normal_mixture(config)


def _coupling(layer: CouplingLayer, features: int, context_features: int) -> Transform:
    _check_length("mask", len(layer.mask), features)
    kept = sum(layer.mask)
    if kept in (0, features):
        raise ValueError(f"mask: expected some ones and some zeros, got {list(layer.mask)}")
    elementwise = build_elementwise(layer.elementwise, features - kept)

    def wire(num_params: int) -> Wiring:
        return Dense(kept, num_params * (features - kept), context_features)

    conditioner = build_conditioner(layer.conditioner, wire, elementwise.num_params)
    start_at_first_params(conditioner, elementwise)
    return Coupling(layer.mask, conditioner, elementwise)


def _autoregressive(layer: AutoregressiveLayer, features: int, context_features: int) -> Transform:
    _check_length("order", len(layer.order), features)
    if isinstance(layer.elementwise, AffineConfig) and layer.elementwise.centred:
        raise ValueError(
            "centred: expected false in an autoregressive map, got true: the scale of every "
            "feature would depend on later ones; take a coupling"
        )
    elementwise = build_elementwise(layer.elementwise, features)
    wire = partial(Masked, layer.order, context_features=context_features)
    conditioner = build_conditioner(layer.conditioner, wire, elementwise.num_params)
    start_at_first_params(conditioner, elementwise)
    if layer.decoding != "sequential" and isinstance(elementwise, Monotone):
        raise ValueError(
            f"decoding: expected sequential for {layer.elementwise.kind} maps, got "
            f"{layer.decoding}: their inverse is itself searched for, one search in another"
        )
    transform = MaskedAutoregressive(layer.order, conditioner, elementwise, decoding=layer.decoding)
    return _in_direction(transform, layer.one_pass)


def _in_direction(transform: Transform, direction: Literal["encode", "decode"]) -> Transform:
    return transform if direction == "encode" else Swapped(transform)


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
        "qr": lambda: QRLinear(features, layer.num_reflections, bias=layer.bias),
        "svd": lambda: SVDLinear(features, layer.num_reflections, layer.diagonal, bias=layer.bias),
        "householder": lambda: HouseholderLinear(features, layer.num_reflections, bias=layer.bias),
    }
    return makers[layer.matrix]()


def _check_length(name: str, got: int, features: int) -> None:
    if got != features:
        raise ValueError(f"{name}: expected one entry a feature, {features}, got {got}")
