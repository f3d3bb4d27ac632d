"""RealNVP over vectors: affine couplings with masks that take turns."""

from typing import Literal

from pydantic import Field

from models.families.about import About, Example
from models.families.chain import assemble
from models.families.costs import COSTS
from models.families.layers import AdditiveConfig, AffineConfig, CouplingLayer
from models.families.nets import ConditionerConfig, MLPConfig
from models.families.options import AffineScale, MapForm
from models.families.stack import Masks, StackConfig, make_masks, stack
from models.flow import Flow

REALNVP = About(
    what="affine couplings with masks that take turns",
    data="tables of two columns or more",
    when="you begin with a table: as fast to sample as to score",
    cost=COSTS["realnvp"],
    example=Example(data="two_moons", event_shape=(2,), arguments={"num_layers": 8}),
)


class RealNVPConfig(StackConfig):
    """y_keep = x_keep, y_move = x_move exp(s(x_keep)) + t(x_keep), `num_layers` times.

    Reference: Dinh et al. 2017 (arXiv 1605.08803).
    """

    coupling: Literal["affine", "additive"] = Field(
        "affine", description="additive leaves the scale out, and keeps volume."
    )
    scale: AffineScale = "tanh"
    form: MapForm = "scale_then_shift"
    masks: Masks = "alternating"
    conditioner: ConditionerConfig = Field(
        MLPConfig(), description="The networks s and t, as one or as a pair."
    )


def build_realnvp(config: RealNVPConfig) -> Flow:
    """Build RealNVP over vectors.

    Raises:
        ValueError: if the preprocessing, a mask or the conditioner does not fit.
    """
    elementwise = (
        AdditiveConfig()
        if config.coupling == "additive"
        else AffineConfig(scale=config.scale, form=config.form)
    )
    maps = [
        [CouplingLayer(mask=mask, elementwise=elementwise, conditioner=config.conditioner)]
        for mask in make_masks(config.masks, config.features, config.num_layers)
    ]
    return assemble(config, stack(config, maps))
