"""Planar flows: space bends across one hyperplane after the other."""

from models.families.about import About, Example
from models.families.chain import assemble
from models.families.costs import COSTS
from models.families.layers import Bend, Formula, PlanarLayer
from models.families.options import NegativeSlope
from models.families.stack import StackConfig, check_base_takes_context, stack
from models.flow import Flow

PLANAR = About(
    what="a bend across one hyperplane a map, without a network",
    data="tables of few columns",
    when="you want few weights, or the flow of Rezende & Mohamed; realnvp models far more",
    cost=COSTS["planar"],
    example=Example(
        data="two_moons",
        event_shape=(2,),
        arguments={"num_layers": 16, "actnorm": {"kind": "actnorm"}},
    ),
)


class PlanarConfig(StackConfig):
    """y = x + u h(w x + b), `num_layers` times.

    Cost: the direction of `formula` takes 2 D products a map, and so does the other one with
    leaky_relu; with tanh it solves one equation in one number, too, in about 8 steps.

    Reference: Rezende & Mohamed 2015, eq. 10 (arXiv 1505.05770).
    """

    activation: Bend = "tanh"
    negative_slope: NegativeSlope = 0.01
    formula: Formula = "encode"


def build_planar(config: PlanarConfig) -> Flow:
    """Build a planar flow.

    Raises:
        ValueError: if the preprocessing does not fit, or nothing takes the context.
    """
    check_base_takes_context(config)
    layer = PlanarLayer(
        activation=config.activation,
        negative_slope=config.negative_slope,
        formula=config.formula,
    )
    return assemble(config, stack(config, [[layer]] * config.num_layers))
