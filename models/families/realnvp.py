"""RealNVP over vectors: affine couplings with masks that take turns."""

from typing import Literal

from models.families.chain import assemble
from models.families.layers import AdditiveConfig, AffineConfig, CouplingLayer
from models.families.nets import ConditionerConfig, MLPConfig
from models.families.stack import Masks, StackConfig, make_masks, stack
from models.flow import Flow
from models.transforms.elementwise import AffineForm, ScaleFunction


class RealNVPConfig(StackConfig):
    """y_keep = x_keep, y_move = x_move exp(s(x_keep)) + t(x_keep), `num_layers` times.

    Attributes:
        coupling: "additive" leaves the scale out (volume preserving).
        scale, form: of affine couplings, see `Affine`; "tanh" is the paper's bound with a learned
            weight a feature.
        masks: which features are kept, see `make_masks`.
        conditioner: the networks s and t, as one or as a pair.

    Reference: Dinh et al. 2017 (arXiv 1605.08803).
    """

    coupling: Literal["affine", "additive"] = "affine"
    scale: ScaleFunction = "tanh"
    form: AffineForm = "scale_then_shift"
    masks: Masks = "alternating"
    conditioner: ConditionerConfig = MLPConfig()


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
