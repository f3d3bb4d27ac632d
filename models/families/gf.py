"""Gaussianization flows: mixtures of normals made normal, and rotations between."""

from pydantic import Field

from models.families.about import About, Example
from models.families.chain import assemble
from models.families.config import Repeats
from models.families.costs import COSTS
from models.families.layers import (
    AutoregressiveLayer,
    GaussianizationConfig,
    Layer,
    LinearLayer,
    PointwiseLayer,
)
from models.families.nets import MLPConfig
from models.families.stack import StackConfig, stack
from models.flow import Flow

GF = About(
    what="mixtures of normals made normal, feature by feature, and rotations between",
    data="tables of few columns",
    when="you want no networks; nsf models more, and samples without a search",
    cost=COSTS["gf"],
    example=Example(
        data="two_moons", event_shape=(2,), arguments={"num_layers": 8, "components": 8}
    ),
)


class GFConfig(StackConfig):
    """A rotation, then Phi^-1 of a mixture's distribution function a feature, `num_layers` times.

    With a context the mixtures' parameters are a network's of the context alone.

    Reference: Meng et al. 2020, Gaussianization flows (arXiv 2003.01941).
    """

    linear: LinearLayer | None = Field(
        LinearLayer(matrix="householder", bias=False),
        description="The rotation in front of every map, or another invertible matrix.",
    )
    components: Repeats = Field(8, description="Of every mixture.")
    conditioner: MLPConfig = Field(
        MLPConfig(), description="The network of the context, where there is one."
    )


def build_gf(config: GFConfig) -> Flow:
    """Build a Gaussianization flow.

    Raises:
        ValueError: if the preprocessing does not fit.
    """
    mixtures = GaussianizationConfig(components=config.components)
    layer: Layer
    if config.context_size:
        # Features that share a place do not see each other.
        places = (0,) * config.features
        layer = AutoregressiveLayer(
            order=places, elementwise=mixtures, conditioner=config.conditioner
        )
    else:
        layer = PointwiseLayer(chosen=tuple(range(config.features)), elementwise=mixtures)
    return assemble(config, stack(config, [[layer]] * config.num_layers))
