"""NAF: monotone maps of any shape that are autoregressive, computed by masked networks."""

from typing import Annotated

from pydantic import Field

from models.families.about import About, Example
from models.families.chain import assemble
from models.families.config import PositiveFloat, Repeats
from models.families.costs import COSTS
from models.families.layers import (
    AutoregressiveLayer,
    BernsteinConfig,
    Layer,
    MonotoneIntegralConfig,
    MonotoneNetworkConfig,
    Order,
    SoftClipLayer,
    SumOfSquaresConfig,
)
from models.families.nets import MLPConfig, NetConfig
from models.families.stack import Orders, Passes, StackConfig, make_orders, stack
from models.flow import Flow

NAF = About(
    what="monotone networks or polynomials, each feature given those before it",
    data="tables of few columns",
    when="few layers should bend much, also where splines end; every sample is searched for",
    cost=COSTS["naf"],
    example=Example(
        data="two_moons",
        event_shape=(2,),
        arguments={
            "num_layers": 2,
            "map": {"kind": "monotone_network", "signal": 8, "widths": [16, 16]},
        },
    ),
)

MonotoneMap = Annotated[
    MonotoneNetworkConfig | MonotoneIntegralConfig | SumOfSquaresConfig | BernsteinConfig,
    Field(
        discriminator="kind",
        description="Of every feature. monotone_network: NAF; monotone_integral: UNAF (UMNN); "
        "sum_of_squares: SOS flows; bernstein: Bernstein flows.",
    ),
]


class NAFConfig(StackConfig):
    """z_i = f(x_i; h(x_<i)) with f monotone in x_i, `num_layers` times.

    Cost: encode takes one pass of every network and of its maps (33 points of the integrand for
    monotone_integral); decode D passes of every network, or `passes`, and in each a search of some
    ten to fifty evaluations of f, in float64.

    Reference: Huang et al. 2018 (arXiv 1804.00779); Wehenkel & Louppe 2019 (arXiv 1908.05164);
    Jaini et al. 2019 (arXiv 1905.02325); Ramasinghe et al. 2021 (arXiv 2102.03509).
    """

    num_layers: Repeats = Field(
        3, description="How many maps, each with its mixing and normalisation."
    )
    map: MonotoneMap = MonotoneNetworkConfig()
    soft_clip: PositiveFloat | None = Field(
        None,
        description="Bound |x| by this between two maps, x / (1 + |x / bound|) (zuko: 11): "
        "outliers do not grow from polynomial to polynomial. Latents beyond have no data.",
    )
    order: Orders = "alternating"
    passes: Passes = None
    conditioner: NetConfig = Field(MLPConfig(), description="The masked network h.")


def build_naf(config: NAFConfig) -> Flow:
    """Build a neural autoregressive flow.

    Raises:
        ValueError: if the preprocessing or an order does not fit.
    """
    orders = make_orders(config.order, config.features, config.num_layers, config.passes)
    last = len(orders) - 1
    maps = [_layers(config, order, is_last=place == last) for place, order in enumerate(orders)]
    return assemble(config, stack(config, maps))


def _layers(config: NAFConfig, order: Order, *, is_last: bool) -> list[Layer]:
    layers: list[Layer] = [
        AutoregressiveLayer(order=order, elementwise=config.map, conditioner=config.conditioner)
    ]
    if config.soft_clip is not None and not is_last:
        layers.append(SoftClipLayer(bound=config.soft_clip))
    return layers
