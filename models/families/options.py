"""Arguments that several families take, each with what it means."""

from typing import Annotated

from pydantic import Field

from models.conditioners.activations import Activation
from models.families.config import NonNegativeFloat, PositiveFloat, PositiveInt, UnitFloat
from models.ode.fields.activations import Nonlinearity
from models.transforms.actnorm import ScaleStorage
from models.transforms.elementwise import AffineForm, ScaleFunction
from models.transforms.spline import SplineBounds
from models.transforms.split import LatentOrder

ImageShape = Annotated[
    tuple[PositiveInt, PositiveInt, PositiveInt],
    Field(description="Shape (C, H, W) of one image; training takes it from the data."),
]

# Of affine maps, see `Affine`.
AffineScale = Annotated[
    ScaleFunction,
    Field(
        description="What makes log s of the network's output a. exp: a; tanh: w tanh(a), w "
        "learned (RealNVP); atan: w atan(a) (FrEIA); sigmoid: log sigmoid(a + 2) (Glow); "
        "bounded_sigmoid: log(2 sigmoid(a)) (Jet); "
        "floored_sigmoid and floored_softplus: s above 1e-3 (nflows); soft_clamp: |log s| < 6.9 "
        "(zuko)."
    ),
]
MapForm = Annotated[
    AffineForm,
    Field(
        description="Of the map from data to latents. scale_then_shift: x s + t; "
        "shift_then_scale: (x + t) s; unshift_then_unscale: (x - t) / s."
    ),
]

# Of rational-quadratic splines, see `RationalQuadratic`.
NumBins = Annotated[PositiveInt, Field(description="Bins of a spline, 2 or more.")]
Bound = Annotated[
    PositiveFloat, Field(description="Splines bend on [-bound, bound]; outside is the identity.")
]
Bounds = Annotated[
    SplineBounds,
    Field(
        description="What keeps bins and slopes from zero. floor: a least size (nflows); "
        "soft_clamp: a bound on their logarithms (zuko)."
    ),
]
CircleBounds = Annotated[
    tuple[PositiveFloat, ...],
    Field(
        min_length=1,
        description="Circles are [-bound, bound], whose ends are one point: one number for all or "
        "one each.",
    ),
]
MinBin = Annotated[
    NonNegativeFloat,
    Field(description="Smallest width and height of a bin, relative to the whole."),
]
MinSlope = Annotated[NonNegativeFloat, Field(description="Smallest slope of a spline at a knot.")]

# Of dense networks.
HiddenActivation = Annotated[Activation, Field(description="Between the layers of the networks.")]
NegativeSlope = Annotated[UnitFloat, Field(description="Of leaky_relu, left of zero.")]

ActNormStorage = Annotated[
    ScaleStorage,
    Field(description="What is trained of an actnorm's scale. log: its logarithm; direct: itself."),
]
OrderOfLatents = Annotated[
    LatentOrder,
    Field(
        description="Of z. fine_first, coarse_first: the parts that are factored out, finest or "
        "coarsest first; image: every latent where its pixels were."
    ),
]
DynamicsNonlinearity = Annotated[
    Nonlinearity, Field(description="After every layer but the last of the network f.")
]
