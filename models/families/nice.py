"""NICE: additive couplings and one learned scale a dimension."""

from typing import Literal

from pydantic import Field

from models.families.about import About, Example
from models.families.chain import VectorConfig, assemble
from models.families.config import Repeats
from models.families.costs import COSTS
from models.families.layers import AdditiveConfig, CouplingLayer, Layer, LogisticLayer, ScaleLayer
from models.families.nets import HiddenWidths, MLPConfig
from models.families.options import HiddenActivation, NegativeSlope
from models.families.stack import Masks, make_masks
from models.flow import Flow

NICE = About(
    what="additive couplings, then one scale a dimension",
    data="tables of two columns or more, small images",
    when="you want the simplest flow, a baseline; realnvp bends more with fewer weights",
    cost=COSTS["nice"],
    example=Example(
        data="two_moons",
        event_shape=(2,),
        arguments={"num_couplings": 6, "widths": [128, 128]},
    ),
)


class NICEConfig(VectorConfig):
    """y_move = x_move + m(x_keep), `num_couplings` times; then z = exp(s) y.

    The couplings keep volume: log_det is sum(s) everywhere (without preprocessing and with a normal
    base). Images are flattened. The paper's networks: 5 x 1000 units for MNIST, 4 x 2000 for TFD
    and SVHN, ReLU, four couplings. A logistic base is turned into the normal base of every flow
    here by an exact bijection.

    Reference: Dinh et al. 2014 (arXiv 1410.8516).
    """

    num_couplings: Repeats = Field(
        4, description="How many; the paper finds three needed for all dimensions to meet."
    )
    masks: Masks = "alternating"
    widths: HiddenWidths = Field(
        (1000, 1000, 1000, 1000, 1000), description="Hidden layers of the networks m."
    )
    activation: HiddenActivation = "relu"
    negative_slope: NegativeSlope = 0.01
    base: Literal["normal", "logistic"] = Field(
        "normal", description="Of the latents; logistic is the paper's."
    )


def build_nice(config: NICEConfig) -> Flow:
    """Build a NICE flow.

    Raises:
        ValueError: if the preprocessing or a mask does not fit the event.
    """
    net = MLPConfig(
        widths=config.widths,
        activation=config.activation,
        negative_slope=config.negative_slope,
    )
    layers: list[Layer] = [
        CouplingLayer(mask=mask, elementwise=AdditiveConfig(), conditioner=net)
        for mask in make_masks(config.masks, config.features, config.num_couplings)
    ]
    layers.append(ScaleLayer())
    if config.base == "logistic":
        layers.append(LogisticLayer())
    return assemble(config, layers)
