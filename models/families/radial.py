"""Radial flows: space is drawn towards one point after the other, or pushed away."""

from models.families.about import About, Example
from models.families.chain import assemble
from models.families.costs import COSTS
from models.families.layers import Formula, RadialLayer
from models.families.stack import StackConfig, check_base_takes_context, stack
from models.flow import Flow

RADIAL = About(
    what="a contraction towards one point, or an expansion, a map, without a network",
    data="tables of few columns",
    when="you want the fewest weights, D + 2 a map, for one cloud with heavy or light tails",
    cost=COSTS["radial"],
    example=Example(
        data="two_moons",
        event_shape=(2,),
        arguments={"num_layers": 16, "actnorm": {"kind": "actnorm"}},
    ),
)


class RadialConfig(StackConfig):
    """y = x + beta (x - c) / (a + |x - c|), `num_layers` times.

    Cost: about 4 D operations a map in either direction: the inverse is the root of a quadratic.

    Reference: Rezende & Mohamed 2015, eq. 14 (arXiv 1505.05770).
    """

    formula: Formula = "encode"


def build_radial(config: RadialConfig) -> Flow:
    """Build a radial flow.

    Raises:
        ValueError: if the preprocessing does not fit, or nothing takes the context.
    """
    check_base_takes_context(config)
    layer = RadialLayer(formula=config.formula)
    return assemble(config, stack(config, [[layer]] * config.num_layers))
