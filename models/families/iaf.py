"""IAF: a MAF with its directions exchanged, fast to sample and slow to score."""

from pydantic import Field

from models.families.about import About, Example
from models.families.chain import assemble
from models.families.costs import COSTS
from models.families.layers import AffineConfig, AutoregressiveLayer, DecodingOption
from models.families.nets import ConditionerConfig, MLPConfig
from models.families.options import AffineScale, MapForm
from models.families.stack import Orders, Passes, StackConfig, make_orders, stack
from models.flow import Flow

IAF = About(
    what="a MAF exchanged: each feature given the noise of those before it",
    data="tables of few columns",
    when="you sample far more than you score: a score takes D passes, and so does training",
    cost=COSTS["iaf"],
    example=Example(
        data="two_moons",
        event_shape=(2,),
        arguments={"num_layers": 5, "conditioner": {"kind": "mlp", "widths": [64, 64]}},
    ),
)


class IAFConfig(StackConfig):
    """x_i = z_i exp(a(z_<i)) + m(z_<i), `num_layers` times.

    Cost: decode takes one pass of every network, encode D passes, or `passes`. Training encodes: a
    step takes up to D passes forwards (those of the fixed-point iteration, see `decoding`) and as
    many backwards, and the memory of one.

    Reference: Kingma et al. 2016 (arXiv 1606.04934).
    """

    scale: AffineScale = "exp"
    form: MapForm = Field(
        "scale_then_shift",
        description="Of the map from latents to data. scale_then_shift: z s + t; "
        "shift_then_scale: (z + t) s; unshift_then_unscale: (z - t) / s.",
    )
    order: Orders = "alternating"
    passes: Passes = None
    decoding: DecodingOption = "sequential"
    conditioner: ConditionerConfig = Field(
        MLPConfig(), description="A masked network (MADE), or a pair of them for shift and scale."
    )


def build_iaf(config: IAFConfig) -> Flow:
    """Build an IAF.

    Raises:
        ValueError: if the preprocessing, an order or the conditioner does not fit.
    """
    orders = make_orders(config.order, config.features, config.num_layers, config.passes)
    maps = [
        [
            AutoregressiveLayer(
                order=order,
                one_pass="decode",
                decoding=config.decoding,
                elementwise=AffineConfig(scale=config.scale, form=config.form),
                conditioner=config.conditioner,
            )
        ]
        for order in orders
    ]
    return assemble(config, stack(config, maps))
