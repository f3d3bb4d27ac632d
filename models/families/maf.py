"""MAF: affine maps that are autoregressive, computed by masked networks."""

from typing import Literal

from models.families.chain import assemble
from models.families.config import PositiveInt
from models.families.layers import AffineConfig, AutoregressiveLayer
from models.families.nets import ConditionerConfig, MLPConfig
from models.families.stack import Orders, StackConfig, make_orders, stack
from models.flow import Flow
from models.transforms.elementwise import AffineForm, ScaleFunction


class MAFConfig(StackConfig):
    """z_i = (x_i - m(x_<i)) exp(-a(x_<i)), `num_layers` times.

    Cost: decode takes D passes of every network, or `passes`.

    Attributes:
        scale, form: of the affine maps, see `Affine`.
        order: in which features see each other, see `make_orders`.
        passes: fewer places in the order than features.
        one_pass: the direction that takes one pass of the network; "decode" makes the flow an IAF,
            fast to sample and slow to score.
        conditioner: a masked network (MADE), or a pair of them for shift and scale.

    Reference: Papamakarios et al. 2017 (arXiv 1705.07057); Kingma et al. 2016 for IAF
    (arXiv 1606.04934).
    """

    scale: ScaleFunction = "exp"
    form: AffineForm = "unshift_then_unscale"
    order: Orders = "alternating"
    passes: PositiveInt | None = None
    one_pass: Literal["encode", "decode"] = "encode"
    conditioner: ConditionerConfig = MLPConfig()


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
                elementwise=AffineConfig(scale=config.scale, form=config.form),
                conditioner=config.conditioner,
            )
        ]
        for order in orders
    ]
    return assemble(config, stack(config, maps))
