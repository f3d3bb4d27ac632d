"""MAF: affine maps that are autoregressive, computed by masked networks."""

from pydantic import Field

from models.families.about import About, Example
from models.families.chain import assemble
from models.families.costs import COSTS
from models.families.layers import AffineConfig, AutoregressiveLayer, DecodingOption, OnePass
from models.families.nets import ConditionerConfig, MLPConfig
from models.families.options import AffineScale, MapForm
from models.families.stack import Orders, Passes, StackConfig, make_orders, stack
from models.flow import Flow

MAF = About(
    what="affine maps, each feature given those before it (IAF: one_pass=decode)",
    data="tables",
    when="you score far more than you sample: a sample takes D passes of the networks",
    cost=COSTS["maf"],
    example=Example(
        data="wine",
        event_shape=(13,),
        arguments={"num_layers": 5, "conditioner": {"kind": "mlp", "widths": [64, 64]}},
    ),
)


class MAFConfig(StackConfig):
    """z_i = (x_i - m(x_<i)) exp(-a(x_<i)), `num_layers` times.

    Cost: decode takes D passes of every network, or `passes`.

    Reference: Papamakarios et al. 2017 (arXiv 1705.07057); Kingma et al. 2016 for IAF
    (arXiv 1606.04934).
    """

    scale: AffineScale = "exp"
    form: MapForm = "unshift_then_unscale"
    order: Orders = "alternating"
    passes: Passes = None
    one_pass: OnePass = "encode"
    decoding: DecodingOption = "sequential"
    conditioner: ConditionerConfig = Field(
        MLPConfig(), description="A masked network (MADE), or a pair of them for shift and scale."
    )


def build_maf(config: MAFConfig) -> Flow:
    """Build a MAF.

    Raises:
        ValueError: if the preprocessing, an order or the conditioner does not fit.
    """
    orders = make_orders(config.order, config.features, config.num_layers, config.passes)
    maps = [
        [
            AutoregressiveLayer(
                order=order,
                one_pass=config.one_pass,
                decoding=config.decoding,
                elementwise=AffineConfig(scale=config.scale, form=config.form),
                conditioner=config.conditioner,
            )
        ]
        for order in orders
    ]
    return assemble(config, stack(config, maps))
